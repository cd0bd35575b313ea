"""The RL stage: strictly on-policy GRPO. ``train`` is the algorithm; the rest sets it up."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cascade_rl.algorithms.advantages import advantages_of_groups
from cascade_rl.algorithms.losses import policy_gradient
from cascade_rl.data.mixing import Sampler
from cascade_rl.data.template import Template
from cascade_rl.recipe import RlStage
from cascade_rl.rewarding import DomainScorer, Scorer
from cascade_rl.rollout.archive import rows_of, write_rollouts
from cascade_rl.rollout.vllm_engine import VllmEngine
from cascade_rl.stages.collect import Collected, Collector, members, refuse_errors
from cascade_rl.stages.context import Context
from cascade_rl.stages.handover import load_tokenizer, probe_logprobs, write_checkpoint
from cascade_rl.stages.measure import Benchmarks
from cascade_rl.stages.prompts import Prompts, Slot, load_prompts, make_sampler
from cascade_rl.stages.step_metrics import rollout_metrics
from cascade_rl.store.files import publishing, publishing_file
from cascade_rl.training import state as states
from cascade_rl.training.packing import TrainingSequence, pack, training_sequence
from cascade_rl.training.policy import NonFinite, Policy
from cascade_rl.training.update import Update, UpdateStats
from cascade_rl.types import CascadeError, Group, Preempted


@dataclass
class RlRun:
    """Everything the loop works with."""

    context: Context
    config: RlStage
    policy: Policy
    engine: VllmEngine
    sampler: Sampler
    prompts: Prompts
    collector: Collector
    benchmarks: Benchmarks
    progress: Any
    tracker: Any
    max_gap: float
    position: dict[str, Any]
    """Of the sampler, before the step in progress drew its prompts."""


def train(run: RlRun, first_step: int) -> None:
    """Sync weights, roll out, score, compare within groups, update; ``config.steps`` times."""
    for step in range(first_step, run.config.steps):
        clock = Clock()
        run.engine.load_weights(run.policy.named_weights(), version=step)
        clock.lap("time/sync_s")

        collected = run.collector.collect(next_slots(run), step)
        abandon_if_stopped(run, collected, step)
        run.engine.sleep()
        sequences = training_sequences(collected.groups, run.config)
        clock.lap("time/collect_s")

        update = Update(
            run.policy,
            lambda row, part, logprobs, _: policy_gradient(logprobs, row.advantages[part]),
            temperature=run.config.rollout.temperature,
            engine_temperature=run.engine.logprob_temperature,
        )
        update.add(pack(sequences, run.config.tokens_per_micro_batch))
        stats = update.stats()
        guard(run, stats, collected.groups, step)
        learning_rate, grad_norm = run.policy.learning_rate, apply(run, stats)
        clock.lap("time/train_s")

        record(run, step, collected, stats, {"learning_rate": learning_rate, "grad_norm": grad_norm}, clock)
        save_if_due(run, step + 1)
        run.context.stop_if_asked(functools.partial(save, run, step + 1))


def apply(run: RlRun, stats: UpdateStats) -> float:
    """The optimizer step. Raises CascadeError for a gradient that is not finite; the weights stay as they were."""
    try:
        return run.policy.step(stats.denominator)
    except NonFinite as error:
        raise CascadeError(
            f"{error}; the weights were left as they are. "
            "Lower `learning_rate`, add `warmup_steps`, or look at this step's rollouts."
        ) from error


class Clock:
    """Seconds of each phase of a step."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now

    @property
    def total(self) -> float:
        return time.monotonic() - self._start


def next_slots(run: RlRun) -> list[Slot]:
    """This rank's share of the step's prompts. Every rank advances the sampler alike."""
    run.position = run.sampler.state()
    indices = run.sampler.next(run.config.prompts_per_step)
    ranks = run.context.ranks
    return run.prompts.slots(indices, ranks.rank, ranks.world_size)


def training_sequences(groups: Sequence[Group], config: RlStage) -> list[TrainingSequence]:
    """Rollouts that count, each with its advantage over its siblings, in prompt and rollout order."""
    kept = [(group, members(group, config)) for group in groups]
    kept = [(group, indices) for group, indices in kept if len(indices) > 1]  # alone there is no baseline
    advantages = advantages_of_groups(
        [[group.scores[i].value for i in indices] for group, indices in kept], config.advantage
    )
    return [
        training_sequence(group.prompt_token_ids, group.rollouts[i].token_ids, group.rollouts[i].logprobs, advantage)
        for (group, indices), row in zip(kept, advantages, strict=True)
        for i, advantage in zip(indices, row, strict=True)
    ]


def abandon_if_stopped(run: RlRun, collected: Collected, step: int) -> None:
    """A step whose rollouts were cut short on any rank is given up on all; its prompts are drawn again later."""
    if run.context.ranks.any(collected.aborted):
        save(run, step, run.position)
        raise Preempted


def guard(run: RlRun, stats: UpdateStats, groups: Sequence[Group], step: int) -> None:
    """Refuse an update that would teach nonsense. Raises CascadeError with this step's rollouts on disk."""
    trouble: str | None = None
    try:
        refuse_errors(groups, run.context.ranks.gather, run.config)
    except CascadeError as error:
        trouble = str(error)
    if trouble is None and not math.isfinite(stats.loss):
        trouble = f"the loss is {stats.loss}; the weights are still those of step {step}"
    if trouble is None and not stats.logprob_gap_mean <= run.max_gap:
        trouble = (
            f"trainer and engine disagree about the same tokens: mean |log-prob difference| "
            f"{stats.logprob_gap_mean:.3g} (largest {stats.logprob_gap_max:.3g}), bound {run.max_gap:g}. The engine "
            f"serves version {run.engine.version}, the trainer is at {step}. Either the weights were not "
            "synchronised, or the two compute in different precision; the bound is `max_logprob_gap`."
        )
    if trouble:
        archive(run, groups, step)
        raise CascadeError(f"step {step + 1}: {trouble}\nIts rollouts are in {run.context.job.place.rollouts}")


def record(
    run: RlRun,
    step: int,
    collected: Collected,
    stats: UpdateStats,
    optimizer: dict[str, float],
    clock: Clock,
) -> None:
    """Write the step down: metrics, rollouts, benchmarks that are due, the progress line."""
    context, config = run.context, run.config
    archive(run, collected.groups, step)
    metrics = {
        "loss": stats.loss,
        **optimizer,
        **rollout_metrics(context.ranks.gather, collected.groups, config),
        "policy/entropy": stats.entropy,
        "sampling/logprob_gap_mean": stats.logprob_gap_mean,
        "sampling/logprob_gap_max": stats.logprob_gap_max,
        "tokens/trained": stats.trained_tokens,
        "time/rollout_s": collected.rollout_s,
        "time/reward_wait_s": collected.reward_wait_s,
        "time/sync_s": clock.laps["time/sync_s"],
        "time/train_s": clock.laps["time/train_s"],
        "time/step_s": clock.total,
    }
    metrics["time/tokens_per_s"] = metrics["tokens/rollout"] / metrics["time/step_s"]
    every = context.job.evaluate_every
    if every and (step + 1) % every == 0 and step + 1 < config.steps:
        run.engine.load_weights(run.policy.named_weights(), version=step + 1)
        metrics |= run.benchmarks.values(run.engine)
    if run.tracker:
        run.tracker.log(step + 1, metrics)
    if run.progress:
        run.progress.step(step + 1, metrics)


def archive(run: RlRun, groups: Sequence[Group], step: int) -> None:
    """Rollouts of all ranks into one file. A full disk costs the file, not the run."""
    shares = run.context.ranks.gather(rows_of(groups, step + 1))
    if run.context.ranks.is_main:
        try:
            write_rollouts(run.context.job.place.rollouts, step + 1, [row for share in shares for row in share])
        except OSError as error:
            run.context.say(f"WARNING: rollouts of step {step + 1} could not be written: {error}")


def save_if_due(run: RlRun, done: int) -> None:
    """A state every ``save_every`` steps and at the end."""
    if done % run.config.save_every == 0 or done == run.config.steps:
        save(run, done)


def save(run: RlRun, done: int, position: dict[str, Any] | None = None) -> None:
    """State after ``done`` steps: with it the run goes on bit for bit (on CPU, with as many ranks)."""
    if states.step_folder(run.context.job.place.state, done).exists():
        return
    ranks = run.context.ranks
    rng = ranks.gather(states.rng_states())
    payload = {
        "step": done,
        "world_size": ranks.world_size,
        "policy": run.policy.state_dict() if ranks.is_main else None,
        "sampler": position or run.sampler.state(),
        "rng": rng,
    }
    run.context.save_state(done, lambda folder: torch.save(payload, folder / "state.pt"))
    ranks.barrier()


def resume(run: RlRun) -> int:
    """Load the newest whole state, if any; returns the number of steps done."""
    found = run.context.newest_state()
    if found is None:
        return 0
    step, folder = found
    try:
        payload = torch.load(folder / "state.pt", map_location="cpu", weights_only=False)
        run.policy.load_state_dict(payload["policy"])
        run.sampler.restore(payload["sampler"])
    except CascadeError:
        raise
    except Exception as error:
        raise CascadeError(f"state {folder} could not be loaded: {error}") from error
    ranks = run.context.ranks
    if payload["world_size"] == ranks.world_size:
        states.restore_rng(payload["rng"][ranks.rank])
    else:
        run.context.say(
            f"resumed with {ranks.world_size} ranks where {payload['world_size']} ran before: equal up to rounding"
        )
    run.context.say(f"going on from step {step} of {run.config.steps}; the engine is filled from the trainer's weights")
    return step


def open_scorers(context: Context, config: RlStage, template: Template, search: list[Path]) -> DomainScorer:
    """The scorer of each domain's reward, all started. Raises RewardError when one cannot be."""
    with contextlib.ExitStack() as opened:
        scorers = {
            domain: opened.enter_context(
                Scorer(reward, search, context.reward_workers(reward), template.thinks_by_default)
            )
            for domain, reward in config.rewards_by_domain.items()
        }
        opened.pop_all()  # the DomainScorer closes them from here on
    return DomainScorer(scorers)


def run(context: Context) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    job, ranks = context.job, context.ranks
    config = job.stage_config()
    assert isinstance(config, RlStage)
    assert job.checkpoint is not None
    tokenizer, template = load_tokenizer(job.checkpoint, job.template)
    prompts = load_prompts(context, config, template)
    policy = Policy(
        Path(job.checkpoint),
        config,
        ranks=ranks,
        dtype=context.dtype,
        total_steps=config.steps,
        gradient_checkpointing=config.gradient_checkpointing,
        chunk_tokens=config.logprob_chunk_tokens,
    )
    if job.parent_optimizer is not None:
        policy.inherit_optimizer(torch.load(job.parent_optimizer, map_location="cpu", weights_only=True))
    seed = config.seed if config.seed is not None else job.seed
    sampler = make_sampler(prompts, seed)
    search = [job.recipe_path.resolve().parent, Path.cwd()]
    with (
        open_scorers(context, config, template, search) as scorer,
        Benchmarks(context, template, search, live=True) as benchmarks,
    ):
        longest = prompts.longest + max(config.rollout.max_new_tokens, config.instruct_max_new_tokens or 0)
        engine = context.engine(
            job.checkpoint,
            tokenizer,
            config.engine,
            config.rollout,
            max(longest, benchmarks.longest if job.evaluate_every else 0),
        )
        progress = context.progress(config.steps)
        the_run = RlRun(
            context=context,
            config=config,
            policy=policy,
            engine=engine,
            sampler=sampler,
            prompts=prompts,
            collector=Collector(
                engine, scorer, config, seed=seed, stop=context.stop, progress=progress, gather=ranks.gather
            ),
            benchmarks=benchmarks,
            progress=progress,
            tracker=None,
            max_gap=config.max_logprob_gap or (1e-3 if context.dtype == "float32" else 0.1),
            position=sampler.state(),
        )
        first_step = resume(the_run)
        check_engine(the_run)
        the_run.tracker = context.tracker(first_step)
        context.note_start(first_step)
        try:
            if progress:
                progress.begin(first_step)
            train(the_run, first_step)
        finally:
            for sink in (the_run.progress, the_run.tracker):
                if sink:
                    sink.close()
        finish(the_run, tokenizer, template)
        engine.close()


def check_engine(run: RlRun) -> None:
    """Before the first step: the engine, filled from the trainer, must agree with it about what it samples."""
    run.engine.load_weights(run.policy.named_weights(), version=0)
    gap = probe_logprobs(
        run.policy,
        run.engine,
        run.prompts.probes(),
        sampling=run.config.rollout,
        engine_temperature=run.engine.logprob_temperature,
    )
    worst = run.context.ranks.max(gap)
    if worst > 10 * run.max_gap:
        raise CascadeError(
            f"transformers and vLLM give different log-probs for checkpoint {run.context.job.checkpoint}: up to "
            f"{worst:.3g} per token on a probe (bound {10 * run.max_gap:g}). Its files do not mean the same to both; "
            "training on it would learn noise."
        )
    run.context.say(f"trainer and engine agree on the inherited weights (largest log-prob gap {worst:.1e})")


def finish(run: RlRun, tokenizer: Any, template: Template) -> None:
    """Publish the stage's result; the checkpoint comes last, since it is what says that the work is done."""
    context, ranks = run.context, run.context.ranks
    if ranks.is_main:
        place = context.job.place
        if context.job.keep_optimizer:
            with publishing_file(place.optimizer) as file:
                torch.save(run.policy.optimizer.state_dict(), file)
        with publishing(place.checkpoint) as folder:
            write_checkpoint(run.policy.model, tokenizer, template, folder, context.dtype)
    ranks.barrier()
