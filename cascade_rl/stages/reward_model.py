"""The reward-model stage: TRL's RewardTrainer, Bradley-Terry on pairs of answers (P1 section 5).

loss = - mean log sigmoid(r(x, chosen) - r(x, rejected)); r is one number, a linear head on the last hidden state of the
end-of-turn token of (question, answer), thinking left out.

TRL trains; here rows become token ids through ``rewarding.judged``, which RLHF uses too, and states, order and stops
are as in every stage (``trl_trainer``). What comes out is a plain one-label sequence classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import torch
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer

from cascade_rl.evals.registry import pairs_identity, resolve_pairs
from cascade_rl.recipe import RewardModelStage
from cascade_rl.stages import trl_trainer
from cascade_rl.stages.context import Context
from cascade_rl.stages.handover import load_tokenizer, write_reward_model
from cascade_rl.stages.pairs import TokenPair, measure, measure_held_out, split, training_pairs
from cascade_rl.stages.trl_trainer import Governed, ordered_rows, seed_of, steps_of, tokenised
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.store.results import read_result
from cascade_rl.training.reward_model import choose_padding, load_reward_model

_IDS = pyarrow.list_(pyarrow.int64())
SCHEMA = pyarrow.schema(
    [("chosen_ids", _IDS), ("rejected_ids", _IDS), ("category", pyarrow.string()), ("key", pyarrow.string())]
)


class Trainer(Governed, RewardTrainer):
    """RewardTrainer under our rules."""

    def compute_loss(self, model: Any, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        positions, trained = inputs["input_ids"].numel(), int(inputs["attention_mask"].sum())
        self.fed += torch.tensor([positions, trained, positions - trained])
        return super().compute_loss(model, inputs, *args, **kwargs)

    def step_metrics(self, logs: Mapping[str, Any]) -> dict[str, float | None]:
        """Accuracy counts ties as wrong here, and as half at the end; margins and scores are means of the step."""
        return {"accuracy": logs.get("accuracy"), "margin": logs.get("margin"), "score/mean": logs.get("mean_reward")}


def trainer_arguments(context: Context, config: RewardModelStage, steps: int, work: Path) -> TrlRewardConfig:
    """Our keys in TRL's words."""
    return TrlRewardConfig(
        **trl_trainer.common_arguments(context, config, steps, work),
        max_length=None,  # longer pairs were dropped already
        disable_dropout=True,
    )


def run(context: Context) -> None:
    """Train the stage of ``context.job``, measure its held-out pairs, publish its checkpoint."""
    job = context.job
    config = job.stage_config()
    assert isinstance(config, RewardModelStage)
    assert job.checkpoint is not None
    tokenizer, template = load_tokenizer(job.checkpoint, job.template)
    choose_padding(tokenizer)
    seed = seed_of(context, config)
    pairs = tokenised(context, SCHEMA, training_pairs(context, config, tokenizer))
    trained, apart = split(pairs["key"], config.held_out, seed)
    steps = steps_of(config, len(trained))
    order = [trained[index] for index in ordered_rows(len(trained), config.batch_size, steps, seed)]
    work = trl_trainer.working_folder(context)
    found = context.newest_state()
    trainer = Trainer(
        model=load_reward_model(job.checkpoint, context.ranks.device, seed, tokenizer.pad_token_id),
        args=trainer_arguments(context, config, steps, work),
        train_dataset=pairs.select_columns(["chosen_ids", "rejected_ids"]).select(order),
        processing_class=tokenizer,
        context=context,
        stage=config,
        inherited_optimizer=None if found else job.parent_optimizer,
    )
    trl_trainer.train(context, config, trainer, found, steps, len(trained))
    model = trainer.accelerator.unwrap_model(trainer.model)
    if apart:
        rows = pairs.select_columns(["chosen_ids", "rejected_ids", "category"]).select(apart)
        measure_held_out(context, model, [TokenPair(**row) for row in rows], _batch(context, config))
    if context.ranks.is_main:
        # Last of all: where a checkpoint is, the stage is taken for finished.
        with publishing_checkpoint(job.place) as folder:
            write_reward_model(model, tokenizer, template, folder, context.dtype)
        trl_trainer.remove_leftovers(context)
    context.ranks.barrier()


def measure_missing(context: Context) -> None:
    """Measure the checkpoint of ``context.job`` on what its ``evaluate`` names and ``evals`` does not have yet."""
    job = context.job
    config = job.stage_config()
    assert isinstance(config, RewardModelStage)
    assert job.checkpoint is not None
    tokenizer, _ = load_tokenizer(job.checkpoint, job.template)
    model = load_reward_model(job.checkpoint, context.ranks.device, seed_of(context, config), tokenizer.pad_token_id)
    for benchmark in map(resolve_pairs, config.evaluate):
        result = read_result(job.place.evals / f"{benchmark.name}.json") or {}
        is_done = result.get("identity") == pairs_identity(benchmark, job.recipe_path)
        if not context.ranks.gather(is_done)[0]:  # the main rank's word, so that all agree
            measure(context, model, tokenizer, benchmark, _batch(context, config))


def _batch(context: Context, config: RewardModelStage) -> int:
    """Sequences per forward pass and rank: as many as in training."""
    return 2 * (config.micro_batch_size or config.batch_size // context.ranks.world_size)
