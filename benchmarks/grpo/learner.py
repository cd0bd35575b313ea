"""TRL's side of the learning proof: ``python -m benchmarks.grpo.learner SETTINGS.json`` writes ``rewards.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.grpo.peer import arguments, repair_vllm
from benchmarks.grpo.problem import Problem

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOTrainer

from benchmarks.grpo.gym import sums
from cascade_rl.data.template import Template
from cascade_rl.recipe import TemplateConfig
from cascade_rl.rewarding.for_trl import trl_reward


class Curve(TrainerCallback):
    """The mean reward of each step."""

    def __init__(self) -> None:
        self.rewards: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "reward" in logs:
            self.rewards.append(float(logs["reward"]))


def rows(settings: dict[str, Any], tokenizer: Any) -> Dataset:
    """The stage's rows, rendered as the stage renders them."""
    template = Template(TemplateConfig(**settings["template"]), tokenizer)
    template.install()
    found = list(sums(split="train"))
    for row in found:
        row["prompt"] = template.prompt_text([{"role": "user", "content": row["question"]}])
    return Dataset.from_list([{key: row[key] for key in ("prompt", "entry", "dataset")} for row in found])


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem, folder = Problem.read(settings), Path(settings["folder"])
    torch.set_num_threads(1)
    repair_vllm()
    tokenizer = AutoTokenizer.from_pretrained(settings["checkpoint"])
    curve = Curve()
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(settings["checkpoint"], dtype=torch.float32),
        reward_funcs=trl_reward("rewards.reasoning_gym:verify", mode="instruct", workers=1),
        args=arguments(problem, "vllm", problem.rollouts // 2, folder, max_steps=settings["steps"]),
        train_dataset=rows(settings, tokenizer),
        processing_class=tokenizer,
        callbacks=[curve],
    )
    trainer.train()
    (folder / "rewards.json").write_text(json.dumps(curve.rewards))


if __name__ == "__main__":
    main()
