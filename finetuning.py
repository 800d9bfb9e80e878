"""Fine-tune a Llama from a local folder: the same door as upstream's."""

import fire

from llama_recipes_local.finetuning import main

if __name__ == "__main__":
    fire.Fire(main)
