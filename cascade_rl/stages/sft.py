"""The SFT stage: TRL's SFTTrainer on conversations, loss on assistant tokens only.

TRL trains; here rows become token ids through the one renderer, and its checkpoints become our resumable states.
Batches are padding-free: the rows of a micro-batch lie one after another and attention stays within each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import torch
from trl import SFTConfig, SFTTrainer

from cascade_rl.data.exclusion import SourceRows, load_stage_rows
from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import to_conversations
from cascade_rl.data.template import Template, TrainingRow
from cascade_rl.recipe import SftStage
from cascade_rl.stages import trl_trainer
from cascade_rl.stages.context import Context
from cascade_rl.stages.handover import load_tokenizer, write_checkpoint
from cascade_rl.stages.trl_trainer import Governed, ordered_rows, seed_of, steps_of, tokenised
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.training.policy import load_model
from cascade_rl.types import CascadeError

IGNORED = -100
"""Label of tokens that are not trained (torch's cross-entropy convention)."""
_IDS = pyarrow.list_(pyarrow.int64())
SCHEMA = pyarrow.schema([("input_ids", _IDS), ("labels", _IDS)])


def training_rows(context: Context, config: SftStage, template: Template) -> Iterator[dict[str, list[int]]]:
    """``input_ids`` and ``labels`` of every trained turn within ``max_length``; the log says how many were not.

    Rows that cannot be read or rendered are left out and named in the log. Raises CascadeError when all are.
    """
    kept = long = total = 0
    refusals = Refusals()
    for part in load_stage_rows(config, context.job.recipe_path, context.job.stages_data, context.say):
        total += len(part.rows)
        for row in _rendered(part, config, template, refusals):
            ids = [*row.prompt_ids, *row.completion_ids]
            labels = [IGNORED] * len(row.prompt_ids) + list(row.completion_ids)
            if len(ids) > config.max_length:
                long += 1
                if config.overlong == "drop" or len(row.prompt_ids) >= config.max_length:
                    continue
                ids, labels = ids[: config.max_length], labels[: config.max_length]
            kept += 1
            yield {"input_ids": ids, "labels": labels}
    refusals.report(context.say, total)
    refusals.refuse_all(total)
    if long:
        fate = "dropped" if config.overlong == "drop" else "cut"
        context.say(f"{long} of {kept + long} training rows are longer than {config.max_length} tokens and were {fate}")


def _rendered(part: SourceRows, config: SftStage, template: Template, refusals: Refusals) -> Iterator[TrainingRow]:
    """The trained turns of a source's rows; all of a row or, where one of its turns is refused, none."""
    for conversation in to_conversations(part.rows, part.source, part.numbers, refusals):
        try:
            rows = template.training_rows(
                conversation.messages, conversation.thinking, config.turns, conversation.tools
            )
        except CascadeError as fault:
            refusals.add(CascadeError(f"row {conversation.id}: {fault}"))
        else:
            yield from rows


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


def run(context: Context) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    job = context.job
    config = job.stage_config()
    assert isinstance(config, SftStage)
    assert job.checkpoint is not None
    tokenizer, template = load_tokenizer(job.checkpoint, job.template)
    dataset = tokenised(context, SCHEMA, training_rows(context, config, template))
    rows = len(dataset)
    steps = config.steps
    if not config.packing:
        steps = steps_of(config, rows)
        dataset = dataset.select(ordered_rows(rows, config.batch_size, steps, seed_of(context, config)))
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
        with publishing_checkpoint(job.place) as folder:
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
