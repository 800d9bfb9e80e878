"""How training framed what a user says: saved with the model, so that generation frames it alike.

A data set's formatter tells its frame; ``RunData.save`` writes it into the run's folder.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.templates import FLAG, Message, find_template, render_turns
from llama_recipes_local.errors import refusal
from llama_recipes_local.run.record import find_in_run

FRAME_FILE = "prompt_template.json"
PLACE = "{}"
PROMPT, CHAT = "prompt", "chat"


@dataclass(frozen=True)
class Frame:
    """What a text is put into before the model completes it.

    Attributes:
        kind: "prompt", or "chat" for turns.
        template: the prompt, with ``{}`` where the text goes; or turns' Jinja template.
        complete: whether it writes the token that begins a text itself.
    """

    kind: str
    template: str
    complete: bool = False

    def of_text(self, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return a text in its prompt, or as the one turn of a user, from the first token on."""
        if self.kind == CHAT:
            return self.of_turns([{"role": "user", "content": text}], tokenizer)
        return self._begun(self.template.replace(PLACE, text, 1), tokenizer)

    def of_turns(self, turns: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return turns up to where the assistant's next words begin, from the first token on.

        Raises:
            UsageError: if the template does not take them.
        """
        text = render_turns(turns, self.template, tokenizer, open_turn=True)
        return self._begun(text, tokenizer)

    def end_of_turn(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the text between the assistant's words and the user's next; empty for a prompt."""
        if self.kind != CHAT:
            return ""
        turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
        said = render_turns(turns, self.template, tokenizer)
        return said.rpartition("user")[0].rpartition("assistant")[2].strip()

    def _begun(self, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
        return text if self.complete else (tokenizer.bos_token or "") + text


def chat_frame(name: str, tokenizer: PreTrainedTokenizerBase, flag: str = FLAG) -> Frame:
    """Return the frame of a chat template by its name; "tokenizer" is the tokenizer's own.

    ``flag`` is the one that names it.

    Raises:
        UsageError: as ``find_template``.
    """
    template = find_template(name, tokenizer, flag)
    return Frame(CHAT, template.text, template.complete)


def find_frame(folder: Path) -> Path | None:
    """Return the file with the frame of the run that wrote a model's folder, if there is one."""
    return find_in_run(folder, FRAME_FILE)


def save_frame(frame: Frame | None, folder: Path) -> None:
    """Write a frame into a run's folder, in the place of an earlier run's; None leaves none."""
    if frame is None:
        (folder / FRAME_FILE).unlink(missing_ok=True)
        return
    content = json.dumps(asdict(frame), indent=2, ensure_ascii=False)
    (folder / FRAME_FILE).write_text(content + "\n", "utf-8")


def read_frame(path: Path) -> Frame:
    """Read a frame.

    Raises:
        UsageError: if the file holds none.
    """
    try:
        fields = json.loads(path.read_text("utf-8"))
        frame = Frame(str(fields["kind"]), str(fields["template"]), bool(fields["complete"]))
        if frame.kind not in (PROMPT, CHAT):
            raise ValueError(f"there is no kind {frame.kind!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "copy the file again, or leave the text as it is: --raw"
        raise refusal(f"{path} holds no prompt", repr(error), fix) from error
    return frame
