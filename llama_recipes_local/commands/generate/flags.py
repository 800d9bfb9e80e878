"""Complete prompts with a fine-tuned model; standard output has only the completions."""

import argparse
import math
import sys
from dataclasses import fields
from pathlib import Path

from llama_recipes_local.answers.sampling_limits import SAMPLING_LIMITS
from llama_recipes_local.cli.parsing import number, one_of, path, read_typed, text
from llama_recipes_local.cli.shared_flags import DTYPES, add_other_base_flag, add_tokenizer_flag
from llama_recipes_local.errors import Problem, reason, refusal, refuse
from llama_recipes_local.screen import is_terminal

TEMPLATES = ("tokenizer", "llama2", "llama3", "chatml", "guanaco")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    _add_model(parser.add_argument_group("model"))
    _add_prompts(parser)
    _add_sampling(parser.add_argument_group("sampling"))


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--adapter", metavar="DIR", type=path, help="folder of a saved adapter")
    group.add_argument(
        "--model_name",
        "--model",
        metavar="DIR",
        type=path,
        help="with --adapter: the base model's folder (the one recorded in the adapter); "
        "alone: folder of a full model, such as a merged one",
    )
    add_tokenizer_flag(group)
    group.add_argument(
        "--dtype",
        type=one_of(DTYPES),
        metavar="NAME",
        help=f"dtype of the weights: {', '.join(DTYPES)} (bfloat16 on CUDA, float32 on the CPU)",
    )
    group.add_argument(
        "--quantization",
        type=one_of(("4bit", "8bit", "none")),
        metavar="BITS",
        help="4bit, 8bit or none (as the adapter was trained)",
    )
    add_other_base_flag(group)


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prompts")
    given = group.add_mutually_exclusive_group()
    given.add_argument("--prompt", metavar="TEXT", help="a prompt (read from standard input)")
    given.add_argument("--prompt_file", metavar="FILE", type=path, help="a file with one prompt")
    given.add_argument(
        "--prompts",
        metavar="FILE",
        type=path,
        help="a text file with one prompt per line, or jsonl, json or csv records with prompt or "
        "messages; prints a JSON object for each, in order",
    )
    given.add_argument("--chat", action="store_true", help="each line of standard input is a turn")
    group.add_argument(
        "--batch_size",
        type=number(int, 0, math.inf),
        default=8,
        metavar="N",
        help="with --prompts: prompts to complete at a time (%(default)s)",
    )
    group.add_argument(
        "--stream", action="store_true", help="print tokens as they come; not with --prompts"
    )
    _add_template(group)


def _add_template(group: argparse._ArgumentGroup) -> None:
    template = group.add_mutually_exclusive_group()
    template.add_argument(
        "--raw",
        action="store_true",
        help="do not put prompts into a template; by default the template saved by training is "
        "used, or else a full model's own chat template",
    )
    template.add_argument(
        "--dataset",
        type=one_of(_datasets_with_prompt),
        metavar="NAME",
        help="put prompts into the prompt template of this data set",
    )
    template.add_argument(
        "--template",
        type=one_of(TEMPLATES),
        metavar="NAME",
        help=f"put prompts into a chat template: {', '.join(TEMPLATES)}",
    )
    group.add_argument(
        "--system", type=text, metavar="TEXT", help="system message before the prompt or chat"
    )


def _datasets_with_prompt() -> list[str]:
    from llama_recipes_local.datasets.registry import DATASETS

    return [name for name, dataset in DATASETS.items() if dataset.prompt]


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max_new_tokens",
        type=number(*SAMPLING_LIMITS["max_new_tokens"]),
        default=100,
        metavar="N",
        help="the most tokens of a completion (%(default)s)",
    )
    group.add_argument(
        "--do_sample", action="store_true", help="sample tokens instead of taking the most likely"
    )
    group.add_argument(
        "--temperature",
        type=_temperature,
        metavar="T",
        help="with --do_sample: above 1 is more random, below 1 less (1.0)",
    )
    group.add_argument(
        "--top_p",
        type=number(*SAMPLING_LIMITS["top_p"]),
        metavar="P",
        help="with --do_sample: sample from the top tokens with this total probability (1.0)",
    )
    group.add_argument(
        "--top_k",
        type=number(*SAMPLING_LIMITS["top_k"]),
        metavar="K",
        help="with --do_sample: sample from this many of the top tokens; 0 means all (50)",
    )
    group.add_argument(
        "--num_return_sequences",
        type=number(*SAMPLING_LIMITS["num_return_sequences"]),
        metavar="N",
        help="with --do_sample: how many completions of each prompt (1)",
    )
    group.add_argument(
        "--repetition_penalty",
        type=number(*SAMPLING_LIMITS["repetition_penalty"]),
        default=1.0,
        metavar="P",
        help="above 1 makes tokens that are already in the text less likely (%(default)s)",
    )
    group.add_argument(
        "--seed",
        type=number(*SAMPLING_LIMITS["seed"]),
        default=42,
        metavar="N",
        help="seed of sampling (%(default)s)",
    )


def _temperature(word: str) -> float:
    try:
        return number(*SAMPLING_LIMITS["temperature"])(word)
    except argparse.ArgumentTypeError as error:  # 0 is the likeliest token on many servers
        fix = "for the likeliest token each time leave --temperature and --do_sample out"
        raise argparse.ArgumentTypeError(f"{error}; {fix}") from error


def run(args: argparse.Namespace) -> None:
    """Print the completions."""
    _check(args)
    prompt = "" if args.chat or args.prompts else _read_prompt(args)

    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        import torch

        from llama_recipes_local.answers.generator import Sampling
        from llama_recipes_local.commands.generate.command import Generation, generate

    sampling = {field.name: getattr(args, field.name) for field in fields(Sampling)}
    generate(
        Generation(
            adapter=args.adapter,
            model=args.model_name,
            tokenizer=args.tokenizer_name,
            dtype=getattr(torch, args.dtype) if args.dtype else None,
            quantization=args.quantization,
            allow_other_base=args.allow_other_base,
            prompt=prompt,
            prompts=args.prompts,
            batch_size=args.batch_size,
            chat=args.chat,
            system=args.system,
            stream=args.stream,
            raw=args.raw,
            dataset=args.dataset,
            template=args.template,
            sampling=Sampling(**{k: v for k, v in sampling.items() if v is not None}),
        )
    )


def _check(args: argparse.Namespace) -> None:
    """Refuse combinations of flags that make no sense.

    Raises:
        UsageError: if there are any.
    """
    several = args.prompts or (args.num_return_sequences or 1) > 1
    checks = [
        (
            not args.adapter and not args.model_name,
            "no model to load",
            "neither an adapter nor a model was named",
            "name a saved adapter, --adapter DIR, or a full model, --model_name DIR",
        ),
        (
            args.stream and several,
            "--stream with several completions",
            "they are generated together, so their tokens would be mixed",
            "leave --stream out, or give one --prompt",
        ),
        (
            args.chat and args.num_return_sequences is not None,
            f"--chat with --num_return_sequences {args.num_return_sequences}",
            "a chat continues from one answer",
            "leave --num_return_sequences out",
        ),
        (
            args.chat and args.raw,
            "--chat with --raw",
            "a chat needs a template",
            "leave --raw out",
        ),
        (
            args.system is not None and args.raw,
            f"--system {args.system!r:.40} with --raw",
            "a system message needs a chat template",
            "leave --raw out",
        ),
    ]
    refuse(_unused_sampling(args) + [Problem(*words) for wrong, *words in checks if wrong])


def _unused_sampling(args: argparse.Namespace) -> list[Problem]:
    """Return the flags that only ``--do_sample`` uses, if it is not given."""
    names = ("temperature", "top_p", "top_k", "num_return_sequences")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    why = "without sampling the likeliest token is taken each time"
    return [
        Problem(
            f"--{name} {value} without --do_sample", why, f"add --do_sample, or leave --{name} out"
        )
        for name, value in given.items()
        if not args.do_sample
    ]


def _read_prompt(args: argparse.Namespace) -> str:
    """Return the prompt of a flag, a file or standard input.

    Raises:
        UsageError: if it is blank, as a variable of the shell that is not set, or cannot be read.
    """
    if args.prompt is not None:
        prompt, where = read_typed(lambda: args.prompt), "--prompt"
    elif args.prompt_file is not None:
        path = args.prompt_file.expanduser().absolute()  # resolve() breaks the name of a pipe
        prompt, where = _read_file(path), str(path)
    else:
        prompt, where = _read_input(), "standard input"
    if not prompt.strip():
        fix = "give one: --prompt TEXT, --prompt_file FILE, or a conversation: --chat"
        raise refusal("there is no prompt", f"{where} is empty", fix)
    return prompt


def _read_input() -> str:
    """Return the text of standard input; a terminal is told that it is waited for."""
    if is_terminal(sys.stdin):
        waits = "--> type the prompt, and Ctrl-D in a line of its own; or give it: --prompt TEXT"
        print(waits, file=sys.stderr, flush=True)
    return read_typed(sys.stdin.read).rstrip("\n")


def _read_file(path: Path) -> str:
    """Return a file's text without the mark and the newline that editors add."""
    try:
        return path.read_text("utf-8-sig").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        fix = "name a text file in UTF-8, or give the text itself: --prompt TEXT"
        raise refusal(f"--prompt_file {path} cannot be read", reason(error), fix) from error
