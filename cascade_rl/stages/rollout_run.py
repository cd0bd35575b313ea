"""What stages that learn from the policy's own rollouts share: setting up, weights to the engine, states, records.

The algorithm of each kind is a loop of its own (``rl.train``, ``distill.train``) over a ``RolloutRun``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cascade_rl.data.template import Template
from cascade_rl.recipe import RolloutStage
from cascade_rl.recipe.choices import notes
from cascade_rl.recipe.launching import Launch
from cascade_rl.rewarding import DomainScorer
from cascade_rl.rollout.archive import joined, rows_of, write_rollouts
from cascade_rl.rollout.engine import Engine
from cascade_rl.stages.adapter_files import publish_adapter
from cascade_rl.stages.collect import Collector
from cascade_rl.stages.context import Context
from cascade_rl.stages.feed import Feed
from cascade_rl.stages.handover import load_tokenizer, probe_logprobs, write_checkpoint
from cascade_rl.stages.journal import Journal
from cascade_rl.stages.measure import Benchmarks
from cascade_rl.stages.prompts import Prompts, load_prompts
from cascade_rl.stages.saving import save_together
from cascade_rl.stages.switching import Switch
from cascade_rl.stages.unchanged import refuse_changes
from cascade_rl.stages.watchdog import Watchdog
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.store.files import publishing_file
from cascade_rl.tracking.trace import Trace, append_trace
from cascade_rl.training import state as states
from cascade_rl.training.fingerprint import Fingerprint
from cascade_rl.training.policy import Policy
from cascade_rl.training.reference import Reference
from cascade_rl.training.startup import check_running
from cascade_rl.types import CascadeError, Group, Prompt

LANES = {
    "sync": "time/sync_s",
    "generate": "time/rollout_s",
    "wait for rewards": "time/reward_wait_s",
    "train": "time/train_s",
}
"""Lane of a step's trace -> metric of the seconds it was busy."""


@dataclass
class RolloutRun:
    """Everything a loop works with."""

    context: Context
    config: Any  # RolloutStage; each loop knows its own kind
    tokenizer: Any
    template: Template
    policy: Policy
    engine: Engine
    sampler: Feed
    prompts: Prompts
    collector: Collector
    journal: Journal
    benchmarks: Benchmarks
    progress: Any
    watchdog: Watchdog
    switch: Switch
    max_gap: float
    reference: Reference | None = None
    """What a KL penalty compares the policy with; None where there is none."""
    tracker: Any = None
    trace: Trace = field(default_factory=Trace)
    """Of the step in progress."""
    position: dict[str, Any] = field(default_factory=dict)
    """Of the sampler, before the step in progress drew its prompts."""
    saved: int = -1
    """Steps done in the state that this attempt wrote last, or goes on from. A later one on the disk is damaged."""
    skipped: int = 0
    """Steps in a row whose update was skipped."""
    flat: int = 0
    """Steps in a row in which no group had variance."""
    resyncs: int = 0
    """How often the step in progress was begun again because trainer and engine disagreed."""

    @property
    def trains_while_generating(self) -> bool:
        """Engines on devices of their own go on generating. Ranks that share each row's tokens wait for all groups."""
        config = self.config
        dedicated = config.engine.placement == "dedicated" and config.updates_per_batch is None
        return dedicated and not self.policy.shares_rows

    @property
    def trains_while_scoring(self) -> bool:
        """Where one rank generates and trains in turns, and all rollouts are there but not all scores, it learns from
        the groups that are complete. Several ranks wait for all groups, to share them out evenly; under
        ``dynamic_sampling`` more rollouts may be called for."""
        config = self.config
        alone = config.engine.placement == "colocated" and self.context.ranks.world_size == 1
        return alone and config.updates_per_batch is None and config.dynamic_sampling is None

    def phase(self, text: str) -> None:
        """Report what goes on now (``report_phase``)."""
        report_phase(self.watchdog, self.progress, text)


def report_phase(watchdog: Watchdog, progress: Any, text: str) -> None:
    """Tell the watchdog, and the progress line where there is one, what goes on now; what came before it is done."""
    watchdog.beat(text)
    if progress:
        progress.phase(text)


@contextlib.contextmanager
def opened(
    context: Context,
    make_scorer: Callable[[Template, list[Path]], contextlib.AbstractContextManager[DomainScorer]],
    check: Callable[[Sequence[Prompt], list[Path]], None],
    shape: Callable[[Group], Group] = lambda group: group,
) -> Iterator[RolloutRun]:
    """The stage of ``context.job`` with model, engine, prompts and scorers in place; nothing is resumed yet.

    ``check`` raises CascadeError for prompts that the stage cannot learn from (``stages.fitting``); it is handed where
    rewards are looked for. ``shape`` is applied to the values of each scored group.
    """
    job, ranks = context.job, context.ranks
    config = job.stage_config()
    assert isinstance(config, RolloutStage)
    assert job.checkpoint is not None
    tokenizer, template = load_tokenizer(job.checkpoint, job.template)
    search = [job.recipe_path.resolve().parent, Path.cwd()]
    prompts = load_prompts(context, config, template)
    check(prompts.prompts, search)
    policy = make_policy(context, config)
    seed = config.seed if config.seed is not None else job.seed
    sampler = make_feed(context, config, prompts, seed)
    progress = context.progress(config.steps)
    watchdog = Watchdog(job.place.logs, ranks.rank, config.stall_timeout_s, context.say_anywhere)
    journal = make_journal(context, prompts)
    with (
        watchdog,
        make_scorer(template, search) as scorer,
        Benchmarks(context, template, search, live=True) as benchmarks,
    ):
        refuse_changes(job, ranks)  # all that is read has been read by now
        for note in notes(config):
            context.say(note)
        engine = make_engine(context, config, tokenizer, prompts, benchmarks)
        yield RolloutRun(
            context=context,
            config=config,
            tokenizer=tokenizer,
            template=template,
            policy=policy,
            engine=engine,
            sampler=sampler,
            prompts=prompts,
            collector=Collector(
                engine,
                scorer,
                sampler,
                config,
                seed=seed,
                stop=context.stop,
                gather=ranks.gather,
                journal=journal,
                shape=shape,
                phase=partial(report_phase, watchdog, progress),
                show=progress.phase if progress else lambda _: None,
                say=context.say,
            ),
            journal=journal,
            benchmarks=benchmarks,
            progress=progress,
            watchdog=watchdog,
            switch=Switch(config.stop_conditions, config.stop_window or 5),
            max_gap=config.max_logprob_gap or (1e-3 if context.dtype == "float32" else 0.1),
        )
        engine.close()


def make_engine(
    context: Context, config: RolloutStage, tokenizer: Any, prompts: Prompts, benchmarks: Benchmarks
) -> Engine:
    """An engine with the stage's checkpoint, and room for its longest rollout or, where some are asked between the
    steps, that of its benchmarks."""
    job = context.job
    longest = max(prompts.longest + config.longest_completion, benchmarks.longest if job.evaluate_every else 0)
    kept = config.mismatch is not None and config.mismatch.support == "kept"
    return context.engine(
        job.checkpoint or "", tokenizer, config.engine, config.rollout, longest, lora=config.lora, kept=kept
    )


def make_feed(context: Context, config: RolloutStage, prompts: Prompts, seed: int) -> Feed:
    """Which prompts this rank asks, step by step."""
    return Feed(
        prompts,
        config.prompts_per_step,
        seed=seed,
        curriculum=getattr(config, "curriculum", None),
        rank=context.ranks.rank,
        world_size=context.ranks.world_size,
        gather=context.ranks.gather,
        say=context.say,
    )


def make_journal(context: Context, prompts: Prompts) -> Journal:
    """Where this rank keeps rollouts of unfinished steps."""
    return Journal(
        context.job.place.rollouts / "open",
        identity=f"{context.job.identity}:{prompts.fingerprint}",
        rank=context.ranks.rank,
        world_size=context.ranks.world_size,
        say=context.say,
    )


def make_policy(context: Context, config: RolloutStage) -> Policy:
    """The policy at the stage's start, its parent's optimizer included where it is inherited."""
    job, launch = context.job, Launch.from_environment(os.environ)
    sharding = launch.resolve(config.sharding)
    policy = Policy(
        Path(job.checkpoint or ""),
        config,
        ranks=context.ranks,
        dtype=context.dtype,
        total_steps=config.steps,
        gradient_checkpointing=config.gradient_checkpointing,
        chunk_tokens=config.logprob_chunk_tokens,
        sharding=sharding,
        lora=config.lora,
        seed=config.seed if config.seed is not None else job.seed,
    )
    check_running(policy, launch, sharding)
    if job.parent_optimizer is not None:
        policy.inherit_optimizer(job.parent_optimizer)
    return policy


def carry_out(run: RolloutRun, train: Callable[[RolloutRun, int], None]) -> None:
    """Resume, check the engine, ``train`` from the step reached, publish the checkpoint."""
    first_step = resume(run)
    check_engine(run)
    run.tracker = run.context.tracker(first_step)
    run.context.note_start(first_step)
    try:
        if run.progress:
            run.progress.begin(first_step)
        train(run, first_step)
    finally:
        for sink in (run.progress, run.tracker):
            if sink:
                sink.close()
    finish(run)


def check_engine(run: RolloutRun) -> None:
    """Before the first step: the engine, filled from the trainer, must agree with it about what it samples."""
    run.engine.load_weights(run.policy.named_weights(run.config.engine.sync_bucket_mib), version=0)
    gap = probe(run, prompts=4, tokens=8)
    if not gap <= 10 * run.max_gap:
        raise CascadeError(
            f"transformers and vLLM give different log-probs for checkpoint {run.context.job.checkpoint}: up to "
            f"{gap:.3g} per token on a probe (bound {10 * run.max_gap:g}). Its files do not mean the same to both; "
            "training on it would learn noise."
        )
    run.context.say(f"trainer and engine agree on the inherited weights (largest log-prob gap {gap:.1e})")


def probe(run: RolloutRun, prompts: int, tokens: int) -> float:
    """Largest log-prob gap over all ranks on a few fresh tokens. A collective call."""
    gap = probe_logprobs(
        run.policy,
        run.engine,
        run.prompts.probes(prompts),
        tokens=tokens,
        sampling=run.config.rollout,
        engine_temperature=run.engine.logprob_temperature,
    )
    return run.context.ranks.max(gap)


def sync(run: RolloutRun, version: int) -> None:
    """The trainer's weights into the engine as ``version``, and proof that it serves them (peers' engines have gone on
    with stale ones without a word: docs/pitfalls.md, 15). Raises CascadeError when it does not, twice."""
    for attempt in (1, 2):
        with run.trace.span("sync"):
            run.phase(f"weights of step {version} to the engine")
            sent = Fingerprint()
            weights = run.policy.named_weights(run.config.engine.sync_bucket_mib)
            run.engine.load_weights(sent.of(weights), version=version)
            gap = probe(run, prompts=1, tokens=2)
        if gap <= 10 * run.max_gap:
            run.journal.begin(version, sent.value)
            return
        what = f"after the weights of step {version} were loaded, engine and trainer differ by {gap:.3g} per token"
        run.context.say(f"WARNING: {what} on a probe (bound {10 * run.max_gap:g}); attempt {attempt} of 2")
    raise CascadeError(
        f"{what} on a probe, twice in a row (bound {10 * run.max_gap:g}). The engine says that it serves version "
        f"{run.engine.version}, the trainer is at {version}: it does not serve the weights that it was given. The last "
        "saved state is intact."
    )


def begin_step(run: RolloutRun, step: int) -> None:
    """Set the learning rate of ``step``, start its clock, and note the sampler's position in case the step is done
    again."""
    run.policy.begin_step(step)
    run.trace = Trace()
    run.position = run.sampler.state()


def tell_early_end(run: RolloutRun, step: int) -> None:
    """Say why the stage ends after ``step`` steps, where its recipe asked for more."""
    if run.switch.reason and step < run.config.steps:
        run.context.say(f"stopping after step {step} of {run.config.steps}: {run.switch.reason}")


def begin_again(run: RolloutRun, step: int) -> None:
    """Give up ``step`` as it was: the same prompts are asked again, and nothing drawn for it is kept."""
    run.journal.discard(step)
    run.sampler.restore(run.position)


def record(run: RolloutRun, step: int, groups: Sequence[Group], metrics: dict[str, float]) -> None:
    """Write the step down: rollouts, metrics, who waited for whom, benchmarks that are due, the progress line."""
    context = run.context
    archive(run, groups, step)
    metrics = metrics | engine_metrics(run.engine) | {metric: run.trace.seconds(lane) for lane, metric in LANES.items()}
    metrics["time/step_s"] = run.trace.now
    metrics["time/tokens_per_s"] = metrics["tokens/rollout"] / metrics["time/step_s"]
    every = context.job.evaluate_every
    if every and (step + 1) % every == 0 and step + 1 < run.config.steps:
        run.engine.load_weights(run.policy.named_weights(run.config.engine.sync_bucket_mib), version=step + 1)
        metrics |= run.benchmarks.values(run.engine)
    lines = context.ranks.gather(run.trace.line(step + 1, context.ranks.rank))
    if context.ranks.is_main:
        append_trace(context.job.place.trace, lines)
    if run.tracker:
        run.tracker.log(step + 1, metrics)
    if run.progress:
        run.progress.step(step + 1, metrics)
    run.switch.observe(metrics)


def engine_metrics(engine: Engine) -> dict[str, float]:
    """What an engine has to tell of itself: device memory at each phase (GPU), rollouts asked for again (servers)."""
    memory, again = getattr(engine, "memory", None), getattr(engine, "asked_again", None)
    return {**(memory.gib if memory else {}), **({} if again is None else {"rollouts/asked_again": float(again)})}


def archive(run: RolloutRun, groups: Sequence[Group], step: int) -> None:
    """Rollouts of all ranks into one file. A full disk costs the file, not the run."""
    shares = run.context.ranks.gather(rows_of(groups, step + 1))
    if run.context.ranks.is_main:
        try:
            write_rollouts(run.context.job.place.rollouts, step + 1, joined(shares))
        except OSError as error:
            run.context.say(f"WARNING: rollouts of step {step + 1} could not be written: {error}")


def save_if_due(run: RolloutRun, done: int) -> None:
    """A state every ``save_every`` steps and at the end, which may come early."""
    if done % run.config.save_every == 0 or done == run.config.steps or run.switch.reason:
        save(run, done)


def save(run: RolloutRun, done: int, position: dict[str, Any] | None = None) -> None:
    """State after ``done`` steps: with it the run goes on bit for bit (on CPU, with as many ranks)."""
    ranks = run.context.ranks
    if run.saved == done:
        return
    with run.trace.span("save"):
        rng = ranks.gather(states.rng_states())
        payload = {
            "step": done,
            "world_size": ranks.world_size,
            "sampler": position or run.sampler.state(),
            "switch": run.switch.state(),
            "skipped": run.skipped,
            "rng": rng,
        }

        def write(folder: Path) -> list[Path]:
            if ranks.is_main:
                torch.save(payload, folder / "state.pt")
            return [*run.policy.save(folder), *([folder / "state.pt"] if ranks.is_main else [])]

        if save_together(run.context, done, write):
            run.saved = done
            if ranks.is_main:
                run.journal.drop_before(done)
        ranks.barrier()


def resume(run: RolloutRun) -> int:
    """Load the newest whole state, if any; returns the number of steps done."""
    found = run.context.newest_state()
    if found is None:
        return 0
    step, folder = found
    try:
        payload = torch.load(folder / "state.pt", map_location="cpu", weights_only=False)
        run.policy.load(folder)
        run.sampler.restore(payload["sampler"])
        run.switch.restore(payload["switch"])
        run.skipped, run.saved = payload["skipped"], step
    except CascadeError:
        raise
    except Exception as error:
        raise CascadeError(f"state {folder} could not be loaded: {type(error).__name__}: {error}") from error
    ranks = run.context.ranks
    if payload["world_size"] == ranks.world_size:
        states.restore_rng(payload["rng"][ranks.rank])
    else:
        run.context.say(
            f"resumed with {ranks.world_size} ranks where {payload['world_size']} ran before: equal up to rounding"
        )
    of = f"{step} of {run.config.steps}"
    run.context.say(f"going on from step {of}; the engine is filled from the trainer's weights")
    return step


def finish(run: RolloutRun) -> None:
    """Publish the stage's result; the checkpoint comes last, since it is what says that the work is done."""
    context, ranks, place = run.context, run.context.ranks, run.context.job.place
    if run.policy.lora is not None:
        publish_adapter(context, run.policy)
    if context.job.keep_optimizer:
        with publishing_file(place.optimizer) if ranks.is_main else contextlib.nullcontext() as file:
            run.policy.save_optimizer(file)
    weights = run.policy.whole_state_dict(torch.bfloat16 if context.dtype == "bfloat16" else torch.float32)
    if ranks.is_main:
        with publishing_checkpoint(place) as folder:
            write_checkpoint(run.policy.model, run.tokenizer, run.template, folder, context.dtype, weights)
    ranks.barrier()
