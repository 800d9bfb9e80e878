"""Answers of sharded and replicated models on several ranks, beside those of a whole model."""

import json
from pathlib import Path
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.fsdp import ShardingStrategy
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import parallel
from llama_recipes_local.answers import scored_rows
from llama_recipes_local.answers.generator import Sampling, generating
from llama_recipes_local.answers.questions import Question
from llama_recipes_local.answers.scored_rows import ScoredRows
from llama_recipes_local.answers.stopping import Stops
from llama_recipes_local.parallel import FullyShardedDataParallel

STRATEGIES = ("NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD")
LONGEST = 8


def made(folder: str, strategy: str = "") -> nn.Module:
    torch.manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    adapted.generation_config.eos_token_id = list(range(200, 400))  # some answers stop
    if strategy:
        kind = ShardingStrategy[strategy]
        FullyShardedDataParallel(adapted, [LlamaDecoderLayer], sharding_strategy=kind)
    return adapted


def compare_answers(output: Path, model_name: str) -> None:
    """Write the scores of a whole model, and those of each strategy before and after a step.

    The references are answers of the whole model for every second prompt, so GLEU tells answers
    apart. There are three batches: the second rank has none of its own in the last round.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    prompts = ["the cat " * (1 + number % 5) + str(number) for number in range(19)]
    whole = made(model_name)
    with generating(whole, tokenizer) as generator:
        found = generator.complete(prompts, Sampling(max_new_tokens=LONGEST), Stops())
    answers = [each[0] if place % 2 else "no" for place, each in enumerate(found)]
    asked = [Question(each, "a b", [text]) for each, text in zip(prompts, answers, strict=True)]
    rows = ScoredRows(asked, None, ("gleu", "rougeL", "stop_share"))
    ids = torch.arange(3, 40)[None]
    scores: dict[str, list[dict[str, float]]] = {}
    with mock.patch.object(scored_rows, "LONGEST_ANSWER", LONGEST):
        alone = {"world_size": lambda: 1, "from_all_ranks": lambda own: [own]}
        with mock.patch.multiple(scored_rows, **alone):
            scores["whole"] = [rows.scores(whole, tokenizer, lambda: None)]
        for strategy in STRATEGIES:
            model = made(model_name, strategy)
            before = rows.scores(model, tokenizer, lambda: None)
            model(input_ids=ids, labels=ids).loss.backward()
            scores[strategy] = [before, rows.scores(model, tokenizer, lambda: None)]
    output.with_name(f"{output.name}-{parallel.rank()}.json").write_text(json.dumps(scores))
