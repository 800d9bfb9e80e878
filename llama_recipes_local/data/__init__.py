"""From tokenised rows to batches: packing, sharding over ranks, collating."""
