"""Fine-tune a Llama from a local folder: the same door as upstream's."""

from llama_recipes_local.finetuning import main  # says what is missing, fire too

import fire

if __name__ == "__main__":
    fire.Fire(main)
