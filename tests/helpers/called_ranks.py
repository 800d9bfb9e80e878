"""A user's script under torchrun that fine-tunes twice, and writes what each rank was returned.

torchrun --nproc_per_node 2 called_ranks.py FLAGS.json FOLDER
"""

import json
import os
import sys
from pathlib import Path

from llama_recipes_local import UsageError, finetune

if __name__ == "__main__":
    flags, folder = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    results = [finetune(**flags, output_dir=folder / str(number)) for number in range(2)]
    found = {
        "losses": [[row["loss"] for row in each.metrics] for each in results],
        "before": results[0].loss_before,
        "after": results[0].loss_after,
        "adapter": str(results[0].adapter_dir),
        "answer": results[0].generate("She go to school.", max_new_tokens=4),
    }
    try:
        finetune(**flags, output_dir=folder / "0")
    except UsageError as error:
        found["refused"] = error.problems[0].what
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
