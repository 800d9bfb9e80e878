"""Answers of a model and its export to the same prompts, side by side."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llama_recipes_local.answers.generator import Generator, Sampling
from llama_recipes_local.answers.stopping import find_stops
from llama_recipes_local.certificates.held_out import LONGEST_ANSWER, MOST_ANSWERS, HeldOut
from llama_recipes_local.model_folders.read_back import ComparedModel, ReadBack
from llama_recipes_local.parallel import device_type

MOST_MEMORY = 4 * 10**9
"""Bytes of a whole model on the CPU, in float32; larger ones answer nothing."""


@dataclass(frozen=True)
class Answered:
    """The greedy answers of model and export to a prompt, and whether each ended by itself."""

    prompt: str
    original: str
    exported: str
    ended: tuple[bool, bool]


def too_large(weights: int) -> str:
    """Return why a model with this many weights is asked no prompts; "" if it is."""
    needed = weights * _dtype().itemsize
    room = torch.cuda.mem_get_info()[0] // 2 if device_type() == "cuda" else MOST_MEMORY
    if needed <= room:
        return ""
    return f"the whole model takes {needed / 1e9:.1f} GB, more than {room / 1e9:.1f}"


def greedy_answers(read: ReadBack, held_out: HeldOut) -> list[Answered]:
    """Return the answers to the held-out prompts; one whole model is in memory at a time."""
    prompts = list(held_out.prompts)[:MOST_ANSWERS]
    if not prompts:
        return []
    first, second = (
        _complete(model, read, held_out, prompts) for model in (read.original, read.exported)
    )
    return [
        Answered(prompt, a, b, (a_ended, b_ended))
        for prompt, (a, a_ended), (b, b_ended) in zip(prompts, first, second, strict=True)
    ]


def _complete(
    compared: ComparedModel, read: ReadBack, held_out: HeldOut, prompts: list[str]
) -> list[tuple[str, bool]]:
    tokenizer: Any = compared.tokenizer
    kept = tokenizer.padding_side, tokenizer.pad_token_id
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = next(iter(compared.ends), 0)  # it is masked
    generator = Generator(_whole(compared, read), tokenizer)
    stops = find_stops(held_out.template, tokenizer, generator.ends)
    sampling = Sampling(max_new_tokens=LONGEST_ANSWER)
    found = generator.complete_and_tell(prompts, sampling, stops)
    tokenizer.padding_side, tokenizer.pad_token_id = kept
    return [each[0] for each in found]


def _whole(compared: ComparedModel, read: ReadBack) -> LlamaForCausalLM:
    with torch.device("meta"):
        model = LlamaForCausalLM(compared.config)
    device, dtype = device_type(), _dtype()
    weights = {name: compared.weight(name).to(device, dtype) for name in read.names}
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(compared.config).to(device)
    model.generation_config = GenerationConfig(eos_token_id=list(compared.ends))
    return model.eval()


def _dtype() -> torch.dtype:
    return torch.bfloat16 if device_type() == "cuda" else torch.float32
