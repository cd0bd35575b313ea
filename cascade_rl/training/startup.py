"""Before the first step: what really runs is what was asked for, or the stage stops with both sides shown.

A launcher can be silently wrong: accelerate reports one process where there are two, switches DeepSpeed off on CPU, and
ignores its FSDP2 settings there (shared notes "training", section 8). So nothing it says about itself is believed here;
parameters, optimizer and process group are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.distributed as dist

from cascade_rl.recipe import ShardingConfig
from cascade_rl.recipe.launching import Launch
from cascade_rl.training.trained_model import TrainedModel
from cascade_rl.types import CascadeError


def check_running(policy: TrainedModel, launch: Launch, how: ShardingConfig) -> None:
    """Compare ``policy`` as it is with ``how`` it was to be sharded and how it was launched. A collective call.

    Raises CascadeError, on all ranks alike, with every difference.
    """
    ranks = policy.ranks
    shares = ranks.gather(sum(piece.weight.numel() for piece in policy.sharding.pieces()))
    found = [*_world(policy, launch), *_strategy(policy, launch, how), *_shares(policy, how, shares)]
    different: list[str] = next((those for those in ranks.gather(found) if those), [])
    if different:
        lines = "\n".join(f"- {line}" for line in different)
        raise CascadeError(f"what runs is not what was asked for:\n{lines}\nNothing has been trained.")


def _world(policy: TrainedModel, launch: Launch) -> Iterator[str]:
    ranks = policy.ranks
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world != ranks.world_size:
        yield f"ranks: {ranks.world_size} by the environment, {world} in torch.distributed"
    if launch.processes is not None and launch.processes != world:
        yield f"ranks: {launch.processes} started by the launcher, {world} train together"
    if len(set(ranks.gather(ranks.rank))) != ranks.world_size:
        yield f"ranks: {ranks.world_size} processes, but not as many different ranks"


def _strategy(policy: TrainedModel, launch: Launch, how: ShardingConfig) -> Iterator[str]:
    strategy, place = policy.sharding.marks()
    if strategy != how.strategy:
        yield f"strategy: {how.strategy} by the recipe, {strategy} by what the parameters are"
    if launch.strategy not in (None, strategy):
        yield f"strategy: {launch.strategy} by the accelerate config, {strategy} by what the parameters are"
    on_cpu = how.offload_optimizer or (strategy == "fsdp2" and how.offload_parameters)
    wanted = "cpu" if on_cpu else policy.ranks.device.type
    if place != wanted:
        yield f"optimizer: to be on {wanted}, is on {place}"
    if type(policy.optimizer).__name__ != "AdamW":
        yield f"optimizer: AdamW by the recipe, {type(policy.optimizer).__name__} runs"


def _shares(policy: TrainedModel, how: ShardingConfig, shares: list[int]) -> Iterator[str]:
    """All weights are on some rank, and sharded ones in fair shares."""
    if sum(shares) != policy.trained_weights:
        yield f"weights: {policy.trained_weights} are trained, ranks keep {sum(shares)} between them"
    if how.strategy != "ddp" and max(shares) > 1.5 * policy.trained_weights / len(shares) + 1_000_000:
        yield f"weights: {how.strategy} shares them out, but one rank of {len(shares)} keeps {max(shares)}"
