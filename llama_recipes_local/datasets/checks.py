"""What is wrong with a data set's files, found before any weight is loaded."""

import ast
from collections.abc import Callable
from typing import Any

from llama_recipes_local import paths
from llama_recipes_local.datasets import readers, sources
from llama_recipes_local.errors import Problem


def check_grammar(config: Any) -> list[Problem]:
    """Check both CSV files."""
    return [
        problem
        for split in ("train_split", "test_split")
        for problem in readers.check_csv(
            paths.resolve(getattr(config, split)),
            ("input", "target"),
            f"--grammar_dataset.{split}=FILE",
        )
    ]


def check_samsum(config: Any) -> list[Problem]:
    """Check the JSON files of both splits."""
    return [
        problem
        for split in (config.train_split, config.test_split)
        for problem in readers.check_json(
            sources.samsum_file(config, split),
            ("dialogue", "summary"),
            "--samsum_dataset.data_path=FOLDER",
        )
    ]


def check_alpaca(config: Any) -> list[Problem]:
    """Check the JSON file, which holds both splits."""
    path = paths.resolve(config.data_path)
    flag = "--alpaca_dataset.data_path=FILE"
    problems = readers.check_json(path, ("instruction", "output"), flag)
    if not problems and len(readers.read_json(path)) < 2:
        problems.append(
            Problem(
                f"{path} has one record",
                "the first 5%, at least one record, are for validation: none is left to train on",
                f"add records, or name another file with {flag}",
            )
        )
    return problems


def check_toxicchat(config: Any) -> list[Problem]:
    """Check the CSV files of both splits."""
    columns = ("user_input", "model_output", "toxicity", "openai_moderation")
    return [
        problem
        for split in (config.train_split, config.test_split)
        for problem in readers.check_csv(
            sources.toxicchat_file(config, split),
            columns,
            "--llamaguard_toxicchat_dataset.data_path=FOLDER",
        )
    ]


def check_custom(config: Any) -> list[Problem]:
    """Check that the file is Python and defines the function; nothing in it is run."""
    path, function = sources.custom_file(config)
    flag = "--custom_dataset.file=FILE.py:FUNCTION"
    if path.suffix != ".py":
        return [
            Problem(f"{path} is no .py file", "it is imported as a module", f"name one: {flag}")
        ]
    problem = readers.check_file(path, flag)
    if problem:
        return [problem]
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        return [Problem(f"{path} is not Python", str(error), "mend it")]
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    # a function may also be assigned or imported, which only running the file would tell
    defined = function in names or any(
        not isinstance(node, (ast.FunctionDef, ast.Expr)) and function in ast.dump(node)
        for node in tree.body
    )
    if defined:
        return []
    return [
        Problem(
            f"{path} defines no function {function}",
            f"its functions are {', '.join(sorted(names)) or 'none'}",
            f"name one of them: {flag}",
        )
    ]


CHECKS: dict[str, Callable[[Any], list[Problem]]] = {
    "alpaca_dataset": check_alpaca,
    "custom_dataset": check_custom,
    "grammar_dataset": check_grammar,
    "llamaguard_toxicchat_dataset": check_toxicchat,
    "samsum_dataset": check_samsum,
}
