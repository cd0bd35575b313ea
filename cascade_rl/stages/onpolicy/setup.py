"""Opening everything a stage needs that learns from its own rollouts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from cascade_rl.inputs import search_path
from cascade_rl.recipe import RolloutStage
from cascade_rl.rollout.engine import Engine
from cascade_rl.stages.checkpoints.handover import load_tokenizer
from cascade_rl.stages.context import Context
from cascade_rl.stages.measure import Benchmarks
from cascade_rl.stages.onpolicy.collect import Collector
from cascade_rl.stages.onpolicy.feed import Feed
from cascade_rl.stages.onpolicy.journal import Journal
from cascade_rl.stages.onpolicy.method import Method
from cascade_rl.stages.onpolicy.open_step import StepParts
from cascade_rl.stages.onpolicy.options import RolloutOptions
from cascade_rl.stages.onpolicy.prompts import Prompts, load_prompts
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.onpolicy.scoring import GroupScorer
from cascade_rl.stages.onpolicy.stop_when import Switch
from cascade_rl.stages.policies import make_policy
from cascade_rl.stages.reporting import Reporter
from cascade_rl.stages.unchanged import refuse_changes
from cascade_rl.stages.watchdog import Watchdog


@contextlib.contextmanager
def opened(context: Context, method: Method) -> Iterator[RolloutRun]:
    """The stage of ``context.job`` with model, engine, prompts and scorers open; nothing is resumed yet. A collective
    call."""
    job, ranks, config = context.job, context.ranks, method.config
    assert job.checkpoint is not None
    tokenizer, template = load_tokenizer(job.checkpoint, job.template)
    search = search_path(job.recipe_path)
    prompts = load_prompts(context, config, template)
    method.check_prompts(prompts.prompts, search)
    policy = make_policy(context, config, config.steps)
    seed = job.stage_seed
    feed = make_feed(context, config, method.options, prompts, seed)
    progress = context.progress(config.steps)
    watchdog = Watchdog(job.stage_folder.logs, ranks.rank, config.stall_timeout_s, context.say_anywhere)
    reporter = Reporter(watchdog, progress)
    journal = make_journal(context, prompts)
    with (
        watchdog,
        method.open_scorer(context, template, search) as scorer,
        Benchmarks(context, template, search, live=True) as benchmarks,
    ):
        refuse_changes(job, ranks)  # all that is read has been read by now
        for note in config.notes():
            context.say(note)
        engine = make_engine(context, config, tokenizer, prompts, benchmarks)
        parts = StepParts(
            config=config,
            options=method.options,
            seed=seed,
            engine=engine,
            feed=feed,
            scorer=GroupScorer(scorer, method.options.overlong, method.shape),
            stop=context.stop,
            journal=journal,
            reporter=reporter,
        )
        run = RolloutRun(
            context=context,
            config=config,
            tokenizer=tokenizer,
            template=template,
            policy=policy,
            engine=engine,
            sampler=feed,
            prompts=prompts,
            collector=Collector(parts, gather=ranks.gather, say=context.say),
            journal=journal,
            benchmarks=benchmarks,
            reporter=reporter,
            switch=Switch(config.stop_conditions, config.stop_window or 5),
            max_gap=config.max_logprob_gap or (1e-3 if context.dtype == "float32" else 0.1),
        )
        method.prepare(run)
        yield run
        engine.close()


def make_engine(
    context: Context, config: RolloutStage, tokenizer: Any, prompts: Prompts, benchmarks: Benchmarks
) -> Engine:
    """An engine with the stage's checkpoint, and room for its longest rollout or, where benchmarks are measured between
    the steps, for theirs. A collective call."""
    job = context.job
    longest = max(prompts.longest + config.longest_completion, benchmarks.longest if job.evaluate_every else 0)
    kept = config.mismatch is not None and config.mismatch.support == "kept"
    return context.engine(
        job.checkpoint or "", tokenizer, config.engine, config.rollout, longest, lora=config.lora, kept=kept
    )


def make_feed(context: Context, config: RolloutStage, options: RolloutOptions, prompts: Prompts, seed: int) -> Feed:
    """Which prompts this rank asks, step by step."""
    return Feed(
        prompts,
        config.prompts_per_step,
        seed=seed,
        curriculum=options.curriculum,
        rank=context.ranks.rank,
        world_size=context.ranks.world_size,
        gather=context.ranks.gather,
        say=context.say,
    )


def make_journal(context: Context, prompts: Prompts) -> Journal:
    """Where this rank keeps rollouts of unfinished steps."""
    return Journal(
        context.job.stage_folder.rollouts / "open",
        identity=f"{context.job.identity}:{prompts.fingerprint}",
        rank=context.ranks.rank,
        world_size=context.ranks.world_size,
        say=context.say,
    )
