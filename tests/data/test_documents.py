"""Documents of a packed batch begin where positions restart."""

import torch

from llama_recipes_local.data.documents import document_bounds


def test_documents_begin_where_positions_restart() -> None:
    bounds, longest = document_bounds(torch.tensor([[0, 1, 2, 0, 0, 1, 2, 3]]))
    assert bounds.tolist() == [0, 3, 4, 8]
    assert bounds.dtype == torch.int32
    assert longest == 4


def test_documents_do_not_cross_rows() -> None:
    # the second row continues a document that was split: it is a document of its own all the same
    positions = torch.tensor([[0, 1, 2, 3], [4, 5, 0, 1]])
    bounds, longest = document_bounds(positions)
    assert bounds.tolist() == [0, 4, 6, 8]
    assert longest == 4
    assert positions.tolist() == [[0, 1, 2, 3], [4, 5, 0, 1]]


def test_one_document_is_the_whole_row() -> None:
    bounds, longest = document_bounds(torch.arange(5).unsqueeze(0))
    assert bounds.tolist() == [0, 5]
    assert longest == 5
