"""A reward model by TRL's RewardTrainer (``trainer: trl``): the whole model on each rank.

TRL trains; here rows become token ids through ``rewarding.reward_model_ids``, which RLHF uses too, and states, order
and stops are as in every stage (``trl.trainer``). What comes out is a plain one-label sequence classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer

from cascade_rl.recipe import RewardModelStage
from cascade_rl.stages.checkpoints.handover import load_tokenizer, write_reward_model
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.batches import ordered_rows, steps_of
from cascade_rl.stages.offline.dataset import written
from cascade_rl.stages.offline.held_out import split
from cascade_rl.stages.pair_scores import judge, write_held_out
from cascade_rl.stages.pairs import SCHEMA, TokenPair, training_pairs
from cascade_rl.stages.trl import trainer as trl_trainer
from cascade_rl.stages.trl.trainer import Governed
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.training.reward_model import choose_padding, load_reward_model
from cascade_rl.training.scoring import WholeRewardModel


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
        center_rewards_coefficient=config.centering,
    )


def run(context: Context, config: RewardModelStage) -> None:
    """Train the stage of ``context.job``, measure its held-out pairs, publish its checkpoint."""
    job = context.job
    assert job.checkpoint is not None
    tokenizer, template = load_tokenizer(job.checkpoint, job.template)
    choose_padding(tokenizer)
    seed = context.job.stage_seed
    pairs = Dataset.from_file(str(written(context, SCHEMA, training_pairs(context, config, tokenizer))))
    trained, apart = split(pairs["key"], range(len(pairs)), config.held_out, seed, "pairs")
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
        whole = WholeRewardModel(model, context.ranks, half=context.dtype == "bfloat16" and not context.on_cpu)
        judged = judge(context, whole, [TokenPair(**row) for row in rows], config.tokens_per_micro_batch)
        write_held_out(context, judged)
    if context.ranks.is_main:
        # Last of all: where a checkpoint is, the stage is taken for finished.
        with publishing_checkpoint(job.stage_folder) as folder:
            write_reward_model(model, tokenizer, template, folder, context.dtype)
        trl_trainer.remove_leftovers(context)
    context.ranks.barrier()
