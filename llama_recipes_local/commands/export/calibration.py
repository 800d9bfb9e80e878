"""The training rows that GPTQ is calibrated on: those of the run, or of the data set named."""

from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.errors import refusal
from llama_recipes_local.run import Run, activate

ROWS = 128  # as in the paper (2210.17323)
LONGEST_ROW = 2048  # tokens; what follows is left out


def calibration_rows(run: Run | None) -> list[list[int]]:
    """Return token ids of rows that lie evenly among a run's training rows.

    Raises:
        UsageError: if there is no run, or its training data cannot be used.
    """
    what, fix = "--format gptq is calibrated on training rows", "--dataset NAME"
    if run is None:
        raise refusal(what, "no record of a run whose data can be read is with the model", fix)
    with activate(run):
        rows = prepare_data(run, ("train",)).splits["train"]
    if not isinstance(rows, TokenRows):
        raise refusal(what, f"{run.train.dataset} is a stream, or has its own batches", fix)
    places = range(0, len(rows), max(1, len(rows) // ROWS))
    return [rows.arrays(place)[0].tolist()[:LONGEST_ROW] for place in places[:ROWS]]
