"""Serves a GGUF file by llama.cpp's server, and compares its answers with transformers'.

    python benchmarks/serving.py --model_name DIR --gguf FILE [--port 8080]

The server is that of the wheel ``xllamacpp``, which is llama.cpp's own ``llama-server`` in a
process: the file, its chat template and its end tokens are used as ``llama-server -m FILE`` uses
them. Greedy answers of ``/v1/chat/completions`` are compared with those of transformers in float32,
by the run's prompt template or the folder's chat template, and its generation configuration.
"""

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from llama_recipes_local.datasets.prompt_template import (
    chat_prompt_template,
    find_prompt_template,
    read_prompt_template,
)
from llama_recipes_local.models import AutoTokenizer

QUESTIONS = (
    "What is the capital of France?",
    "Correct the grammar: She go to school yesterday.",
    "List three fruits.",
    "How much is 12 times 12?",
    "Say hello in Chinese.",
)
NEW_TOKENS = 48
CUT = "\N{REPLACEMENT CHARACTER}"
"""In place of a character whose last bytes were not generated; the server sends none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    server = served(args.gguf, args.port)
    template = find_prompt_template(args.model_name)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name)
    model: Any = AutoModelForCausalLM.from_pretrained(args.model_name, dtype=torch.float32)
    equal = 0
    for question in QUESTIONS:
        known = (
            read_prompt_template(template)
            if template is not None
            else chat_prompt_template("tokenizer", tokenizer)
        )
        found = asked(server.listening_address, [{"role": "user", "content": question}])
        expected = generated(model, tokenizer, known.of_text(question, tokenizer))
        equal += found == expected
        print(f"{'same ' if found == expected else 'OTHER'} {question}")
        print(f"      {found!r}" + ("" if found == expected else f"\n      {expected!r}"))
    print(f"{equal} of {len(QUESTIONS)} answers, and why they ended, are the same")


def served(path: Path, port: int) -> Any:
    """Start the server as ``llama-server -m FILE --port PORT`` does."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.port, parameters.n_ctx, parameters.n_parallel = port, 1024, 1
    parameters.use_jinja = True  # the server's default
    return xllamacpp.Server(parameters)


def asked(address: str, turns: list[dict[str, str]]) -> tuple[str, str]:
    """Return the server's greedy answer, and why it ended."""
    body = {"messages": turns, "temperature": 0, "max_tokens": NEW_TOKENS}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        (choice,) = json.load(answer)["choices"]
    return choice["message"]["content"], choice["finish_reason"]


def generated(model: Any, tokenizer: Any, prompt: str) -> tuple[str, str]:
    """Return transformers' greedy answer, and why it ended."""
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[0]
    new = made[inputs["input_ids"].shape[1] :]
    ended = len(new) < NEW_TOKENS or int(new[-1]) in ends(model)
    text = tokenizer.decode(new, skip_special_tokens=True)
    return text.removesuffix(CUT), "stop" if ended else "length"


def ends(model: Any) -> set[int]:
    found = model.generation_config.eos_token_id
    return set(found if isinstance(found, list) else [found])


if __name__ == "__main__":
    main()
