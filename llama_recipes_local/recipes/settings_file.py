"""``--config``: finds the file that a word names, and reads it."""

from pathlib import Path

from llama_recipes_local.errors import Problem, caught, refusal, refuse
from llama_recipes_local.messages import describe_folder, missing_path, nearest
from llama_recipes_local.recipes import shipped
from llama_recipes_local.recipes.json_settings import read_json
from llama_recipes_local.recipes.named_settings import Setting, SettingsFile, named_once
from llama_recipes_local.recipes.yaml_settings import read_yaml
from llama_recipes_local.records.encodings import guess
from llama_recipes_local.storage.names import check_path

MOST_BYTES = 1 << 16
RECORD = "run_config.json"
_JSON = ".json"


def read_settings(word: str) -> SettingsFile:
    """Return the settings of the recipe, or of the file, that ``--config`` names.

    A relative path starts from the working directory, as those of flags do. So do the paths in the
    file.
    """
    path = shipped.path_of(word) if word in shipped.names() else Path(word).expanduser()
    found: list[Setting | Problem] = []
    is_record = False
    with caught() as problems:
        refuse(check_path(word, "--config"))
        text = _text(path, word)
        if path.suffix.lower() == _JSON:
            found, is_record = read_json(path, text)
        else:
            found = list(read_yaml(path, text))
    once = list(named_once(path, (each for each in found if isinstance(each, Setting))))
    problems += [each for each in (*found, *once) if isinstance(each, Problem)]
    settings = [each for each in once if isinstance(each, Setting)]
    return SettingsFile(path, settings, problems, is_record)


def _text(path: Path, word: str) -> str:
    """Return a file's text.

    Raises:
        UsageError: if it cannot be read, is not UTF-8, or is too large for settings.
    """
    known = ", ".join(shipped.names())
    if path.is_dir():
        record = path / RECORD
        fix = f"--config {record}" if record.is_file() else "name a file: --config FILE.yaml"
        raise refusal(f"--config {word} is a folder", describe_folder(path), fix)
    if not path.exists():
        near = nearest(path.stem, shipped.names())
        fix = f"did you mean --config {near}?" if near else f"name a file, or a recipe: {known}"
        refuse([missing_path(path.absolute(), fix)])
    if not path.is_file():
        raise refusal(f"--config {word} is not a file", "settings are read from a file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise refusal(f"{path} cannot be read", error.strerror or str(error)) from error
    if len(content) > MOST_BYTES:
        why = f"it has {len(content):,} bytes, and settings have fewer than {MOST_BYTES:,}"
        raise refusal(f"{path} is not a file of settings", why, "name another: --config FILE.yaml")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        other = guess(content)
        fix = f"write it in UTF-8: iconv -f {other or 'ENCODING'} -t UTF-8"
        raise refusal(f"{path} is not UTF-8", str(error), fix) from error
