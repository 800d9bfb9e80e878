"""Triton kernels of ``packed_attention``: tiles lie over the packed tokens, whatever the documents.

A query attends to the keys from its document's first up to its own place, so a tile of queries
reads the keys from its first query's document on, and a tile of keys is read by the queries up to
the end of its last key's document. The forward pass rotates queries and keys as it reads them, and
keeps them for the backward pass: a head's halves are the parts of complex numbers, and scores are
the sum of two products of halves. Scores and the logarithms of their sums are to the base of 2.

Tensors are (tokens, heads * 2 * HALF), angles (tokens, 2 * HALF), ``sums`` and ``products`` (heads,
tokens), and ``spans`` (2, tokens): where the document of each token begins and ends.
"""

import triton
import triton.language as tl

from llama_recipes_local.kernels.triton.fast_launch import fast


@triton.jit
def _places(first, stride, TILE: tl.constexpr, WIDTH: tl.constexpr):
    """Return the first token's place, in 64 bits, and those of a tile's values from there."""
    rows, columns = tl.arange(0, TILE)[:, None], tl.arange(0, WIDTH)[None, :]
    return tl.cast(first, tl.int64) * stride, rows * stride + columns


@triton.jit
def _head(x, first, inside, stride, TILE: tl.constexpr, WIDTH: tl.constexpr):
    """Return a head of the tokens from ``first`` on, (TILE, WIDTH)."""
    base, places = _places(first, stride, TILE, WIDTH)
    return tl.load(x + base + places, mask=inside[:, None], other=0.0)


@triton.jit
def _halves(x, first, inside, stride, TILE: tl.constexpr, HALF: tl.constexpr):
    """Return the halves of a head of the tokens from ``first`` on, each (TILE, HALF)."""
    left = _head(x, first, inside, stride, TILE, HALF)
    return left, _head(x + HALF, first, inside, stride, TILE, HALF)


@triton.jit
def _rotated(x, cos, sin, first, inside, stride, TILE: tl.constexpr, HALF: tl.constexpr):
    """Return the halves of a head of the tokens from ``first`` on, rotated, each (TILE, HALF)."""
    left, right = _halves(x, first, inside, stride, TILE, HALF)
    dtype = left.dtype
    left, right = left.to(tl.float32), right.to(tl.float32)
    c = _head(cos, first, inside, 2 * HALF, TILE, HALF).to(tl.float32)
    s = _head(sin, first, inside, 2 * HALF, TILE, HALF).to(tl.float32)
    return (left * c - right * s).to(dtype), (right * c + left * s).to(dtype)


@triton.jit
def _write(x, value, first, inside, stride, TILE: tl.constexpr, WIDTH: tl.constexpr):
    base, places = _places(first, stride, TILE, WIDTH)
    tl.store(x + base + places, value.to(x.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _write_rotated_back(
    x, left, right, cos, sin, first, inside, stride, TILE: tl.constexpr, HALF: tl.constexpr
):
    """Write the gradient of a head of some tokens, given that of its rotated halves."""
    base, places = _places(first, 2 * HALF, TILE, HALF)
    # by a modifier of its own: else the angles would stay in registers since they were first read
    c = tl.load(cos + base + places, inside[:, None], 0.0, cache_modifier=".ca").to(tl.float32)
    s = tl.load(sin + base + places, inside[:, None], 0.0, cache_modifier=".ca").to(tl.float32)
    _write(x, left * c + right * s, first, inside, stride, TILE, HALF)
    _write(x + HALF, right * c - left * s, first, inside, stride, TILE, HALF)


@fast
@triton.jit
def forward(
    query, key, value, cos, sin, spans, turned_query, turned_key, out, sums, scale, tokens,
    HEADS: tl.constexpr, GROUP: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr,
    KEYS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Write what a tile of a head's queries attends to, and the logarithms of its scores' sums.

    If ``KEEP``, the rotated queries and keys are written too, each by one program.
    """
    head, first = tl.program_id(0), tl.program_id(1) * TILE
    rows = first + tl.arange(0, TILE)
    inside = rows < tokens
    width: tl.constexpr = 2 * HALF
    stride, kv_stride = HEADS * width, HEADS // GROUP * width
    key += head // GROUP * width
    value += head // GROUP * width
    q1, q2 = _rotated(query + head * width, cos, sin, first, inside, stride, TILE, HALF)
    if KEEP:
        _write(turned_query + head * width, q1, first, inside, stride, TILE, HALF)
        _write(turned_query + head * width + HALF, q2, first, inside, stride, TILE, HALF)
        turned_key += head // GROUP * width
    starts = tl.load(spans + rows, mask=inside, other=0)
    end = tl.minimum(first + TILE, tokens)
    largest = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    attended = tl.zeros((TILE, width), tl.float32)
    for start in range(tl.load(spans + first), end, KEYS):
        columns = start + tl.arange(0, KEYS)
        known = columns < end
        k1, k2 = _rotated(key, cos, sin, start, known, kv_stride, KEYS, HALF)
        if KEEP and head % GROUP == 0:
            own = known & (columns >= first)
            _write(turned_key, k1, start, own, kv_stride, KEYS, HALF)
            _write(turned_key + HALF, k2, start, own, kv_stride, KEYS, HALF)
        v = _head(value, start, known, kv_stride, KEYS, width)
        scores = tl.dot(q2, tl.trans(k2), tl.dot(q1, tl.trans(k1))) * scale
        seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= starts[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))
        # a query that has seen no key yet: its document begins in a later tile of keys
        base = tl.where(higher == float("-inf"), 0.0, higher)
        shares = tl.exp2(scores - base[:, None])
        before = tl.exp2(largest - base)
        total = total * before + tl.sum(shares, 1)
        attended = tl.dot(shares.to(v.dtype), v, attended * before[:, None])
        largest = higher
    _write(out + head * width, attended / total[:, None], first, inside, stride, TILE, width)
    tl.store(sums + head * tokens + rows, largest + tl.log2(total), mask=inside)


@fast
@triton.jit
def row_products(
    given, out, products, tokens, HEADS: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr
):
    """Write the product of a head's output and its gradient for a tile of tokens."""
    head, first = tl.program_id(0), tl.program_id(1) * TILE
    rows = first + tl.arange(0, TILE)
    inside = rows < tokens
    do = _head(given + head * WIDTH, first, inside, HEADS * WIDTH, TILE, WIDTH).to(tl.float32)
    o = _head(out + head * WIDTH, first, inside, HEADS * WIDTH, TILE, WIDTH).to(tl.float32)
    tl.store(products + head * tokens + rows, tl.sum(do * o, 1), mask=inside)


@triton.jit
def _of_queries(
    given, query, key, value, cos, sin, spans, products, sums, of_query, first, scale, tokens,
    stride, kv_stride, HALF: tl.constexpr, TILE: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of a tile of a head's queries."""
    rows = first + tl.arange(0, TILE)
    inside = rows < tokens
    do = _head(given, first, inside, stride, TILE, 2 * HALF)
    delta = tl.load(products + rows, mask=inside, other=0.0)
    q1, q2 = _halves(query, first, inside, stride, TILE, HALF)
    logs = tl.load(sums + rows, mask=inside, other=0.0)
    starts = tl.load(spans + rows, mask=inside, other=0)
    end = tl.minimum(first + TILE, tokens)
    dq1, dq2 = tl.zeros((TILE, HALF), tl.float32), tl.zeros((TILE, HALF), tl.float32)
    for start in range(tl.load(spans + first), end, KEYS):
        columns = start + tl.arange(0, KEYS)
        known = columns < end
        k1, k2 = _halves(key, start, known, kv_stride, KEYS, HALF)
        v = _head(value, start, known, kv_stride, KEYS, 2 * HALF)
        scores = tl.dot(q2, tl.trans(k2), tl.dot(q1, tl.trans(k1))) * scale
        seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= starts[:, None])
        shares = tl.where(seen, tl.exp2(scores - logs[:, None]), 0.0)
        ds = (shares * (tl.dot(do, tl.trans(v)) - delta[:, None])).to(k1.dtype)
        dq1, dq2 = tl.dot(ds, k1, dq1), tl.dot(ds, k2, dq2)
    factor = scale * 0.6931471805599453  # scores are to the base of 2
    _write_rotated_back(
        of_query, dq1 * factor, dq2 * factor, cos, sin, first, inside, stride, TILE, HALF
    )


@triton.jit
def _of_keys(
    given, query, key, value, cos, sin, spans, products, sums, of_key, of_value, first, scale,
    tokens, stride, kv_stride,
    GROUP: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a tile of a head's keys and values, over all queries' heads."""
    columns = first + tl.arange(0, TILE)
    known = columns < tokens
    k1, k2 = _halves(key, first, known, kv_stride, TILE, HALF)
    v = _head(value, first, known, kv_stride, TILE, 2 * HALF)
    end = tl.load(spans + tokens + tl.minimum(first + TILE, tokens) - 1)
    dk1, dk2 = tl.zeros((TILE, HALF), tl.float32), tl.zeros((TILE, HALF), tl.float32)
    dv = tl.zeros((TILE, 2 * HALF), tl.float32)
    for head in range(GROUP):
        place = head * 2 * HALF
        for start in range(first, end, QUERIES):
            rows = start + tl.arange(0, QUERIES)
            inside = rows < end
            do = _head(given + place, start, inside, stride, QUERIES, 2 * HALF)
            delta = tl.load(products + head * tokens + rows, mask=inside, other=0.0)
            q1, q2 = _halves(query + place, start, inside, stride, QUERIES, HALF)
            logs = tl.load(sums + head * tokens + rows, mask=inside, other=0.0)
            starts = tl.load(spans + rows, mask=inside, other=tokens)
            scores = tl.dot(k2, tl.trans(q2), tl.dot(k1, tl.trans(q1))) * scale
            seen = (columns[:, None] <= rows[None, :]) & (columns[:, None] >= starts[None, :])
            shares = tl.where(seen, tl.exp2(scores - logs[None, :]), 0.0)
            dv = tl.dot(shares.to(do.dtype), do, dv)
            ds = (shares * (tl.dot(v, tl.trans(do)) - delta[None, :])).to(q1.dtype)
            dk1, dk2 = tl.dot(ds, q1, dk1), tl.dot(ds, q2, dk2)
    factor = scale * 0.6931471805599453
    _write_rotated_back(
        of_key, dk1 * factor, dk2 * factor, cos, sin, first, known, kv_stride, TILE, HALF
    )
    _write(of_value, dv, first, known, kv_stride, TILE, 2 * HALF)


@fast
@triton.jit
def backward(
    given, query, key, value, cos, sin, spans, products, sums, of_query, of_key, of_value, scale,
    tokens,
    HEADS: tl.constexpr, GROUP: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a tile: of a head's keys and values, or of its queries.

    Of ``GROUP + 1`` programs that follow one another the first writes those of keys and values, the
    others those of the queries' heads that read them. Queries and keys are the rotated ones.
    """
    kv_head, part = tl.program_id(0) // (GROUP + 1), tl.program_id(0) % (GROUP + 1)
    first = tl.program_id(1) * TILE
    width: tl.constexpr = 2 * HALF
    stride, kv_stride = HEADS * width, HEADS // GROUP * width
    head = kv_head * GROUP + tl.maximum(part - 1, 0)
    key += kv_head * width
    value += kv_head * width
    given += head * width
    query += head * width
    products += head * tokens
    sums += head * tokens
    if part == 0:
        _of_keys(
            given, query, key, value, cos, sin, spans, products, sums, of_key + kv_head * width,
            of_value + kv_head * width, first, scale, tokens, stride, kv_stride,
            GROUP, HALF, TILE, INNER,
        )  # fmt: skip
    else:
        _of_queries(
            given, query, key, value, cos, sin, spans, products, sums, of_query + head * width,
            first, scale, tokens, stride, kv_stride, HALF, TILE, INNER,
        )  # fmt: skip
