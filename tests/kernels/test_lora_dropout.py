"""The masks of LoRA's dropout, which no kernel keeps."""

import pytest
import torch

from llama_recipes_local.kernels.lora import dropout
from llama_recipes_local.kernels.lora.dropout import Dropout


@pytest.mark.parametrize(
    ("word", "want"),
    [
        # published known answers of Philox 4x32 in seven rounds (Random123, kat_vectors)
        (0, (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
        (0xFFFFFFFF, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
    ],
)
def test_the_generator_has_its_published_answers(word: int, want: tuple[int, ...]) -> None:
    key = word | word << 32
    got = dropout._philox(key, [torch.tensor([word])] * 4)
    assert tuple(int(each) for each in got) == want


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_share_is_dropped_evenly(share: float) -> None:
    kept = Dropout(share, 7).keeps(2000, 1001).double()
    # six standard deviations of a mean of so many
    for mean, number in ((kept.mean(), kept.numel()), (kept.mean(0), 2000), (kept.mean(1), 1001)):
        assert (mean - (1 - share)).abs().max() < 6 * (share * (1 - share) / number) ** 0.5


def test_rows_columns_and_seeds_are_independent() -> None:
    kept = Dropout(0.5, 7).keeps(64, 4096).double() - 0.5
    other = Dropout(0.5, 8).keeps(64, 4096).double() - 0.5
    for one, two in ((kept[:-1], kept[1:]), (kept[:, :-1], kept[:, 1:]), (kept, other)):
        assert abs((one * two).mean() * 4) < 6 / one.numel() ** 0.5


def test_what_is_kept_has_the_mean_of_what_there_was() -> None:
    ones = torch.ones(500, 1000, dtype=torch.float64)
    assert Dropout(0.3, 1).of(ones).mean() == pytest.approx(1, abs=6e-3)
    assert torch.equal(Dropout().of(ones), ones)
