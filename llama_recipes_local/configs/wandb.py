"""``wandb_config``: upstream's, but runs stay on this machine unless asked otherwise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.fields import OF_ONE_RUN, TEXT, Needs, Resume

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.wandb import wandb_config as upstream
else:
    upstream = load_alone("configs.wandb").wandb_config

WITH_WANDB = Needs("use_wandb", "report_to=wandb")


@dataclass
class wandb_config(upstream):
    """What is passed to Weights & Biases."""

    project: Annotated[str, TEXT, Resume.FREE, WITH_WANDB] = upstream.project
    """Project that the run belongs to."""

    entity: Annotated[str | None, TEXT, Resume.FREE, WITH_WANDB] = upstream.entity
    """User or team that owns the project."""

    job_type: Annotated[str | None, TEXT, Resume.FREE, WITH_WANDB] = upstream.job_type
    """Type of the run, by which runs can be grouped."""

    tags: Annotated[list[str] | None, TEXT, Resume.FREE, WITH_WANDB] = upstream.tags
    """Tags of the run."""

    group: Annotated[str | None, TEXT, Resume.FREE, WITH_WANDB] = upstream.group
    """Group that the run belongs to."""

    notes: Annotated[str | None, TEXT, Resume.FREE, WITH_WANDB] = upstream.notes
    """Description of the run."""

    mode: Annotated[str | None, TEXT, Resume.FREE, WITH_WANDB] = "offline"
    """"offline", "online" or "disabled"."""

    id: Annotated[str | None, TEXT, OF_ONE_RUN, Resume.FREE, WITH_WANDB] = None
    """ID of an existing run of yours; without one, a new run, or the one of the resumed run."""

    resume: Annotated[str | None, TEXT, OF_ONE_RUN, Resume.FREE, WITH_WANDB] = None
    """What to do with an existing run of this ``id``: "allow", "must" or "never"."""
