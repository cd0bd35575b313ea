"""The record of a stage that learns from its own rollouts: what is open, and where the step in progress stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cascade_rl.data.template import Template
from cascade_rl.recipe import RolloutStage
from cascade_rl.rollout.engine import Engine
from cascade_rl.stages.context import Context
from cascade_rl.stages.measure import Benchmarks
from cascade_rl.stages.onpolicy.collect import Collector
from cascade_rl.stages.onpolicy.feed import Feed
from cascade_rl.stages.onpolicy.journal import Journal
from cascade_rl.stages.onpolicy.prompts import Prompts
from cascade_rl.stages.onpolicy.stop_when import Switch
from cascade_rl.stages.reporting import Reporter
from cascade_rl.tracking import Tracker
from cascade_rl.tracking.trace import Trace
from cascade_rl.training.policy import Policy


@dataclass
class RolloutRun:
    """What the loop works with. The keys of one kind of stage alone are the method's business (``Method.config``)."""

    context: Context
    config: RolloutStage
    tokenizer: Any  # transformers' tokenizers have no common type
    template: Template
    policy: Policy
    engine: Engine
    sampler: Feed
    prompts: Prompts
    collector: Collector
    journal: Journal
    benchmarks: Benchmarks
    reporter: Reporter
    switch: Switch
    max_gap: float
    """Largest mean |trainer - engine| log-prob of a step."""
    tracker: Tracker | None = None
    trace: Trace = field(default_factory=Trace)
    """Of the step in progress."""
    position: dict[str, Any] = field(default_factory=dict)
    """Of the sampler, before the step in progress drew its prompts."""
    skipped: int = 0
    """Steps in a row whose update was skipped."""
    resyncs: int = 0
    """How often the step in progress was begun again because trainer and engine disagreed."""
