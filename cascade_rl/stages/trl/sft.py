"""SFT by TRL's SFTTrainer (``trainer: trl``): the whole model on each rank, rows padding-free.

TRL trains; rows, order, schedule, states and stops are those of our own trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from cascade_rl.recipe import SftStage
from cascade_rl.stages.checkpoints.handover import load_tokenizer, write_checkpoint
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.batches import ordered_rows, steps_of
from cascade_rl.stages.offline.dataset import written
from cascade_rl.stages.sft_rows import training_rows
from cascade_rl.stages.trl import trainer as trl_trainer
from cascade_rl.stages.trl.trainer import Governed
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.training.policy import load_model

IGNORED = -100
"""Label of tokens that are not trained (torch's cross-entropy convention)."""
_IDS = pyarrow.list_(pyarrow.int64())
SCHEMA = pyarrow.schema([("input_ids", _IDS), ("labels", _IDS)])


def labelled(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, list[int]]]:
    """``rows`` (``sft_rows.training_rows``) as TRL's collator takes them."""
    for row in rows:
        prompt, completion = list(row["prompt_ids"]), list(row["completion_ids"])
        yield {"input_ids": [*prompt, *completion], "labels": [IGNORED] * len(prompt) + completion}


class Trainer(Governed, SFTTrainer):
    """SFTTrainer under our rules."""

    @property
    def keeps_order(self) -> bool:  # type: ignore[override]
        """Not where TRL has packed the rows into others."""
        return not self.args.packing

    def compute_loss(self, model: Any, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        mask = inputs.get("attention_mask")
        padding = int((mask == 0).sum()) if mask is not None else 0
        self.fed += torch.tensor([inputs["input_ids"].numel(), int((inputs["labels"] != IGNORED).sum()), padding])
        return super().compute_loss(model, inputs, *args, **kwargs)

    def step_metrics(self, logs: Mapping[str, Any]) -> dict[str, float | None]:
        return {"token_accuracy": logs.get("mean_token_accuracy"), "policy/entropy": logs.get("entropy")}


def trainer_arguments(context: Context, config: SftStage, steps: int | None, work: Path) -> SFTConfig:
    """Our keys in TRL's words."""
    return SFTConfig(
        **trl_trainer.common_arguments(context, config, steps, work),
        max_length=config.max_length if config.packing else None,  # rows were cut to it already
        packing=config.packing,
        padding_free=True,
        dataset_kwargs={"skip_prepare_dataset": not config.packing},
    )


def run(context: Context, config: SftStage) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    job = context.job
    assert job.checkpoint is not None
    tokenizer, template = load_tokenizer(job.checkpoint, job.template)
    dataset = Dataset.from_file(str(written(context, SCHEMA, labelled(training_rows(context, config, template)))))
    rows = len(dataset)
    steps = config.steps
    if not config.packing:
        steps = steps_of(config, rows)
        dataset = dataset.select(ordered_rows(rows, config.batch_size, steps, context.job.stage_seed))
    model = load_model(Path(job.checkpoint), context.ranks.device)
    work = trl_trainer.working_folder(context)
    found = context.newest_state()
    trainer = Trainer(
        model=model,
        args=trainer_arguments(context, config, steps, work),
        train_dataset=dataset,
        processing_class=tokenizer,
        context=context,
        stage=config,
        inherited_optimizer=None if found else job.parent_optimizer,
    )
    steps = steps or _packed_steps(trainer, config)
    trl_trainer.train(context, config, trainer, found, steps, None if config.packing else rows)
    if context.ranks.is_main:
        with publishing_checkpoint(job.stage_folder) as folder:
            write_checkpoint(
                trainer.accelerator.unwrap_model(trainer.model), tokenizer, template, folder, context.dtype
            )
        trl_trainer.remove_leftovers(context)
    context.ranks.barrier()


def _packed_steps(trainer: Trainer, config: SftStage) -> int:
    """Optimizer steps of ``config.epochs`` passes over packed sequences, as the trainer counts them."""
    batches = len(trainer.get_train_dataloader())
    per_epoch = max(1, -(-batches // trainer.args.gradient_accumulation_steps))
    assert config.epochs is not None
    return -(-int(per_epoch * config.epochs * 1000) // 1000)
