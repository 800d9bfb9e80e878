"""Write a model, or an adapter with its base, in a format that llama.cpp, Ollama or vLLM runs."""

import argparse

from llama_recipes_local.certificates.check_names import CHECKS
from llama_recipes_local.cli.parsing import listed, one_of, path, text
from llama_recipes_local.cli.shared_flags import add_other_base_flag, add_tokenizer_flag
from llama_recipes_local.commands.export.export_types import TYPES
from llama_recipes_local.gguf_files.gguf_choices import DIVERGENCES, RISES

_LIMITS = ", ".join(f"{name} {DIVERGENCES[name]:g} {RISES[name]:.2%}%" for name in DIVERGENCES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    _add_folders(parser)
    parser.add_argument(
        "--format",
        type=one_of(TYPES),
        default="gguf",
        metavar="NAME",
        help="gguf: a file and a Modelfile; gguf-lora: the adapter by itself, which llama.cpp adds "
        "to a file of its base; gptq: 4 or 8 bits, calibrated on training rows, for vLLM; "
        "fp8: 8-bit floats with scales, for vLLM; "
        "safetensors: as merge writes it (gguf)",
    )
    parser.add_argument(
        "--type",
        type=one_of(sorted(each for types in TYPES.values() for each in types)),
        metavar="NAME",
        help="how the format stores weights; "
        + "; ".join(
            f"{name}: {', '.join(types)} ({types[0]})" for name, types in TYPES.items() if types
        ),
    )
    parser.add_argument(
        "--accept",
        type=listed(CHECKS),
        action="extend",
        default=[],
        metavar="CHECK,...",
        help="write the export although it differs from the model in this, when it is read back: "
        f"{', '.join(CHECKS)}; outputs of GGUF may differ by a KL divergence in nats a token and "
        f"a rise of the perplexity of {_LIMITS}",
    )
    parser.add_argument(
        "--dataset",
        type=text,
        metavar="NAME",
        help="data set, or a path to data, whose validation part the export is measured on (the "
        "run's, or else questions of the package's own)",
    )


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model_name", "--model", metavar="DIR", type=path, help="the model's folder"
    )
    parser.add_argument(
        "--adapter",
        metavar="DIR",
        type=path,
        help="folder of a LoRA adapter, which is merged first; --model_name is its base then "
        "(the one that it names)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", type=path, help="the new folder")
    add_tokenizer_flag(parser)
    add_other_base_flag(parser)


def run(args: argparse.Namespace) -> None:
    """Export, and print the new folder and how it is used."""
    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        from llama_recipes_local.commands.export.command import Export, export

    export(
        Export(
            model=args.model_name,
            adapter=args.adapter,
            out=args.out,
            format=args.format,
            type=args.type,
            tokenizer=args.tokenizer_name,
            allow_other_base=args.allow_other_base,
            accepted=args.accept,
            dataset=args.dataset,
        )
    )
