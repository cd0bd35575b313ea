"""The strategy that a resolved ``sharding`` section names."""

from __future__ import annotations

from cascade_rl.recipe import OptimizerConfig, ShardingConfig
from cascade_rl.training.ranks import Ranks, ensure_group
from cascade_rl.training.root import Root
from cascade_rl.training.sharding.base import Sharding
from cascade_rl.training.sharding.replicated import Replicated


def make_sharding(root: Root, config: OptimizerConfig, ranks: Ranks, how: ShardingConfig, *, half: bool) -> Sharding:
    """``root`` spread over ``ranks``. What a strategy needs is imported only where it is used. A collective call."""
    if how.strategy != "ddp":
        ensure_group(ranks)
    if how.strategy in ("zero2", "zero3"):
        from cascade_rl.training.sharding.zero import Zero

        return Zero(
            root,
            config,
            ranks,
            stage=int(how.strategy[-1]),
            offload_optimizer=how.offload_optimizer,
            offload_parameters=how.offload_parameters,
        )
    if how.strategy == "fsdp2":
        from cascade_rl.training.sharding.fsdp import FullyShardedRanks

        return FullyShardedRanks(
            root, config, ranks, half=half, offload=how.offload_optimizer or how.offload_parameters
        )
    assert how.strategy == "ddp", f"strategy {how.strategy} must be resolved first"
    return Replicated(root, config, ranks, offload_optimizer=how.offload_optimizer)
