"""A fine-tuning run: preflight, data, upstream's ``main``, and a final report.

``api.logged_run`` imports it, which takes seconds: it imports nearly everything that a run needs.
"""

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local import launch, parallel
from llama_recipes_local._upstream import load
from llama_recipes_local.checkpoints.identity import check_identity
from llama_recipes_local.closing import closing_text
from llama_recipes_local.configs.quantization import INT8
from llama_recipes_local.console import (
    EndedRun,
    Failure,
    exit_on_broken_pipe,
    expected_failure,
    ignore_broken_pipe,
    rank_zero_output,
    tell_torchrun,
)
from llama_recipes_local.custody.run_custody import custody_of, finish_custody
from llama_recipes_local.datasets.base import first_records
from llama_recipes_local.datasets.prepared_data import RunData
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.model_checkpointing.adapter_card import write_adapter_card
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS
from llama_recipes_local.models.new_tokens import new_tokens_note
from llama_recipes_local.preflight import preflight
from llama_recipes_local.preflight.dry_run import dry_run_text
from llama_recipes_local.preflight.earlier_results import remove_earlier_result
from llama_recipes_local.preflight.rank_facts import data_facts, launch_facts
from llama_recipes_local.preflight.unread_settings import unread
from llama_recipes_local.processes import end_with_parent, ended_by_interrupt
from llama_recipes_local.rehearsal.beginning import rehearse
from llama_recipes_local.rehearsal.small_run import records_tokenized
from llama_recipes_local.reports.run_page import report_finished_run
from llama_recipes_local.run import Run, activate
from llama_recipes_local.run.log import RunLog
from llama_recipes_local.run.record import CONFIGURATION_FILE, save_description
from llama_recipes_local.run.stages import Stages
from llama_recipes_local.run.weight_bits import quantized_bits
from llama_recipes_local.screen import encodable
from llama_recipes_local.storage.folder_lock import locked
from llama_recipes_local.training.loggers import name_wandb_run
from llama_recipes_local.training.out_of_memory import out_of_memory_message


def finetune(
    arguments: tuple[Any, ...], flags: dict[str, Any], log: RunLog, called: bool = False
) -> Run:
    """Run what ``finetuning.main`` was asked for, and return the run at its end.

    Args:
        arguments: words of the command line without a flag.
        flags: the flags, by name: their text, or what Python passed.
        log: collects what is printed.
        called: whether Python called ``finetune``; then the process continues after the run.

    Raises:
        EndedRun: if the run fails or is stopped; an unexpected error is raised as it is.
    """
    run: Run | None = None
    watch: parallel.Watch | None = None
    try:
        with rank_zero_output():
            with exit_on_broken_pipe():
                if launch.is_by_torchrun():  # if that is killed, its ranks save and stop
                    end_with_parent(os.getppid(), signal.SIGTERM)
                watch = parallel.watch_peers()
                run = prepare(arguments, flags, watch)
                run.log, run.called = log, called
                if run.train.dry_run:
                    print_plan(run)
                    return run
                if run.train.rehearse:
                    if watch is not None:
                        watch.close()  # the other ranks end now
                        watch = None
                    if parallel.is_rank_zero():
                        rehearse(run, flags)
                    return run
            with ignore_broken_pipe(), activate(run):
                train(run)
        return run
    except (Exception, KeyboardInterrupt) as error:
        with ignore_broken_pipe():
            ended = _ended(error, run, watch)
        if ended is None:
            raise
        raise ended from error
    finally:
        if watch is not None:
            watch.close()
        parallel.cleanup()


def prepare(
    arguments: tuple[Any, ...], flags: dict[str, Any], watch: parallel.Watch | None = None
) -> Run:
    """Return the run that the flags ask for, checked, with its data.

    Args:
        arguments: words of the command line without a flag.
        flags: the flags, by name.
        watch: watches the other ranks, which were given the same; None if there are none.

    Raises:
        UsageError: with every problem found.
    """
    stages = Stages()
    run = preflight(arguments, flags)
    run.stages, run.watch = stages, watch
    if watch is not None:
        watch.peers.patience = run.train.process_group_timeout
        watch.peers.agree("launch", launch_facts(run))
    with first_records(records_tokenized(run)):
        run.data = prepare_data(run)
    if watch is not None:
        watch.peers.agree("data", data_facts(run))
    check_identity(run)
    name_wandb_run(run)
    stages.end("data")
    return run


def print_plan(run: Run) -> None:
    """Print what the data holds and what the run would take."""
    audits = run.data.audits if isinstance(run.data, RunData) else {}
    chosen = (run.recipe, run.choices, unread(run))
    parts = (str(run.data), *chosen, dry_run_text(run, audits))
    print("\n" + "\n\n".join(filter(None, parts)))


def train(run: Run) -> None:
    """Train by upstream's ``main``, in an output folder that no other run writes to meanwhile."""
    with locked(Path(run.train.output_dir), parallel.is_rank_zero()):
        start(run)
        first = parallel.is_rank_zero() and run.data is not None
        with custody_of(run) if first else nullcontext() as custody:
            load("finetuning").main(**_flags_for_main(run))
            output, train = Path(run.train.output_dir), run.train
            saved = train.use_peft and train.save_model and (output / ADAPTER_WEIGHTS).is_file()
            if saved and parallel.is_rank_zero():
                write_adapter_card(run, output)
            if custody is not None and run.data is not None:
                run.data.save(output)  # again: they may have been removed meanwhile
                save_description(run, output / CONFIGURATION_FILE, finished=True)
                report_finished_run(output)
                finish_custody(custody, run)
        report(run)
    parallel.barrier()  # what the first rank has written is there for all


def _ended(error: BaseException, run: Run | None, watch: parallel.Watch | None) -> EndedRun | None:
    """Return how an error ended the run, after all ranks have printed it together.

    It is None for an unexpected error, which keeps its traceback.
    """
    failure = expected_failure(error, Path(run.train.output_dir) if run is not None else None)
    if run is not None and isinstance(error, torch.OutOfMemoryError):
        failure = Failure(out_of_memory_message(run, error), TrainingError.EXIT_CODE)
    if watch is None:
        return EndedRun(failure) if failure else None
    if failure is None and (lost := watch.loss(error)) is not None:
        failure = Failure(str(lost), lost.EXIT_CODE)
    known = failure or Failure(f"stopped by {error!r:.300}", TrainingError.EXIT_CODE)
    with ended_by_interrupt():  # while this rank waits for the others
        tell_torchrun(watch.peers.settle(*known) or "")
    return EndedRun(failure, said=True) if failure else None


def start(run: Run) -> None:
    """Print what the data holds, and write that and the configuration into the output folder."""
    output = Path(run.train.output_dir)
    print(f"\n{run.data}\n")
    if run.data is not None and run.data.new_tokens is not None:
        print(f"{new_tokens_note(run.data.new_tokens, run.train)}\n")
    for chosen in filter(None, (run.recipe, run.choices, unread(run))):
        print(f"{chosen}\n")
    if parallel.is_rank_zero() and run.data is not None:
        remove_earlier_result(run)
        if run.log is not None:
            run.log.open(output, resumed=bool(run.train.resume_from_checkpoint))
        run.data.save(output)
        save_description(run, output / CONFIGURATION_FILE)


def report(run: Run) -> None:
    """Print what was trained and how it went, where it is, and what to do next."""
    print(f"\n{encodable(closing_text(run), sys.stdout)}")


def _flags_for_main(run: Run) -> dict[str, Any]:
    """Return the flags for upstream's ``main``, with the run's id in Weights & Biases.

    8-bit weights go under a name that ``main`` accepts with replicated weights.
    """
    named = {"id": run.wandb.id, "resume": run.wandb.resume}
    flags = run.flags | {f"wandb_config.{name}": value for name, value in named.items() if value}
    if run.train.quantization and "quantization" not in run.given:  # the folder's own
        flags["quantization"] = run.train.quantization
    if not run.train.enable_fsdp or quantized_bits(run.train) != "8bit":
        return flags
    return flags | {"quantization": INT8}
