"""What a step cannot be faster than: plain ``LLM.generate`` of the same requests, a plain loop over the same tokens.

``python -m benchmarks.grpo.raw SETTINGS.json``: what ``Side`` starts. It repeats what our side left in
``requests_file``: same prompts, seeds and lengths for the engine, same packed rows for the model. Nothing is
synced, scored, recorded, checked or saved.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.grpo.problem import Problem
from benchmarks.grpo.turns import Turns
from cascade_rl.rollout.vllm_engine import prepare_environment

prepare_environment(cpu=True, kv_cache_gib=1)

import torch
from transformers import AutoModelForCausalLM
from vllm import LLM, SamplingParams

from cascade_rl.training.attention import choose_attention
from cascade_rl.training.packing import MicroBatch, pack, training_sequence


def generate(llm: LLM, asked: Sequence[dict[str, Any]]) -> None:
    """The same requests, as long as they were."""
    llm.reset_prefix_cache()
    llm.generate(
        [{"prompt_token_ids": one["prompt_ids"]} for one in asked],
        [
            SamplingParams(
                seed=one["seed"],
                temperature=1.0,
                max_tokens=len(one["completion_ids"]),
                ignore_eos=True,
                logprobs=0,
                detokenize=False,
            )
            for one in asked
        ],
        use_tqdm=False,
    )


def rows_of(asked: Sequence[dict[str, Any]], budget: int) -> list[MicroBatch]:
    sequences = [
        training_sequence(one["prompt_ids"], one["completion_ids"], [0.0] * len(one["completion_ids"]), 1.0)
        for one in asked
    ]
    return pack(sequences, budget)


def learn(model: Any, optimizer: torch.optim.Optimizer, rows: Sequence[MicroBatch]) -> None:
    """Forward, backward, clip, update."""
    tokens = sum(len(row.targets) for row in rows)
    for row in rows:
        hidden = model.base_model(
            input_ids=row.input_ids, position_ids=row.position_ids, use_cache=False, cu_seq_lens_q=row.cu_seq_lens
        ).last_hidden_state[0]
        logits = hidden[row.predictors] @ model.get_output_embeddings().weight.T
        logprobs = logits.log_softmax(-1).gather(1, row.targets[:, None])
        (-logprobs.sum() / tokens).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem = Problem.read(settings)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(
        problem.model, dtype=torch.float32, attn_implementation=choose_attention(torch.device("cpu"))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=problem.learning_rate, weight_decay=0.0)
    llm = LLM(
        model=problem.model,
        dtype="float32",
        max_model_len=problem.context,
        max_num_seqs=256,
        max_num_batched_tokens=8192,
        enforce_eager=True,
        enable_chunked_prefill=False,  # as in our engine: seeds and chunks do not go together on a CPU
        generation_config="vllm",
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
    )
    turns = Turns()
    while True:
        turns.wait()
        asked = json.loads(Path(settings["requests_file"]).read_text())
        asked.sort(key=lambda one: (int(one["order"][0]), one["order"][1]))
        rows = rows_of(asked, problem.micro_batch_tokens)
        started = time.perf_counter()
        generate(llm, asked)
        between = time.perf_counter()
        learn(model, optimizer, rows)
        turns.report({"generation_s": between - started, "training_s": time.perf_counter() - between})


if __name__ == "__main__":
    main()
