"""Shards are copied into one buffer whatever their dtypes, and spread over files."""

import torch

from llama_recipes_local.checkpoints.shards import TensorShard, copy_to_host, group_into_files

DTYPES = (torch.uint8, torch.bfloat16, torch.float32, torch.int64)
SHARDS = [
    TensorShard(f"{number} {dtype}", torch.arange(number, number + 3).to(dtype), (0,))
    for number, dtype in enumerate(DTYPES * 2)
]


def test_copies_equal_shards_of_any_dtype_and_of_odd_lengths() -> None:
    buffer = torch.empty(sum(shard.size for shard in SHARDS), dtype=torch.uint8)
    copies = {copy.name: copy.tensor for copy in copy_to_host(SHARDS, buffer)}
    assert copies.keys() == {shard.name for shard in SHARDS}
    for shard in SHARDS:
        assert copies[shard.name].equal(shard.tensor)
        assert copies[shard.name].dtype == shard.tensor.dtype
    assert len({copy.data_ptr() for copy in copies.values()}) == len(SHARDS)


def test_files_are_filled_up_to_the_limit_and_a_larger_shard_has_its_own() -> None:
    files = group_into_files(SHARDS, limit=20)
    assert [shard for file in files for shard in file] == SHARDS
    assert all(sum(shard.size for shard in file) <= 20 or len(file) == 1 for file in files)
    assert [len(file) for file in files] == [2, 1, 1, 2, 1, 1]
