"""Auxiliary files of a model's folder: tokenizer, generation settings and licence."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from llama_recipes_local.model_folders.linked_files import homes
from llama_recipes_local.storage.publishing import write_json

TOKENIZERS = ("tokenizer.json", "tokenizer.model")
"""A tokenizer is loaded from one of them."""

FURTHER_TEMPLATES = "additional_chat_templates/*.jinja"
"""A tokenizer's chat templates beside the default one, such as that for tools."""

TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    FURTHER_TEMPLATES,
)
"""Patterns of the files that a tokenizer is loaded from."""
_OF_PIECES = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "legacy": True,
}
OTHERS = ("generation_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*")


def copy_auxiliary_files(source: Path, folder: Path, tokenizer: Path) -> None:
    """Copy a model's auxiliary files, except links to files elsewhere.

    Copies may be published with the model, and such files may be private. Links within the folder,
    to where its other files are, and to the files of the Hub's cache are followed.

    Args:
        source: the model's folder.
        folder: where to copy them.
        tokenizer: the folder of the tokenizer.
    """
    _copy(source, folder, OTHERS)
    copy_tokenizer(tokenizer, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy a tokenizer's files; those of another tokenizer in the folder are removed.

    Beside a ``tokenizer.model`` alone, as Meta's is, a configuration is written that names its
    class: without one transformers reads it as no Llama's.
    """
    assert source.resolve() != folder.resolve()
    for path in files_of(folder, TOKENIZER).values():
        path.unlink()
    _copy(source, folder, TOKENIZER)
    if {path.name for path in folder.glob("tokenizer*")} == {"tokenizer.model"}:
        write_json(folder / "tokenizer_config.json", _OF_PIECES)


def files_of(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """Return a folder's files by their path in it, in the order of the patterns."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return {
        path.relative_to(folder).as_posix(): path
        for path in found
        if path.is_file() or path.is_symlink()
    }


def has_tokenizer(folder: Path) -> bool:
    """Return whether a tokenizer can be loaded from a folder."""
    try:
        return any((folder / name).is_file() for name in TOKENIZERS)
    except OSError:  # a name that is too long
        return False


def _copy(source: Path, folder: Path, patterns: Sequence[str]) -> None:
    allowed = homes(source)
    for name, path in files_of(source, patterns).items():
        if not path.is_file():
            continue
        beside = {home / Path(name).parent for home in allowed}
        if path.resolve().parent in allowed | beside:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / name)
        else:
            print(f"--> {path} is not copied: it links to {path.resolve()}, outside the folder")
