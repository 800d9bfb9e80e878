"""Fine-tune a Llama from a local folder with TRL's SFTTrainer: TRL's script of the same name."""

import sys

from llama_recipes_local.commands.sft.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
