"""The reward-model stage: a scalar head on a language model, trained on pairs of answers (``pair_method``).

Rows become token ids through ``rewarding.reward_model_ids``, which RLHF uses too. What comes out is a plain one-label
sequence classifier, as transformers, TRL and vLLM load it.
"""

from __future__ import annotations

import functools
import os

from cascade_rl.evals.registry import pairs_identity, resolve_pairs
from cascade_rl.recipe import RewardModelStage
from cascade_rl.recipe.launching import Launch
from cascade_rl.stages.checkpoints.handover import load_tokenizer, write_reward_model
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.batches import steps_of
from cascade_rl.stages.offline.dataset import remove_tokenised, tokenised
from cascade_rl.stages.offline.held_out import split
from cascade_rl.stages.offline.setup import carry_out
from cascade_rl.stages.pair_method import PairMethod
from cascade_rl.stages.pair_scores import measure, write_held_out
from cascade_rl.stages.pairs import SCHEMA, StoredPairs, training_pairs
from cascade_rl.stages.policies import checked, publish
from cascade_rl.store.results import read_result
from cascade_rl.training.reward_model import choose_padding
from cascade_rl.training.scoring import TrainedRewardModel


def run(context: Context) -> None:
    """Train the stage of ``context.job``, measure its held-out pairs, publish its checkpoint."""
    config = context.job.stage_config()
    assert isinstance(config, RewardModelStage)
    assert context.job.checkpoint is not None
    if config.trainer == "trl":
        from cascade_rl.stages.trl import reward_model as by_trl

        by_trl.run(context, config)
        return
    tokenizer, template = load_tokenizer(context.job.checkpoint, context.job.template)
    choose_padding(tokenizer)
    pairs = StoredPairs(tokenised(context, SCHEMA, training_pairs(context, config, tokenizer)))
    trained, apart = split(pairs.keys, range(len(pairs)), config.held_out, context.job.stage_seed, "pairs")
    steps = steps_of(config, len(trained))
    model = make_model(context, config, tokenizer.pad_token_id, steps)
    method = PairMethod(
        context, model, pairs, trained, apart, budget=config.tokens_per_micro_batch, centering=config.centering or 0.0
    )
    carry_out(context, config, model, method, steps)
    if apart:
        write_held_out(context, method.judged())
    publish(context, model, functools.partial(write_reward_model, model.model, tokenizer, template))
    if context.ranks.is_main:
        remove_tokenised(context)
    context.ranks.barrier()


def make_model(context: Context, config: RewardModelStage, pad_token_id: int, steps: int) -> TrainedRewardModel:
    """The model at the start of a stage of ``steps`` steps. A collective call."""
    launch = Launch.from_environment(os.environ)
    sharding = launch.resolve(config.sharding)
    model = TrainedRewardModel(
        context.job.checkpoint or "",
        config,
        ranks=context.ranks,
        dtype=context.dtype,
        pad_token_id=pad_token_id,
        total_steps=steps,
        gradient_checkpointing=config.gradient_checkpointing,
        sharding=sharding,
        lora=config.lora,
        seed=context.job.stage_seed,
    )
    return checked(context, model, launch, sharding)


def measure_missing(context: Context) -> None:
    """Measure the checkpoint of ``context.job`` on what its ``evaluate`` names and ``evals`` does not have yet."""
    job = context.job
    config = job.stage_config()
    assert isinstance(config, RewardModelStage)
    assert job.checkpoint is not None
    tokenizer, _ = load_tokenizer(job.checkpoint, job.template)
    model = finished_model(context, config, tokenizer.pad_token_id)
    for benchmark in map(resolve_pairs, config.evaluate):
        result = read_result(job.stage_folder.evals / f"{benchmark.name}.json") or {}
        is_done = result.get("identity") == pairs_identity(benchmark, job.recipe_path)
        if not context.ranks.gather(is_done)[0]:  # the main rank's word, so that all agree
            measure(context, model, tokenizer, benchmark, config.tokens_per_micro_batch)


def finished_model(context: Context, config: RewardModelStage, pad_token_id: int) -> TrainedRewardModel:
    """The checkpoint of ``context.job``, to be measured. Weights are shared out by FSDP2 where any strategy shares them
    out: without training it keeps no gradient and no moments, which ZeRO sets aside from the start."""
    sharding = Launch.from_environment(os.environ).resolve(config.sharding)
    strategy = "ddp" if sharding.strategy == "ddp" else "fsdp2"
    return TrainedRewardModel(
        context.job.checkpoint or "",
        config,
        ranks=context.ranks,
        dtype=context.dtype,
        pad_token_id=pad_token_id,
        total_steps=1,
        sharding=sharding.model_copy(update={"strategy": strategy, "offload_optimizer": False}),
        seed=context.job.stage_seed,
    )
