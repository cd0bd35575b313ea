"""What stages trained by TRL share: order, schedule, states, stops and metrics as everywhere else in a run.

TRL's trainers are made for one run by hand: they shuffle by the loader, tie the schedule to the run's length, save into
a folder of their own and end on SIGTERM. ``Governed`` and ``Bridge`` put our rules in these places; a stage adds its
own data and loss.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import TrainerCallback

from cascade_rl.recipe import OfflineStage, OptimizerConfig
from cascade_rl.recipe.launching import Launch
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.dataset import remove_tokenised
from cascade_rl.stages.saving import no_files
from cascade_rl.store.files import disk_fault, publishing_file
from cascade_rl.training import state as states
from cascade_rl.training.schedule import learning_rate_factor
from cascade_rl.types import CascadeError, Preempted


def common_arguments(context: Context, config: OfflineStage, steps: int | None, work: Path) -> dict[str, Any]:
    """Our keys in the words that all of TRL's configurations share."""
    share = config.batch_size // context.ranks.world_size
    micro = config.micro_batch_size or share
    seed = context.job.stage_seed
    return {
        "output_dir": str(work),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "num_train_epochs": config.epochs or 1.0,
        "max_steps": steps or -1,
        "learning_rate": config.learning_rate,
        "adam_beta1": config.betas[0],
        "adam_beta2": config.betas[1],
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.grad_clip,
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if config.gradient_checkpointing else None,
        "bf16": context.dtype == "bfloat16" and not context.on_cpu,
        "use_cpu": context.on_cpu,
        "ddp_backend": ("gloo" if context.on_cpu else "nccl") if context.ranks.world_size > 1 else None,
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "logging_first_step": False,
        "save_strategy": "no",  # Bridge decides when
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": not context.on_cpu,
    }


def named_order(optimizer: Any, model: Any) -> list[str]:
    """Names of the parameters by the numbers that ``optimizer`` gives them in its state: group after group."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def inherit_moments(optimizer: Any, model: Any, path: Path) -> None:
    """Fill ``optimizer`` with the moments in ``path``, matched by parameter name: a parent may have grouped its
    parameters otherwise. Files written before names were kept all left norms and biases out of the decay.

    Raises CascadeError when they are the moments of another model.
    """
    kept = torch.load(path, map_location="cpu", weights_only=True)
    order = named_order(optimizer, model)
    numbers = {name: number for number, name in enumerate(kept.get("names") or _order_before_names(model))}
    shapes = {name: p.shape for name, p in model.named_parameters()}
    state = {}
    for number, name in enumerate(order):
        moments = kept["state"].get(numbers.get(name))
        if moments is None:
            continue
        if moments["exp_avg"].shape != shapes[name]:
            raise CascadeError(f"{path}: the inherited optimizer has {name} in another shape: it is of another model")
        state[number] = moments
    if kept["state"] and not state:
        raise CascadeError(f"{path}: the inherited optimizer has none of this model's parameters")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _order_before_names(model: Any) -> list[str]:
    parameters = [(name, p.dim() > 1) for name, p in model.named_parameters() if p.requires_grad]
    return [name for decays in (True, False) for name, does in parameters if does is decays]


class Governed:
    """Put before a TRL trainer among the bases of a class: our order and schedule, and counts of what it is fed."""

    # What TRL's trainers bring.
    args: Any
    state: Any
    model: Any
    accelerator: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataset: Any

    keeps_order = True
    """Rows come in the order they lie in."""

    def __init__(
        self, *args: Any, context: Context, stage: OfflineStage, inherited_optimizer: Path | None, **kwargs: Any
    ) -> None:
        self._context = context
        self._stage: OptimizerConfig = stage
        self._inherited_optimizer = inherited_optimizer
        self.fed = torch.zeros(3, dtype=torch.int64)
        """Positions, trained tokens and padding of this rank since the last log."""
        super().__init__(*args, **kwargs)

    def step_metrics(self, logs: Mapping[str, Any]) -> dict[str, float | None]:
        """What the stage reports of its own, out of what TRL logs."""
        raise NotImplementedError

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.keeps_order:
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        return torch.utils.data.SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """The recipe's choice, by the same rule as in stages with rollouts; transformers goes by names of its own."""
        return [name for name, p in model.named_parameters() if self._stage.decays(p.dim())]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if self._inherited_optimizer is not None:
            inherit_moments(optimizer, self.model, self._inherited_optimizer)
            self._inherited_optimizer = None
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's schedule with its own horizon, instead of one tied to the length of the run."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: learning_rate_factor(step, self._stage, num_training_steps),
            )
        return self.lr_scheduler

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Called between backward pass and update: a gradient that is not finite never gets there. TRL would go on, the
        weights lost, and log the mean of earlier losses."""
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[misc]
        if not math.isfinite(norm):
            raise CascadeError(
                f"step {self.state.global_step + 1}: the gradient is not finite (norm {float(norm)}). The last saved "
                "state is intact. Lower `learning_rate`, add `warmup_steps`, or look at the rows."
            )
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As TRL does, but a disk that takes no more pauses saving instead of ending the stage."""
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except Exception as error:
            fault = disk_fault(error)
            if fault is None:
                raise
            self._context.warn_unsaved(self.state.global_step, fault)
            shutil.rmtree(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", ignore_errors=True)


class Trainable(Protocol):
    """A TRL trainer governed by us."""

    fed: torch.Tensor
    state: Any
    model: Any
    optimizer: Any
    accelerator: Any

    def step_metrics(self, logs: Mapping[str, Any]) -> dict[str, float | None]: ...
    def add_callback(self, callback: Any) -> None: ...
    def train(self, *, resume_from_checkpoint: str | None) -> Any: ...


class Bridge(TrainerCallback):
    """Between TRL's trainer and ours: metrics, states, stops."""

    def __init__(
        self, context: Context, config: OfflineStage, trainer: Trainable, steps: int, first_step: int, rows: int | None
    ) -> None:
        self._rows = rows
        self._context = context
        self._config = config
        self._trainer = trainer
        self._steps = steps
        self._first_step = first_step
        self._progress = context.progress(steps)
        self._tracker = context.tracker(first_step)
        self._last = time.monotonic()
        self.preempted = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._progress:
            self._progress.begin(self._first_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        positions, trained, padding = self._context.ranks.sum(self._trainer.fed.clone()).tolist()
        self._trainer.fed.zero_()
        now = time.monotonic()
        done = state.global_step * self._config.batch_size
        metrics = {
            "loss": logs["loss"],
            "grad_norm": logs.get("grad_norm"),
            "learning_rate": logs.get("learning_rate"),
            "epoch": logs.get("epoch") if self._rows is None else done / self._rows,
            **self._trainer.step_metrics(logs),
            "tokens/total": positions,
            "tokens/trained": trained,
            "tokens/padding": padding,
            "time/step_s": now - self._last,
            "time/tokens_per_s": positions / (now - self._last),
        }
        self._last = now
        metrics = {key: value for key, value in metrics.items() if value is not None}
        if self._tracker:
            self._tracker.log(state.global_step, metrics)
        if self._progress:
            self._progress.step(state.global_step, metrics)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        done = state.global_step
        due = self._context.saver.due(done, self._config.save_every, self._config.save_every_s)
        control.should_save = due or done == self._steps
        if self._context.ranks.any(self._context.stop.is_set) and done < self._steps:
            control.should_save = control.should_training_stop = self.preempted = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """TRL has written ``checkpoint-N`` into its working folder: publish it as a state."""
        self._context.ranks.barrier()
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self._context.ranks.gather(written.exists())[0]:
            self._context.saver.save(
                state.global_step, partial(_moved, written) if self._context.ranks.is_main else no_files
            )
            if self._context.ranks.is_main:
                shutil.rmtree(written, ignore_errors=True)
        self._context.ranks.barrier()

    def close(self) -> None:
        for sink in (self._progress, self._tracker):
            if sink:
                sink.close()


def _moved(written: Path, folder: Path) -> states.Manifest:
    """Move all that is in ``written`` to ``folder``, as the main rank's part of a state."""
    for item in written.iterdir():
        shutil.move(str(item), folder)
    return states.manifest_of(folder)


def working_folder(context: Context) -> Path:
    """An empty place for what TRL writes. A collective call."""
    work = context.job.stage_folder.path / ".trainer"
    if context.ranks.is_main:
        shutil.rmtree(work, ignore_errors=True)
    context.ranks.barrier()
    return work


def train(
    context: Context,
    config: OfflineStage,
    trainer: Trainable,
    found: tuple[int, Path] | None,
    steps: int,
    rows: int | None,
) -> None:
    """All steps, from the state ``found``; keeps the optimizer where a later stage inherits it.

    ``rows``: what an epoch has, or None to take TRL's count. Raises Preempted once a stop was asked for and the state
    is saved, CascadeError where the state holds more steps than the stage has.
    """
    job = context.job
    first_step = found[0] if found else 0
    if found:
        context.say(f"going on from step {first_step} of {steps}")
    if asked := Launch.from_environment(os.environ).strategy:
        context.say(f"data-parallel, the whole model on each rank: TRL's trainers do not follow {asked}")
    bridge = Bridge(context, config, trainer, steps, first_step, rows)
    trainer.add_callback(bridge)
    context.note_start(first_step)
    try:
        trainer.train(resume_from_checkpoint=str(found[1]) if found else None)
    finally:
        bridge.close()
    if bridge.preempted:
        raise Preempted
    if trainer.state.global_step != steps:
        raise CascadeError(
            f"stage {config.name} ended at step {trainer.state.global_step} of {steps}; its state says more steps "
            f"than were done. Delete {job.stage_folder.state} to train it again."
        )
    if context.ranks.is_main and job.keep_optimizer:
        with publishing_file(job.stage_folder.optimizer) as file:
            names = named_order(trainer.optimizer, trainer.accelerator.unwrap_model(trainer.model))
            torch.save({**trainer.optimizer.state_dict(), "names": names}, file)


def remove_leftovers(context: Context) -> None:
    """What a finished stage needs no more: TRL's working folder and the tokenised rows."""
    shutil.rmtree(context.job.stage_folder.path / ".trainer", ignore_errors=True)
    remove_tokenised(context)
