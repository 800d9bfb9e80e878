"""When a trainer saves a checkpoint, and how it begins where one was saved."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from llama_recipes_local.checkpoints import layout, retention, selection
from llama_recipes_local.checkpoints.writing import Writer
from llama_recipes_local.parallel import is_rank_zero
from llama_recipes_local.training import resuming
from llama_recipes_local.training.signals import InterruptedRun

if TYPE_CHECKING:
    from llama_recipes_local.training.loop import Trainer


class Checkpointing:
    """Saves the checkpoints of one trainer; all ranks call its methods together."""

    def __init__(self, trainer: "Trainer") -> None:
        config = trainer.config
        self.output = Path(config.output_dir)
        self.writer = Writer(self.output, config.save_total_limit, config.async_save)
        self._trainer = trainer
        self._every = config.save_steps
        self._saved_at = 0

    def resume(self) -> bool:
        """Put the trainer where a checkpoint was saved; return whether there is one to go on from.

        Raises:
            TrainingError: if the checkpoint is damaged, or of another run.
        """
        if is_rank_zero():
            retention.remove_leftovers(self.output)
        began = time.perf_counter()
        folder = selection.choose(self._trainer.config)
        if folder is None:
            return False
        verified = time.perf_counter()
        resuming.restore(self._trainer, folder)
        restored = time.perf_counter()
        step = self._trainer.state.step
        self._saved_at = step if selection.is_in(self.output, folder) else 0
        print(
            f"--> going on after step {step} from {folder.resolve()}: "
            f"verified in {verified - began:.2f} s, restored in {restored - verified:.2f} s"
        )
        return True

    def save_if_due(self, finished: bool = False) -> None:
        """Save each ``save_steps`` steps, and after the last of all."""
        if self._every and (finished or self._trainer.state.step % self._every == 0):
            self.save()

    def save(self) -> None:
        """Save a checkpoint of this step unless there is one; publish the one before it."""
        self.writer.finish()
        trainer = self._trainer
        if trainer.state.step == self._saved_at:
            return
        trainer.publish()
        with trainer.history.checkpoint():
            self.writer.save(resuming.captured(trainer))
        self._saved_at = trainer.state.step
        trainer.progress.pause()

    def stop(self) -> None:
        """Save, and end the run where a signal asked for it.

        Raises:
            InterruptedRun: always.
        """
        self.save()
        self.writer.finish()
        step, steps = self._trainer.state.step, self._trainer.total_steps
        if not step:
            raise InterruptedRun("stopped before the first step; there is nothing to save")
        raise InterruptedRun(
            f"stopped after step {step} of {steps}, saved in "
            f"{layout.folder_of(self.output, step).resolve()}\n"
            "   go on with the same command and --resume_from_checkpoint auto"
        )
