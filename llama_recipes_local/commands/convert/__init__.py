"""Makes a Hugging Face folder of a sharded checkpoint: this package's own, or upstream's."""
