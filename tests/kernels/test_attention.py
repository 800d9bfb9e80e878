"""Attention to packed documents equals that to each alone, in a layer and in a model."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llama_recipes_local.data.documents import document_bounds
from llama_recipes_local.kernels import attention
from llama_recipes_local.kernels.attention import LONG, NAME, document_attention

HEADS, HEAD_DIM = 4, 8
ROWS = {
    "one document": [[7]],
    "one row": [[3, 1, 4]],
    "several rows": [[3, 4], [5, 2], [7]],
}
# Both sides add up the same products in another order. A sum of n terms of size 1 is off by about
# sqrt(n) times half the spacing of the dtype, and a gradient is a sum of such sums: 7 spacings are
# seen, 64 are allowed.
TOLERANCE = {dtype: 64 * torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32)}


def positions(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor([[i for length in lengths for i in range(length)] for lengths in rows])


def block_diagonal(rows: list[list[int]]) -> torch.Tensor:
    """Return which position may see which: (batch, 1, seq, seq), causal within documents."""
    masks = [
        torch.block_diag(*[torch.ones(length, length).tril() for length in lengths])
        for lengths in rows
    ]
    return torch.stack(masks).bool().unsqueeze(1)


def layer(kv_heads: int) -> SimpleNamespace:
    groups = HEADS // kv_heads
    return SimpleNamespace(num_key_value_groups=groups, is_causal=True, training=True)


def random_states(
    rows: list[list[int]], kv_heads: int, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    batch, tokens = len(rows), sum(rows[0])
    return tuple(
        torch.randn(batch, heads, tokens, HEAD_DIM, dtype=dtype, requires_grad=True)
        for heads in (HEADS, kv_heads, kv_heads)
    )


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("named_by", ["cu_seq_lens", "positions"])
def test_layer_equals_sdpa_with_a_block_diagonal_mask(
    rows: list[list[int]], kv_heads: int, dtype: torch.dtype, named_by: str
) -> None:
    states = random_states(rows, kv_heads, dtype)
    bounds, longest = document_bounds(positions(rows))
    documents = (
        {"cu_seq_lens_q": bounds, "max_length_q": longest}
        if named_by == "cu_seq_lens"
        else {"position_ids": positions(rows)}
    )
    ours, scores = document_attention(layer(kv_heads), *states, None, scaling=0.3, **documents)
    theirs, _ = sdpa_attention_forward(layer(kv_heads), *states, block_diagonal(rows), scaling=0.3)
    assert scores is None
    limits = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    torch.testing.assert_close(ours, theirs, **limits)
    weights = torch.randn_like(theirs)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weights).sum(), states),
        torch.autograd.grad((theirs * weights).sum(), states),
        **limits,
    )


def test_scores_are_scaled_by_the_head_dimension_by_default() -> None:
    rows = ROWS["one row"]
    states = random_states(rows, HEADS, torch.float64)
    documents = {"position_ids": positions(rows)}
    default, _ = document_attention(layer(HEADS), *states, None, **documents)
    explicit, _ = document_attention(
        layer(HEADS), *states, None, scaling=HEAD_DIM**-0.5, **documents
    )
    torch.testing.assert_close(default, explicit)


def test_positions_of_one_row_are_those_of_all_rows() -> None:
    states = random_states([[3, 4], [3, 4]], HEADS, torch.float64)
    one, _ = document_attention(layer(HEADS), *states, None, position_ids=positions([[3, 4]]))
    all_, _ = document_attention(layer(HEADS), *states, None, position_ids=positions([[3, 4]] * 2))
    assert one.equal(all_)


def test_rows_without_positions_are_one_document_each() -> None:
    states = random_states([[7], [7]], HEADS, torch.float64)
    ours, _ = document_attention(layer(HEADS), *states, None)
    theirs, _ = sdpa_attention_forward(layer(HEADS), *states, block_diagonal([[7], [7]]))
    torch.testing.assert_close(ours, theirs)


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> dict[str, transformers.LlamaForCausalLM]:
    attention.register()
    return {
        name: transformers.LlamaForCausalLM.from_pretrained(
            tiny_model, attn_implementation=name, dtype=torch.float32
        ).eval()
        for name in (NAME, "sdpa")
    }


def random_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(3, 1000, shape, generator=torch.Generator().manual_seed(1))


# The logits are below 1 in size; two layers of float32 sums of 64 to 128 terms in another order
# are off by some 1e-7.
LOGITS_TOLERANCE = {"atol": 2e-6, "rtol": 0.0}


@torch.no_grad()
@pytest.mark.parametrize("named_by", ["cu_seq_lens", "positions"])
def test_packed_documents_have_the_logits_of_each_alone(
    models: dict[str, transformers.LlamaForCausalLM], named_by: str
) -> None:
    rows = [[20, 1, 30], [40, 11]]
    ids = random_tokens(2, 51)
    bounds, longest = document_bounds(positions(rows))
    names = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
    names |= {"max_length_q": longest, "max_length_k": longest}
    packed = models[NAME](
        ids, position_ids=positions(rows), **(names if named_by == "cu_seq_lens" else {})
    ).logits
    alone = [
        models["sdpa"](document.unsqueeze(0)).logits[0]
        for row, lengths in zip(ids, rows, strict=True)
        for document in row.split(lengths)
    ]
    torch.testing.assert_close(packed.flatten(0, 1), torch.cat(alone), **LOGITS_TOLERANCE)


@torch.no_grad()
def test_a_document_does_not_reach_its_neighbours(
    models: dict[str, transformers.LlamaForCausalLM],
) -> None:
    ids = random_tokens(1, 50)
    changed = ids.clone()
    changed[0, 20:30] = 5
    documents = {"position_ids": positions([[20, 10, 20]])}
    before, after = (models[NAME](x, **documents).logits[0] for x in (ids, changed))
    assert before[:20].equal(after[:20])
    assert before[30:].equal(after[30:])
    assert not before[20:30].equal(after[20:30])


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [False, True])
def test_packed_documents_need_no_mask(
    models: dict[str, transformers.LlamaForCausalLM],
    monkeypatch: pytest.MonkeyPatch,
    use_cache: bool,
) -> None:
    # a mask over a row is as large as the row squared
    seen = []
    monkeypatch.setattr(attention, "sdpa_mask", lambda **_: seen.append("a mask"))
    documents = {"position_ids": positions([[20, 30]]), "use_cache": use_cache}
    models[NAME](random_tokens(1, 50), **documents)
    assert seen == []
    models[NAME](random_tokens(1, 50), attention_mask=torch.ones(1, 50))
    assert seen == ["a mask"]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batch_has_the_logits_of_sdpa(
    models: dict[str, transformers.LlamaForCausalLM], side: str
) -> None:
    ids = random_tokens(2, 20)
    mask = torch.ones(2, 20, dtype=torch.int64)
    mask[1, slice(0, 6) if side == "left" else slice(14, 20)] = 0
    ours, theirs = (models[name](ids, attention_mask=mask).logits for name in (NAME, "sdpa"))
    seen = mask.bool()
    torch.testing.assert_close(ours[seen], theirs[seen], **LOGITS_TOLERANCE)


@pytest.mark.parametrize("batch", ["one prompt", "left-padded"])
def test_generates_the_same_text_as_sdpa(
    models: dict[str, transformers.LlamaForCausalLM], batch: str
) -> None:
    ids = random_tokens(1 if batch == "one prompt" else 3, 20)
    mask = torch.ones_like(ids)
    if batch == "left-padded":
        mask[1, :7], mask[2, :19] = 0, 0
        ids = ids.masked_fill(mask == 0, 2)
    ours, theirs = (
        models[name].generate(
            ids, attention_mask=mask, do_sample=False, min_new_tokens=24, max_new_tokens=24
        )
        for name in (NAME, "sdpa")
    )
    assert ours.equal(theirs)
    assert ours.shape[1] == 44


@torch.no_grad()
def test_continuing_with_a_cache_equals_one_pass(
    models: dict[str, transformers.LlamaForCausalLM],
) -> None:
    ids = random_tokens(2, 20)
    whole = models[NAME](ids).logits
    start = models[NAME](ids[:, :12], use_cache=True)
    rest = models[NAME](ids[:, 12:], past_key_values=start.past_key_values).logits
    torch.testing.assert_close(rest, whole[:, 12:], **LOGITS_TOLERANCE)


def test_documents_are_not_looked_for_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking waits for the device; sdpa, which gets no bounds, has to look."""
    looked = []

    def find(positions: torch.Tensor) -> None:
        looked.append(positions)

    monkeypatch.setattr(transformers.masking_utils, "find_packed_sequence_indices", find)
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=9,
    )
    inputs = {"input_ids": torch.ones(1, 5, dtype=torch.long), "position_ids": positions([[3, 2]])}
    for kernel, looks in ((NAME, 0), ("sdpa", 1)):
        config._attn_implementation = kernel
        transformers.LlamaForCausalLM(config)(**inputs, use_cache=False)
        assert len(looked) == looks


@pytest.mark.parametrize(
    ("lengths", "tokens", "dtype", "hopper", "chosen"),
    [
        ([4096, 4096], 8192, torch.bfloat16, True, True),
        ([LONG], LONG, torch.float16, True, True),
        ([LONG - 1], LONG - 1, torch.float16, True, False),
        ([LONG + 64] * 2, 2 * LONG + 128, torch.float16, True, False),
        ([4096, 4095, 1], 8192, torch.bfloat16, True, False),
        ([4096, 4096], 8192, torch.float32, True, False),
        ([4096, 4096], 8192, torch.bfloat16, False, False),
    ],
)
def test_long_documents_of_one_length_are_rows(
    lengths: list[int],
    tokens: int,
    dtype: torch.dtype,
    hopper: bool,
    chosen: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "on_hopper", lambda _: hopper)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    query = torch.empty(1, dtype=dtype)
    assert attention.are_long_rows(query, tokens, bounds, max(lengths)) is chosen


def test_rows_are_attended_as_documents_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    states = random_states([[5, 5], [5, 5]], HEADS, torch.float32)
    bounds = torch.tensor([0, 5, 10, 15, 20]).int()
    results = []
    for rows in (False, True):
        monkeypatch.setattr(attention, "are_long_rows", lambda *_, rows=rows: rows)
        out, _ = document_attention(
            layer(HEADS), *states, None, scaling=0.3, cu_seq_lens_q=bounds, max_length_q=5
        )
        results.append([out, *torch.autograd.grad(out, states, torch.ones_like(out))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
