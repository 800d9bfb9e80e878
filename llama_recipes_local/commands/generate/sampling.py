"""How tokens are chosen."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen; the defaults are upstream's, but for drawing, which is off.

    What a model's folder says of this in ``generation_config.json`` does not count.
    """

    max_new_tokens: int = 100
    do_sample: bool = False
    """Whether tokens are drawn; without, each is the likeliest."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 50
    repetition_penalty: float = 1.0
    """What a token's logit is divided by, or multiplied if negative, once the text has it."""
    num_return_sequences: int = 1
    """Completions of each prompt; above 1 only if they are drawn."""
    seed: int = 42

    def options(self) -> dict[str, Any]:
        """Return transformers' options for ``generate``."""
        options: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
            "repetition_penalty": self.repetition_penalty,
            "num_return_sequences": self.num_return_sequences,
        }
        if self.do_sample:
            options |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return options
