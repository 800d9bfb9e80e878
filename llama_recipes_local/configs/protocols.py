"""The fields that the configurations of all data sets, or of all adapter methods, have.

The configurations themselves are declared with the data set or method; see ``datasets.registry``
and ``adapters.registry``.
"""

from dataclasses import Field
from typing import Any, ClassVar, Literal, Protocol

Part = Literal["train", "test"]
"""``main``'s names for the two splits of a data set; the configuration has the data set's own."""


class DatasetConfig(Protocol):
    """What every data set's configuration has.

    Attributes:
        dataset: the data set's name.
        train_split: the data set's name for what is trained on, or its file.
        test_split: the same for validation.
        data_root: the folder that relative paths start from; see ``storage.data_root``.
    """

    dataset: str
    train_split: str
    test_split: str
    data_root: str


class AdapterConfig(Protocol):
    """The configuration of an adapter method: a dataclass whose fields are flags.

    All of its fields must be equal to resume a run, so that no field has a ``fields.Resume``.

    Attributes:
        task_type: PEFT's name for the task.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    task_type: str
