"""The guide's command of sft.py, and data of the shape that it names."""

import json
from pathlib import Path

# The guide's flags, from the model's to the last.
GUIDE = [
    "--model_name",
    "../Llama-2-7b-hf/",
    "--dataset_name",
    "./datasets/openassistant-guanaco",
    "--output_dir",
    "../Llama-2-7b-my-lora/",
    "--learning_rate=1.41e-5",
    "--per_device_train_batch_size=64",
    "--gradient_accumulation_steps=2",
    "--logging_steps=1",
    "--num_train_epochs=3",
    "--max_steps=-1",
    "--gradient_checkpointing",
    "--use_peft",
    "--lora_r=64",
    "--lora_alpha=16",
    "--batch_size=4",
    "--load_in_4bit",
]
FILES = {
    "openassistant_best_replies_train.jsonl": range(64),
    "openassistant_best_replies_eval.jsonl": range(64, 72),
}


def write_clone(folder: Path) -> None:
    """Rows of unequal lengths, in the clone's two files."""
    folder.mkdir(parents=True)
    for name, numbers in FILES.items():
        rows = [
            {"text": f"### Human: Count to {n % 7}.### Assistant:{' one' * (n % 7 + 1)}"}
            for n in numbers
        ]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
