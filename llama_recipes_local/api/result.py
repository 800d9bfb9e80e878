"""What ``finetune`` returns: a run's numbers, files and model."""

import html
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_recipes_local.errors import refusal, refuse
from llama_recipes_local.program import command

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from llama_recipes_local.answers.asking import AskedModel
    from llama_recipes_local.answers.generator import Sampling
    from llama_recipes_local.run import Run

Row = dict[str, Any]  # what is logged after a step is of several types


@dataclass(frozen=True)
class Result:
    """A finished run. Every rank gets one; the files that it reads are those of the first rank.

    Attributes:
        output_dir: the run's folder.
        adapter_dir: folder of the saved adapter; None if none was trained, or it was not saved.
        model_dir: folder of the saved model that was trained without an adapter; None if none was.
        base_model: folder of the model that was trained.
        loss_before: validation loss before training; None without a validation that compares.
        loss_after: validation loss after training; None without validation.
        steps: optimiser steps of the whole run, also before it was resumed.
        tokens: tokens of these steps; None if unknown.
        seconds: of training and validation.
        facts: the rows of the box that the run printed at its end, by title.
    """

    output_dir: Path
    adapter_dir: Path | None
    model_dir: Path | None
    base_model: Path
    loss_before: float | None = None
    loss_after: float | None = None
    steps: int = 0
    tokens: int | None = None
    seconds: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: "Run") -> "Result":
        """Return the result of a run."""
        from llama_recipes_local.closing import facts, saved_folder

        results = run.results
        saved = saved_folder(run) if results else None  # else a dry run: it is of an earlier one
        saved = None if saved is None else saved.resolve()
        return cls(
            output_dir=Path(run.train.output_dir).resolve(),
            adapter_dir=saved if run.train.use_peft else None,
            model_dir=None if run.train.use_peft else saved,
            base_model=Path(run.train.model_name).expanduser().resolve(),
            loss_before=results.get("eval_loss_before"),
            loss_after=results.get("eval_loss_after"),
            steps=results.get("steps", 0),
            tokens=results.get("tokens", 0),
            seconds=results.get("seconds", 0.0),
            facts=facts(run) if results else {"trained": "nothing"},
        )

    @cached_property
    def metrics(self) -> list[Row]:
        """A row for each optimiser step, as ``metrics.jsonl`` has them."""
        from llama_recipes_local.run.logged_metrics import METRICS_FILE

        return _rows(self.output_dir / METRICS_FILE)

    @cached_property
    def evaluations(self) -> list[Row]:
        """A row for each validation, as ``evaluations.jsonl`` has them; step 0 is the first."""
        from llama_recipes_local.run.logged_metrics import EVALUATIONS_FILE

        return _rows(self.output_dir / EVALUATIONS_FILE)

    def metrics_frame(self) -> "DataFrame":
        """Return ``metrics`` as a table of pandas, a row for each step."""
        from pandas import DataFrame

        return DataFrame(self.metrics)

    def plot(self) -> "Figure":
        """Return a figure of the losses by step, of training and validation."""
        from llama_recipes_local.api.figures import loss_figure

        return loss_figure(self.metrics, self.evaluations)

    def report(self, *others: "Result") -> Path:
        """Write the run's page, side by side with other runs, and return its path.

        The page of a run alone is written at its end already.

        Raises:
            UsageError: if one of them is no result, or its folder is gone.
        """
        from llama_recipes_local.reports.run_files import read_runs
        from llama_recipes_local.reports.run_page import PAGE, write_report

        for other in others:
            if not isinstance(other, Result):
                what, why = f"report({other!r})", "it is not what finetune has returned"
                raise refusal(what, why, command("report", self.output_dir, "DIR"))
        path = self.output_dir / PAGE
        write_report(read_runs([each.output_dir for each in (self, *others)]), path)
        return path

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 100,
        *,
        do_sample: bool = False,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 42,
    ) -> str:
        """Return what the trained model writes after a prompt, as ``generate --prompt`` prints it.

        The model is loaded from its folder the first time, and kept as long as this object.

        Args:
            prompt: goes into the prompt template of training.
            max_new_tokens: the most tokens of the answer.
            do_sample: whether tokens are sampled; otherwise each is the likeliest.
            temperature: with ``do_sample``: above 1 is more random, below 1 less.
            top_p: with ``do_sample``: sample from the likeliest tokens of this total probability.
            top_k: with ``do_sample``: sample from this many of the likeliest tokens; 0 means all.
            repetition_penalty: above 1 makes tokens that the text has less likely.
            seed: of sampling.

        Raises:
            UsageError: if no model was saved, the prompt cannot be used, or sampling is off.
        """
        _check_prompt(prompt)
        sampling = _sampling(
            do_sample,
            {"temperature": temperature, "top_p": top_p, "top_k": top_k},
            max_new_tokens=max_new_tokens,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        return self._asked.complete([prompt], sampling)[0][0]

    @cached_property
    def _asked(self) -> "AskedModel":
        from llama_recipes_local.answers.asking import AskedModel
        from llama_recipes_local.answers.model_source import find_source

        if self.adapter_dir is None and self.model_dir is None:
            why = "the run has saved no adapter and no model"
            raise refusal(f"no model in {self.output_dir}", why, "train with save_model=True")
        model = self.base_model if self.adapter_dir is not None else self.model_dir
        return AskedModel(find_source(self.adapter_dir, model))

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data, from which ``from_json`` restores it."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Result":
        """Return the result whose ``as_json`` returned these values."""
        names = ("output_dir", "adapter_dir", "model_dir", "base_model")
        paths = {name: Path(values[name]) for name in names if values[name] is not None}
        return cls(**values | paths)

    def __repr__(self) -> str:
        width = max(map(len, self.facts), default=0)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self.facts.items())

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        rows = (
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self.facts.items()
        )
        return f"<table>{''.join(rows)}</table>"


def _rows(path: Path) -> list[Row]:
    """Return a file's rows; a corrupt line, as a killed run may leave, is left out."""
    from llama_recipes_local.run.logged_metrics import step_of

    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if step_of(line) is not None]


def _check_prompt(prompt: object) -> None:
    from llama_recipes_local.datasets.base import is_blank

    if not isinstance(prompt, str):
        raise refusal(f"prompt={prompt!r}", "it is no text", 'give one: "..."')
    if is_blank(prompt):
        raise refusal(f"prompt={prompt!r}", "there is nothing to answer", 'give one: "..."')


def _sampling(do_sample: bool, only_sampling: dict[str, Any], **always: Any) -> "Sampling":
    """Return how tokens are chosen.

    Args:
        do_sample: whether they are sampled.
        only_sampling: settings that need ``do_sample``; None means that one is not given.
        **always: the other settings.
    """
    from llama_recipes_local.answers.generator import Sampling
    from llama_recipes_local.answers.sampling_limits import sampling_problems

    given = {name: value for name, value in only_sampling.items() if value is not None}
    refuse(sampling_problems(given | always))
    if given and not do_sample:
        what = ", ".join(f"{name}={value}" for name, value in given.items())
        why = "without sampling the likeliest token is taken each time"
        raise refusal(f"{what} without do_sample", why, "add do_sample=True")
    return Sampling(do_sample=do_sample, **given, **always)
