"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from cascade_rl.recipe import OptimizerConfig


def learning_rate_factor(step: int, config: OptimizerConfig, total_steps: int) -> float:
    """Learning rate of training step ``step`` (0-based) as a share of ``config.learning_rate``.

    A step of rollouts may be cut into several updates (``updates_per_batch``): they all have the rate of their step.

    Linear warm-up over ``warmup_steps`` (the first step already moves), then constant, or a cosine or linear decay
    to ``min_learning_rate`` at ``lr_horizon_steps`` (default ``total_steps``). A horizon beyond the run ends it at
    a high rate on purpose: the published SFT runs 20K steps of a 100K horizon (P1 table 14).
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return 1.0
    horizon = config.lr_horizon_steps or total_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, horizon - config.warmup_steps))
    floor = config.min_learning_rate / config.learning_rate
    share = 0.5 * (1 + math.cos(math.pi * progress)) if config.lr_schedule == "cosine" else 1 - progress
    return floor + (1 - floor) * share
