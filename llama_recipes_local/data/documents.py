"""Where documents begin in a packed batch: positions restart there."""

import torch


def document_bounds(position_ids: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Find the documents of a batch from its positions.

    Args:
        position_ids: (batch, seq); a document begins where the position is 0, and in column 0.

    Returns:
        The cumulative lengths over the batch's rows one after another, (documents + 1,) int32, and
        the length of the longest document. On CUDA this waits for the device.
    """
    begins = position_ids == 0
    begins[:, 0] = True
    starts = begins.flatten().nonzero().flatten()
    end = starts.new_tensor([position_ids.numel()])
    bounds = torch.cat([starts, end])
    return bounds.to(torch.int32), int(bounds.diff().max())
