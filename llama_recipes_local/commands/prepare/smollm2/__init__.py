"""``llama-recipes-local prepare smollm2``: the small pretrained model that the first run trains."""
