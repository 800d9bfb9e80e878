"""The names that ``--optimizer`` and ``--scheduler`` accept; imports no torch."""

BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW",
    "paged_adamw_8bit": "PagedAdamW8bit",
}
"""Its optimisers, which update no sharded parameter, by what it calls them."""
OPTIMIZERS = ("adamw", "anyprecision", *BITSANDBYTES)

PER_STEP = ("constant", "linear", "cosine", "wsd")
SCHEDULERS = ("step", *PER_STEP)
DECAYING = ("linear", "cosine", "wsd")
