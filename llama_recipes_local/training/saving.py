"""Saves a run's model and checkpoints, in another folder if its own is lost."""

from dataclasses import replace

from llama_recipes_local import parallel
from llama_recipes_local.errors import InterruptedRun
from llama_recipes_local.model_checkpointing import save_trained
from llama_recipes_local.training.kept_weights import keep_weights
from llama_recipes_local.training.lost_folder import lost_folder
from llama_recipes_local.training.parts import Parts


class Saver:
    """Saves a run's model and checkpoints; all ranks call its methods together."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def save_model(self) -> None:
        """Save the trained model or adapter, unless ``save_model`` is off."""
        parts = self.parts
        if not parts.config.save_model:
            return
        parts.at("saving the model")
        with parts.history.checkpoint():
            save_trained(
                parts.plain_model,
                parts.optimizer,
                parallel.rank(),
                parts.config,
                parts.fsdp_config,
                parts.state.epoch,
            )
        keep_weights(parts)

    def save_checkpoint_if_due(self, finished: bool = False) -> None:
        """Save a checkpoint every ``save_steps`` steps, and after the last step of the run."""
        every = self.parts.config.save_steps
        if every and (finished or self.parts.state.step % every == 0):
            self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Save a checkpoint of this step unless there is one; publish the one before it."""
        self.check_folder()
        parts, state = self.parts, self.parts.state
        parts.checkpoints.writer.finish()
        if parts.checkpoints.is_saved(state.step):
            return
        parts.at("saving a checkpoint")
        parts.publish()
        history, validated = parts.history, state.validated == state.step
        validation = (history.eval_loss[-1], history.last_eval_tokens) if validated else None
        with history.checkpoint():
            parts.checkpoints.save(state.step, validation, parts.progress.seconds)
        parts.progress.pause()

    def check_folder(self) -> None:
        """If the output folder was moved or removed, save in another folder and stop.

        If the best model was removed with it, the resumed run saves its next model as the best; a
        run that was complete saves this model again.

        Raises:
            LostFolderError: if it was moved or removed; on all ranks.
        """
        parts = self.parts
        loss = parts.folder.loss()
        if loss is None:
            return
        parts.publish()
        parts.checkpoints.move_to(loss.refuge)
        step = parts.state.step
        if loss.removed:
            parts.state.forget_validations()
        parts.checkpoints.save(step, None, parts.progress.seconds)
        parts.checkpoints.writer.finish()
        if loss.removed and not parts.course.unfinished():
            parts.config = replace(parts.config, output_dir=str(loss.refuge))
            self.save_model()
        raise lost_folder(loss, step, parts.course.total_steps, parts.checkpoints.folder_of(step))

    def save_and_stop(self) -> None:
        """Save, and end the run after a signal.

        Raises:
            InterruptedRun: always.
        """
        self.save_checkpoint()
        parts = self.parts
        parts.checkpoints.writer.finish()
        step = parts.state.step
        if not step:
            raise InterruptedRun("stopped before the first step; there is nothing to save")
        raise InterruptedRun(
            f"stopped after step {step} of {parts.course.total_steps}, saved in "
            f"{parts.checkpoints.folder_of(step)}\n"
            "   resume with the same command and --resume_from_checkpoint auto"
        )
