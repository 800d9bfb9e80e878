"""Folders that somebody else made: model files that do not fit, code, links, terminal escapes."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from forked_runs import difference, result
from safetensors.torch import load_file, save_file

from attacks.lab import Found, Lab, change_json, unclean, unexpected

Change = Callable[[Path], object]
"""Makes a copy of the model a bad one."""

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ESCAPE = "\x1b]0;PWN\x07\x1b[2J"
DEEP = "[" * 100_000

VALUES: dict[str, dict[str, tuple[Any, ...]]] = {
    "config.json": {
        "hidden_size": ("64", 65, 0, None, 1e300),
        "num_hidden_layers": (1, 3, -1, 100_000),
        "num_attention_heads": (3, 0, "4"),
        "num_key_value_heads": (3, 0),
        "intermediate_size": (100, "x"),
        "vocab_size": (-1, 100, 10**12),
        "max_position_embeddings": ("many", -1, None),
        "rms_norm_eps": (None, "x"),
        "rope_theta": ("x", 0),
        "rope_scaling": ({"rope_type": "zz"}, {"factor": 2}, 3),
        "hidden_act": ("zz", 1),
        "eos_token_id": (1e999, "x", 10**6),
        "dtype": ("zz", 1, "int8"),
        "tie_word_embeddings": ("yes",),
        "model_type": ("bert", 1, ESCAPE),
        "architectures": (["Evil"], 1, [ESCAPE]),
        "quantization_config": ({}, {"quant_method": "zz"}, 1),
    },
    "tokenizer_config.json": {
        "tokenizer_class": (1.5, "Evil", ESCAPE),
        "bos_token": (["a"], 1, ESCAPE),
        "pad_token": ({}, None),
        "model_max_length": ("x", -1),
        "auto_map": ({"AutoTokenizer": ["evil.A", None]},),
        "chat_template": (5, DEEP, "{% for a in b %}", "{{ raise_exception('" + ESCAPE + "') }}"),
    },
    "generation_config.json": {"eos_token_id": ("x", -1, []), "temperature": ("hot", -1)},
}
"""Values that the fields of a model's files are given."""


def models(lab: Lab, found: Found) -> None:
    """Train and generate with models whose files do not fit: refused, or used as they are."""
    cases = list(model_changes().items())
    for number, (name, change) in enumerate(cases[: lab.count(len(cases))]):
        with lab.output() as output, lab.output("model") as model:
            shutil.copytree(lab.model, model)
            change(model)
            [code] = lab.run_ranks(lab.flags(output, model_name=str(model)))
            wrong = unexpected(code, (0, 1, 2)) or unclean(lab.said())
            if code == 0 and not wrong:
                wrong = difference(result(output), lab.undisturbed().result)
                wrong = wrong and f"it trained another model, unsaid: {wrong}"
            found.add(name, wrong, lab.said())
            if number % 2 == 0:
                words = ["--model_name", model, "--prompt", "a", "--raw", "--max_new_tokens", 2]
                code = lab.command("generate", *words)
                wrong = unexpected(code, (0, 1, 2)) or unclean(lab.said())
                found.add(f"generate: {name}", wrong, lab.said())


def model_changes() -> dict[str, Change]:
    """Return what is done to models, by name."""

    def put(file: str, key: str, value: object) -> Change:
        return lambda model: change_json(model / file, **{key: value})

    def write(file: str, data: bytes) -> Change:
        return lambda model: (model / file).write_bytes(data)

    changes = {
        f"{file} {key}={str(value)[:30]!r}": put(file, key, value)
        for file, fields in VALUES.items()
        for key, values in fields.items()
        for value in values
    }
    contents = (b"", DEEP.encode(), b"[1]", b"\xff\xfe", b"{}")
    files = (*VALUES, "tokenizer.json", WEIGHTS)
    changes |= {f"{f} is {c[:9]!r}": write(f, c) for f in files for c in contents}
    changes |= {f"no {file}": lambda model, f=file: (model / f).unlink() for file in files}  # type: ignore[misc]
    return changes | {f"tensors: {name}": partial(rewrite, how) for name, how in TENSORS.items()}


Tensors = dict[str, torch.Tensor]
TENSORS: dict[str, Callable[[Tensors], Tensors]] = {
    "a layer is missing": lambda t: {n: v for n, v in t.items() if "layers.1." not in n},
    "one is missing": lambda t: {n: v for n, v in t.items() if "layers.1.mlp.up" not in n},
    "another prefix": lambda t: {f"x.{n}": v for n, v in t.items()},
    "one more": lambda t: t | {"model.layers.7.mlp.up_proj.weight": torch.zeros(2)},
    "int8": lambda t: {n: v.to(torch.int8) for n, v in t.items()},
    "transposed": lambda t: {n: v.T.contiguous() if "up_proj" in n else v for n, v in t.items()},
    "not a number": lambda t: {
        n: v * float("nan") if "layers.1." in n else v for n, v in t.items()
    },
    "none": lambda t: {},
    "an escape as a name": lambda t: t | {ESCAPE: torch.zeros(2)},
}
"""What is done to a model's tensors, by name."""


def rewrite(how: Callable[[Tensors], Tensors], model: Path) -> None:
    save_file(how(load_file(model / WEIGHTS)), model / WEIGHTS, metadata={"format": "pt"})


def code(lab: Lab, found: Found) -> None:
    """Models that bring code: a class of their own, pickled weights, templates that run."""
    mark = lab.folder / "exploded"
    chat = lab.folder / "chat.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat.write_text((json.dumps({"messages": turns}) + "\n") * 9)
    for name, attack in code_attacks(mark).items():
        with lab.output() as output, lab.output("evil-model") as model:
            shutil.copytree(lab.model, model)
            attack(model)
            more = {"model_name": str(model), "local_dataset.data_path": str(chat)}
            [code] = lab.run_ranks(lab.flags(output, **more))
            wrong = unclean(lab.said()) or unexpected(code, (2,))
            found.add(name, "code ran" if mark.exists() else wrong, lab.said())


def code_attacks(mark: Path) -> dict[str, Change]:
    """Return what makes a model run code that makes a folder ``mark``, by name."""

    def auto_map(model: Path) -> None:
        (model / "evil.py").write_text(f"import os; os.mkdir({str(mark)!r})")
        names = {"AutoConfig": "evil.A", "AutoModelForCausalLM": "evil.B"}
        change_json(model / "config.json", auto_map=names, model_type="evil")

    def pickled(name: str, model: Path) -> None:
        (model / WEIGHTS).unlink()
        (model / name).write_bytes(f"cos\nmkdir\n(S'{mark}'\ntR.".encode())

    def templated(text: str, model: Path) -> None:
        change_json(model / "tokenizer_config.json", chat_template=text)

    attacks: dict[str, Change] = {"auto_map": auto_map}
    attacks |= {name: partial(pickled, name) for name in ("pytorch_model.bin", WEIGHTS)}
    attacks |= {text: partial(templated, text) for text in templates(mark)}
    return attacks


def templates(mark: Path) -> tuple[str, ...]:
    """Return chat templates that try to reach Python, or that never end."""
    return (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        f"{{{{ cycler.__init__.__globals__.os.mkdir('{mark}') }}}}",
        f"{{{{ lipsum.__globals__['os'].mkdir('{mark}') }}}}",
        "{{ self.__init__.__globals__ }}",
        "{{ messages.__class__.__base__ }}",
        "{{ ''|attr('__class__') }}",
        "{{ '%s'|format(messages.append.__self__.__class__) }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'a' * 10**12 }}",
        "{{ 9**9**9 }}",
        "{{ [0] * 10**11 }}",
        "(" * 3000,
    )


def links(lab: Lab, found: Found) -> None:
    """Weights and files of a model that lead out of its folder."""
    private = lab.folder / "private.safetensors"
    shutil.copy(lab.model / WEIGHTS, private)
    notes = lab.folder / "notes"
    notes.write_text("mine")
    named: tuple[str, ...] = ("../private.safetensors", str(private), "..\\x", "a/../../x", "")
    changes = {f"an index that names {name!r}": partial(indexed, name) for name in named}
    changes["weights that are a link"] = partial(linked, WEIGHTS, private)
    for name, change in changes.items():
        with lab.output() as output, lab.output("model") as model:
            shutil.copytree(lab.model, model)
            change(model)
            [code] = lab.run_ranks(lab.flags(output, model_name=str(model)))
            found.add(name, unexpected(code, (2,)) or unclean(lab.said()), lab.said())
    for name in ("LICENSE-x", "generation_config.json", "special_tokens_map.json", "USE_POLICY.md"):
        with lab.output("merged") as merged, lab.output("linked") as model:
            shutil.copytree(lab.model, model)
            linked(name, notes, model)
            words = ["--adapter", lab.straight, "--model_name", model, "--out", merged]
            code = lab.command("merge", *words)
            wrong = unexpected(code, (0, 2)) or unclean(lab.said())
            if any(path.read_bytes() == b"mine" for path in merged.glob("*")):
                wrong = wrong or "a private file is published"
            found.add(f"{name} is a link", wrong, lab.said())


def indexed(name: str, model: Path) -> None:
    """Have an index name another file for every weight."""
    names = dict.fromkeys(load_file(model / WEIGHTS), name)
    (model / WEIGHTS).unlink()
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))


def linked(name: str, target: Path, model: Path) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(target)


def escapes(lab: Lab, found: Found) -> None:
    """Terminal escapes in data, names and models: shown, never sent."""
    for name, (file, text) in escaping_data().items():
        with lab.output() as output, lab.output("data") as folder:
            folder.mkdir()
            (folder / file).write_text(text, "utf-8")
            more = {"local_dataset.data_path": str(folder)}
            [code] = lab.run_ranks(lab.flags(output, **more))
            found.add(f"{name}: finetune", unclean(lab.said()), lab.said())
            words = ["--model_name", lab.model, "--dataset", folder / file]
            lab.command("inspect", *words)
            found.add(f"{name}: inspect", unclean(lab.said()), lab.said())
    for file, key in (
        *(("adapter_config.json", key) for key in ("base_model_name_or_path", "peft_type")),
        *(("run_config.json", key) for key in ("model_name", "versions", "dataset")),
        ("prompt_template.json", "template"),
    ):
        with lab.output("adapter") as adapter:
            shutil.copytree(lab.straight, adapter)
            change_json(adapter / file, **{key: ESCAPE})
            for words in (
                ["generate", "--adapter", adapter, "--prompt", "a", "--max_new_tokens", "2"],
                ["merge", "--adapter", adapter, "--out", f"{adapter}-merged"],
                ["evaluate", "--adapter", adapter, "--metrics", "loss"],
            ):
                code = lab.command(*words)
                wrong = unexpected(code, (0, 1, 2)) or unclean(lab.said())
                found.add(f"{file} {key}: {words[0]}", wrong, lab.said())


def escaping_data() -> dict[str, tuple[str, str]]:
    """Return data files with escapes, name and content, by where these are."""
    row = {"prompt": "a", "completion": "b"}
    good = json.dumps(row) + "\n"

    def lines(*rows: object) -> str:
        return good * 30 + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    turns = [{"role": ESCAPE, "content": "a"}, {"role": "assistant", "content": ESCAPE}]
    return {
        "a text": ("a.jsonl", lines(row | {"prompt": ESCAPE}, row | {"completion": ESCAPE})),
        "a key": ("a.jsonl", lines(row | {ESCAPE: "x"})),
        "the keys": ("a.jsonl", json.dumps({ESCAPE: "a", "b" + ESCAPE: "b"}, ensure_ascii=False)),
        "a role": ("a.jsonl", json.dumps({"messages": turns}) + "\n"),
        "a type": ("a.jsonl", lines({"prompt": {ESCAPE: 1}, "completion": [ESCAPE]})),
        "a csv header": ("a.csv", f"prompt,completion,{ESCAPE}\na,b,c\n" * 9),
        "csv headers": ("a.csv", f"{ESCAPE},x{ESCAPE}\na,b\n"),
        "a file's name": (f"{ESCAPE}.jsonl", "not JSON\n"),
        "a file's name, good": (f"{ESCAPE}.jsonl", lines()),
        "a raw escape": ("a.jsonl", good + '{"prompt": "' + ESCAPE + '"}\n'),
    }
