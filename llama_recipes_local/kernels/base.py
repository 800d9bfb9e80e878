"""What a kernel declares; ``kernels.registry`` lists the kernels."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from torch import nn

from llama_recipes_local.extras import install_extra
from llama_recipes_local.parallel import device_type


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A way to compute a part of a model, and what it needs.

    Attributes:
        replaces: what it computes in place of.
        device: the device type that it runs on; "" if any.
        package: the module of the package that it comes from; "" if always installed.
        extra: this package's extra that installs ``package``.
    """

    replaces: str
    device: str = ""
    package: str = ""
    extra: str = ""

    def unavailable(self) -> str:
        """Return why it cannot run on this machine; "" if it can."""
        if self.device and device_type() != self.device:
            return f"they run on {self.device.upper()} only"
        if self.package and find_spec(self.package) is None:
            missing = f"{self.package.replace('_', '-')} is not installed"
            return f"{missing}; {install_extra(self.extra)}"
        return ""


@dataclass(frozen=True, kw_only=True)
class AttentionKernel(Kernel):
    """An attention implementation, chosen by ``--attn_implementation``.

    Attributes:
        name: the value of the flag, and transformers' name for the implementation.
        default_for: the types of model that "auto" chooses it for, as in ``config.json``.
        register: makes it known to transformers; None for transformers' own.
    """

    name: str
    default_for: tuple[str, ...] = ()
    register: Callable[[], None] | None = None


@dataclass(frozen=True, kw_only=True)
class ModelKernel(Kernel):
    """Kernels that are put into a model after it is loaded, where a flag asks for them.

    Attributes:
        title: what the line that is printed calls them.
        flag: the field of ``train_config`` that asks for them.
        install: puts them into a model, and returns what it put in, in words.
    """

    title: str
    flag: str
    install: Callable[[nn.Module], str]

    def apply(self, model: nn.Module) -> None:
        """Put them into a model if they can run here, and print what was done, or why not."""
        reason = self.unavailable()
        print(f"--> {self.title}: {f'none, {reason}' if reason else self.install(model)}")
