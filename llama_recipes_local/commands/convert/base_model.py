"""The model that a run started from; ``checkpoint-STEP`` has only the trained tensors."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers

from llama_recipes_local import configs
from llama_recipes_local.checkpoints import layout
from llama_recipes_local.checkpoints.identity import weights_hash
from llama_recipes_local.commands.convert.checkpoint_readers import AGAIN
from llama_recipes_local.commands.convert.train_params import FIX
from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.fields import SELECTS_PARAMETERS, fields_with
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.model_config import load_config
from llama_recipes_local.model_folders.tensors import StoredTensors, model_tensors, shape_mismatches
from llama_recipes_local.models import AutoConfig
from llama_recipes_local.models.freezing import freeze_all_but_chosen
from llama_recipes_local.run.record import SavedRun


class BaseModel:
    """The folder of the model that a run started from, and which of its tensors are untrained.

    Attributes:
        config: the trained model's configuration: the base model's, with the run's changes;
            ``dtype`` is that of the weights in the run.
    """

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        """Read the configurations.

        Args:
            folder: the model's folder, with a configuration that transformers reads.
            checkpoint: a ``checkpoint-STEP`` of the run.

        Raises:
            UsageError: if the checkpoint's configuration is missing or corrupt.
        """
        self._folder = folder
        self._checkpoint = checkpoint
        self._run = SavedRun(checkpoint)
        self.config: transformers.PreTrainedConfig = AutoConfig.from_pretrained(folder)
        trained = load_config(checkpoint / layout.WEIGHTS, AGAIN)
        for name in ("vocab_size", "top_layers", "dtype"):
            if hasattr(trained, name):
                setattr(self.config, name, getattr(trained, name))
        # a sharded model is cast after it is loaded
        sharded = self._run.get("train_config", "enable_fsdp")
        if sharded and self._run.get("fsdp_config", "pure_bf16"):
            self.config.dtype = torch.bfloat16

    def untrained(self, model: transformers.PreTrainedModel) -> set[str]:
        """Return the names of the parameters that the run does not train.

        Args:
            model: a model of ``config`` without weights; its parameters are frozen as in the run.
        """
        train = configs.train_config()
        for flag in fields_with(train, SELECTS_PARAMETERS):
            setattr(train, flag, self._run.get("train_config", flag, getattr(train, flag)))
        freeze_all_but_chosen(model, train)
        return {name for name, tensor in model.named_parameters() if not tensor.requires_grad}

    def tensors(self, shapes: Mapping[str, torch.Size]) -> StoredTensors:
        """Return the model's tensors, which are read one at a time.

        Args:
            shapes: the shapes of those that are needed, by name.

        Raises:
            UsageError: if one is missing or of another shape, or the weights are not the run's.
        """
        stored = model_tensors(self._folder, "--model")
        missing = [name for name in shapes if name not in stored]
        if missing:
            raise self._refused(f"missing: {join_names(missing)}", f"{FIX}, or copy it again")
        wrong = shape_mismatches({name: stored[name].shape for name in shapes}, shapes)
        if wrong:
            fix = (
                f"{FIX}; if it is this one, the run added rows for new tokens, which only resuming "
                f"it saves: --resume_from_checkpoint {self._checkpoint}"
            )
            raise self._refused(f"shape mismatch: {join_names(wrong)}", fix)
        if self._recorded_hash() not in (None, weights_hash(self._folder)):
            why = (
                f"the hash of its weights differs from that in {self._checkpoint / layout.IDENTITY}"
            )
            raise self._refused(why, FIX)
        return stored

    def _recorded_hash(self) -> str | None:
        """Return the hash of the weights that the run had; None if a script saved the checkpoint.

        Raises:
            UsageError: if the record is corrupt.
        """
        path = self._checkpoint / layout.IDENTITY
        try:
            return json.loads(path.read_text("utf-8"))["model"]["weights"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise refusal(f"{path} is corrupt", repr(error), AGAIN) from error

    def _refused(self, why: str, fix: str) -> UsageError:
        what = f"{self._folder} is not the model that the run of {self._checkpoint} started from"
        return refusal(what, why, fix)
