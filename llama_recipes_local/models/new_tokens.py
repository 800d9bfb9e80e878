"""Tokens of a tokenizer that the model has no rows for: said before training begins."""

from pathlib import Path

from llama_recipes_local import configs
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders import read_config
from llama_recipes_local.models.loading import load_tokenizer


def new_tokens_note(config: configs.train_config) -> str:
    """Return what is done about the tokens that the model has no rows for; "" without any.

    Args:
        config: names the folders of the model and the tokenizer.
    """
    rows = read_config(Path(config.model_name).expanduser()).get("vocab_size")
    if not isinstance(rows, int):
        return ""
    tokenizer = load_tokenizer(config)
    if len(tokenizer) <= rows:
        return ""
    names = [str(tokenizer.convert_ids_to_tokens(each)) for each in range(rows, len(tokenizer))]
    trained = (
        "saved with the adapter, not trained: leave --use_peft out to train them, or name a "
        "tokenizer without them, --tokenizer_name DIR"
        if config.use_peft
        else "trained"
    )
    return (
        f"--> tokens that the model has no rows for: {join_names(names)}; their rows begin near "
        f"the mean of the others and are {trained}"
    )
