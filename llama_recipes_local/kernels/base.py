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
        replaces: the computation that it replaces.
        device: the device type that it runs on; "" for any.
        package: the module of the package that it comes from; "" if it is always installed.
        extra: this package's extra that installs ``package``.
    """

    replaces: str
    device: str = ""
    package: str = ""
    extra: str = ""

    def unavailable(self) -> str:
        """Return why the kernel cannot run on this machine; "" if it can."""
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
        register: registers it with transformers; None for transformers' own.
    """

    name: str
    default_for: tuple[str, ...] = ()
    register: Callable[[], None] | None = None


@dataclass(frozen=True, kw_only=True)
class ModelKernel(Kernel):
    """Kernels that are installed in a loaded model if a flag asks for them.

    Attributes:
        title: their name in the line that is printed.
        flag: the field of ``train_config`` that asks for them.
        install: installs them in a model, and returns in words what was replaced.
    """

    title: str
    flag: str
    install: Callable[[nn.Module], str]

    def apply(self, model: nn.Module) -> None:
        """Install them in a model if they can run here; print what was done, or why not."""
        reason = self.unavailable()
        print(f"--> {self.title}: {f'none, {reason}' if reason else self.install(model)}")
