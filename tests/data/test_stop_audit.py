"""How rows begin and stop is counted by hand's numbers, in one batch and in several."""

from llama_recipes_local.data.endings import Endings, find_endings
from llama_recipes_local.data.token_rows import IGNORE_INDEX, Chunk, TokenRows

NO = IGNORE_INDEX
IDS = [[1, 5, 6, 2], [1, 1, 5, 2], [5, 6, 3, 9], [1, 5], [7], [1, 2]]
LABELS = [[NO, NO, 6, 2], [NO, NO, 5, NO], [NO, 6, 3, NO], [NO, NO], [NO], [NO, 2]]


def test_how_rows_begin_and_stop() -> None:
    one = TokenRows([Chunk.of(IDS, LABELS).batch()])
    several = TokenRows(
        [Chunk.of(IDS[:2], LABELS[:2]).batch(), Chunk.of(IDS[2:], LABELS[2:]).batch()]
    )
    for rows in (one, several):
        assert rows.last_labels.tolist() == [2, 5, 3, NO, NO, 2]
        assert rows.beginnings[0].tolist() == [1, 1, 5, 1, 7, 1]
        assert rows.beginnings[1].tolist() == [5, 1, 6, 5, -1, 2]
        assert find_endings(rows, [2, 3], 1, True) == Endings(3, 1, 2)
        assert find_endings(rows, [2], 1, False) == Endings(2, 1, 0)
        assert find_endings(rows, [], None, False) == Endings(0, 0, 0)
    assert find_endings(TokenRows([]), [2], 1, True) == Endings(0, 0, 0)
