"""TRL's side: SFTTrainer on the same rows, step by step. ``python -m benchmarks.sft.peer SETTINGS.json``.

How is in ``benchmarks.sft.ways``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.offline.peer import InOrder, TakesTurns, common_arguments
from benchmarks.offline.problem import LONGEST
from benchmarks.sft.problem import Problem, tokens_per_step
from benchmarks.sft.ways import WAYS
from cascade_rl.stages.trl.sft import labelled
from cascade_rl.training.policy import load_model


class RowsInOrder(InOrder, SFTTrainer):
    """Rows come in the order they lie in; tokens and positions are counted."""


class BinsShuffled(RowsInOrder):
    """Packed bins come in a random order, as by TRL's default: in its own, all of the longest rows come first."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.RandomSampler(self.train_dataset, generator=torch.Generator().manual_seed(1))


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem, way = Problem(**settings["problem"]), WAYS[settings["side"]]
    torch.set_num_threads(1)
    batch = problem.batch
    if way.packing:  # as many tokens a step as the others have, in bins of the longest row's length
        batch = max(1, round(tokens_per_step(problem) / LONGEST))
    arguments = SFTConfig(
        **common_arguments(settings["folder"], batch, min(batch, way.passes)),
        max_length=LONGEST if way.packing else None,
        packing=way.packing,
        padding_free=way.padding_free,
        dataset_kwargs={"skip_prepare_dataset": not way.packing},
    )
    model: Any
    if way.segments:
        model = load_model(Path(problem.model), torch.device("cpu"))
    else:
        model = AutoModelForCausalLM.from_pretrained(problem.model, attn_implementation="sdpa", dtype=torch.float32)
    callback = TakesTurns(1)  # each pass divides its sum by the trained tokens of the whole step
    callback.trainer = trainer = (BinsShuffled if way.packing else RowsInOrder)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(labelled(problem.examples()))),
        processing_class=AutoTokenizer.from_pretrained(problem.model),
        callbacks=[callback],
    )
    trainer.train()


if __name__ == "__main__":
    main()
