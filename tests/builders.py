"""What tests of several files are made of: configurations, groups, ranks, contexts, runs."""

from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace

import torch

from cascade_rl.algorithms.logprobs import TokenScores
from cascade_rl.recipe import DistillStage, RlStage
from cascade_rl.rewarding.scorer import alone
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.stages.onpolicy.stop_when import Switch
from cascade_rl.stages.reporting import Reporter
from cascade_rl.stages.rl import Grpo
from cascade_rl.store import Job
from cascade_rl.tracking.trace import Trace
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import Group, Prompt, Rollout, Score, Stop

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
"""The ranks of a process without others."""


def rl_config(**keys) -> RlStage:
    base = {"name": "m", "data": [{"source": "x"}], "reward": {"use": "a:b"}, "learning_rate": 1e-6, "steps": 4}
    return RlStage.model_validate({**base, **keys})


def distill_config(**keys) -> DistillStage:
    base = {"name": "d", "data": [{"source": "x"}], "teacher": {"model": "m"}, "learning_rate": 1e-6, "steps": 4}
    return DistillStage.model_validate({**base, **keys})


def group(values, stops=None, errors=None, name="p", domain="", thinking=True, details=None) -> Group:
    """A group of rollouts of two tokens each, the first of which tells them apart, with these values."""
    stops, errors = stops or ["eos"] * len(values), errors or [None] * len(values)
    rollouts = [
        Rollout(name, i, (10 + i, 2), (-0.1, -0.2), "t", Stop(s), 0) for i, s in enumerate(stops)
    ]  # fmt: skip
    scores = [Score(v, details or {}, e) for v, e in zip(values, errors, strict=True)]
    prompt = Prompt(name, ({"role": "user", "content": "q"},), thinking=thinking, domain=domain)
    return Group(prompt, (1, 1, 1), rollouts, scores)


def sequences_of(groups, config) -> list:
    """What an RL stage of one rank learns from ``groups``, all in one list."""
    found = Grpo(config).sequences(dict(enumerate(groups)), alone)
    return [sequence for own in found.values() for sequence in own]


def scores_of(logprobs) -> TokenScores:
    """Scores of tokens with these log-probs, at any temperature, and an entropy of 0."""
    empty = TokenScores.empty(len(logprobs), logprobs.device)
    return dataclasses.replace(empty, logprobs=logprobs, raw_logprobs=logprobs, entropy=torch.zeros_like(logprobs))


def make_context(folder, out=None) -> Context:
    """The context of one rank, for a job in ``folder``; what it says goes to ``out``."""
    job = Job.model_validate(
        {"task": "stage", "run": "r", "name": "m", "identity": "i", "folder": folder, "recipe_path": "r.yaml",
         "model": "x", "template": {}, "seed": 1, "dtype": "auto"}
    )  # fmt: skip
    return Context(job, ALONE, StopFlag(), out or io.StringIO())


class NothingToSave:
    """A policy whose states are empty."""

    needs_lockstep = False
    state_bytes = 0

    def part(self, memory):
        return lambda folder: {}


def run_of(folder=None, **keys):
    """A ``RolloutRun`` of what the tested function needs; ``keys`` replace parts. ``out`` is what was said."""
    out = io.StringIO()
    parts = {
        "context": None if folder is None else make_context(folder, out),
        "config": rl_config(),
        "engine": SimpleNamespace(version=0, logprob_temperature=1.0),
        "policy": NothingToSave(),
        "sampler": SimpleNamespace(state=dict, restore=lambda state: None),
        "journal": SimpleNamespace(drop_before=lambda step: None),
        "reporter": Reporter(),
        "switch": Switch([], 5),
        "trace": Trace(),
        "position": {"at": 4},
        "max_gap": 1e-3,
        "skipped": 0,
        "resyncs": 0,
        "out": out,
        "tracker": None,
    }
    assert not set(keys) - {*parts, "prompts", "published"}, "a misspelt part would be ignored"
    return SimpleNamespace(**{**parts, **keys})


RL_RECIPE = """\
name: demo
model: tiny-qwen3
template: {mode: instruct}
stages:
  - name: rl
    kind: rl
    data: [{source: rl.jsonl}]
    reward: {use: "REWARD"}
    learning_rate: 1e-6
    steps: 2
"""
"""A recipe of one RL stage; more keys of it, or stages, may follow."""


def rl_recipe(reward: str, more: str = "") -> str:
    """``RL_RECIPE`` with ``reward`` as an import path."""
    return RL_RECIPE.replace("REWARD", reward) + more
