"""Pretrains the stand-in as a plain language model on correct sentences.

It sees neither the prompt nor a wrong sentence: those are left for fine-tuning.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llama_recipes_local import configs, optimization
from llama_recipes_local.commands.prepare.stand_in.settings import StandInSettings
from llama_recipes_local.data.batch_sampler import ShardedBatchSampler
from llama_recipes_local.data.collation import PackedCollator
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.examples import Pair
from llama_recipes_local.kernels import attention
from llama_recipes_local.training.loop import train


def pretrain(
    sentences: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    settings: StandInSettings,
    folder: Path,
) -> LlamaForCausalLM:
    """Create the model and train it on the sentences, each a document.

    Args:
        sentences: plain text.
        tokenizer: the stand-in's.
        settings: sizes and schedule.
        folder: the folder that the training loop writes its metrics to.

    Returns:
        The model, float32, on the CPU.
    """
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(_model_config(tokenizer, settings))
    model.set_attn_implementation(attention.NAME)
    samples = encode(tokenizer, [Pair("", sentence) for sentence in sentences])
    rows = ConcatDataset(samples, settings.row_tokens)
    sampler = ShardedBatchSampler(len(rows), settings.batch_rows, seed=settings.seed)
    loader = DataLoader(
        rows, batch_sampler=sampler, collate_fn=PackedCollator(tokenizer.pad_token_id)
    )
    train_config = configs.train_config(
        output_dir=str(folder),
        max_train_step=settings.steps,
        num_epochs=-(-settings.steps // len(loader)),
        run_validation=False,
        save_model=False,
    )
    optimizer = optimization.AdamW(model.parameters(), lr=settings.learning_rate)
    schedule = optimization.StepLR(optimizer, step_size=1, gamma=train_config.gamma)
    train(model, loader, None, tokenizer, optimizer, schedule, 1, train_config)
    return model


def _model_config(tokenizer: PreTrainedTokenizerFast, settings: StandInSettings) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
