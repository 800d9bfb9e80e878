"""The parts of a training: model, optimiser, data, and what reports, saves or watches."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.stateful import Stateful
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs
from llama_recipes_local.optimization.parameter_groups import split_lora_plus
from llama_recipes_local.parallel import is_rank_zero
from llama_recipes_local.run import Run
from llama_recipes_local.training import nonfinite
from llama_recipes_local.training.checkpointing import CheckpointManager
from llama_recipes_local.training.course import Course
from llama_recipes_local.training.data_iterator import DataIterator
from llama_recipes_local.training.early_stopping import best_so_far
from llama_recipes_local.training.flops import peak_flops, training_flops
from llama_recipes_local.training.followed_schedule import RunSchedule
from llama_recipes_local.training.history import History
from llama_recipes_local.training.loggers import WandbRun, make_loggers
from llama_recipes_local.training.lost_folder import FolderGuard
from llama_recipes_local.training.progress import Progress
from llama_recipes_local.training.signals import Signals
from llama_recipes_local.training.stepping import Stepper, unwrapped
from llama_recipes_local.training.train_state import TrainState


class Parts:
    """The parts of a training, and what they do together.

    Attributes:
        plain_model: the model, not wrapped in DistributedDataParallel.
        kept: the trained tensors that were saved last, see ``kept_weights``; or empty.
        states: what must survive of the loop, by its key in a checkpoint; loaded in this order.
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataloader: DataLoader[Any],
        tokenizer: PreTrainedTokenizerBase | None,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: LRScheduler,
        accumulation_steps: int,
        config: configs.train_config,
        fsdp_config: configs.fsdp_config | None,
        wandb_run: WandbRun | None,
        history: History,
        run: Run | None,
    ) -> None:
        """Make the parts; see ``loop.train`` for the arguments.

        Args:
            history: collects the losses and times.
            run: the run that ``finetuning.main`` is in; None in a script, whose signals are its
                own and whose checkpoints do not describe a run.
        """
        self.model, self.plain_model = model, unwrapped(model)
        self.tokenizer, self.optimizer = tokenizer, optimizer
        self.config, self.fsdp_config = config, fsdp_config
        self.history, self.run = history, run
        self.state = TrainState()
        self.kept: dict[str, torch.Tensor] = {}
        self.data = DataIterator(train_dataloader, accumulation_steps, config, self.state)
        self.course = Course(config, self.state, self.data)
        split_lora_plus(model, optimizer, config.loraplus_lr_ratio)
        self.schedule = RunSchedule(
            lr_scheduler, optimizer, config, self.course, self.data.steps_per_epoch, run is not None
        )
        self.stepper = Stepper(model, optimizer, config, self.data.sources)
        self.progress = self._progress(wandb_run)
        self.watch = run.watch if run is not None else None
        called = run is not None and run.called
        self.signals = Signals(enabled=run is not None, watch=self.watch, called=called)
        self.folder = FolderGuard(Path(config.output_dir), enabled=run is not None)
        self.states = self._states()
        self.checkpoints = CheckpointManager(self.plain_model, optimizer, self.states, config, run)

    def _states(self) -> dict[str, Stateful]:
        return {
            "state": self.state,
            "history": self.history,
            "stepper": self.stepper,
            "schedule": self.schedule.saved,
            "feed": self.data,
        }

    def _progress(self, wandb_run: WandbRun | None) -> Progress:
        config = self.config
        return Progress(
            self.course.total_steps,
            make_loggers(config, wandb_run, self.run) if is_rank_zero() else [],
            training_flops(self.plain_model),
            peak_flops(self.stepper.device),
            config.num_epochs,
            self.data.sources,
        )

    def at(self, what: str, timed: bool = False) -> None:
        """Note where this rank is, for the messages of ranks that wait for it; see ``Watch``."""
        if self.watch is not None:
            self.watch.at(what, timed)

    def summary(self) -> dict[str, Any]:
        """Return what the run's report needs: losses, the best validation, steps and seconds."""
        work = {"steps": self.state.step, "seconds": self.progress.seconds}
        best = best_so_far(self.state, self.config, self.course.total_steps)
        return self.history.summary() | work | best

    def publish(self, show: bool = False) -> None:
        """Fetch the numbers of the pending steps; all ranks call this together.

        Raises:
            NonFiniteError: if one of the steps had a loss or gradient that is not finite.
        """
        for fetched in self.progress.fetch(show):
            if fetched.stop:
                nonfinite.raise_non_finite(
                    nonfinite.report_of(fetched), self.data.dataloader, self.tokenizer
                )
            metrics = fetched.metrics
            self.history.add_step(
                metrics.loss, metrics.label_tokens, metrics.tokens, metrics.by_source
            )
