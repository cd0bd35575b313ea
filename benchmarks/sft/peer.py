"""TRL's side: SFTTrainer on the same rows, step by step. ``python -m benchmarks.sft.peer SETTINGS.json``.

The side's name says how: ``padded``, ``free`` (padding-free), ``free-segments`` (padding-free, with the attention of
our trainer, which computes each row by itself instead of under a mask), ``packed`` (bins of the longest row's length by
``packing``, padding-free, our attention). ``-quarter`` takes the batch in four passes.
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

from benchmarks.pairs.peer import InOrder, TakesTurns, common_arguments
from benchmarks.sft.problem import LONGEST, Problem, tokens_of
from cascade_rl.stages.trl.sft import labelled
from cascade_rl.training.policy import load_model


class RowsInOrder(InOrder, SFTTrainer):
    """Rows come in the order they lie in; tokens and positions are counted."""


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem, side = Problem(**settings["problem"]), settings["side"].removeprefix("trl-")
    passes, way = (4, side.removesuffix("-quarter")) if side.endswith("-quarter") else (1, side)
    torch.set_num_threads(1)
    rows = problem.rows()
    packed, batch = way == "packed", problem.batch
    if packed:  # as many tokens a step as the others have, in bins of the longest row's length
        batch = max(1, round(tokens_of(rows) / len(rows) * problem.batch / LONGEST))
    arguments = SFTConfig(
        **common_arguments(settings["folder"], batch, passes),
        max_length=LONGEST if packed else None,
        packing=packed,
        padding_free=way != "padded",
        dataset_kwargs={"skip_prepare_dataset": not packed},
    )
    model: Any
    if way in ("free-segments", "packed"):
        model = load_model(Path(problem.model), torch.device("cpu"))
    else:
        model = AutoModelForCausalLM.from_pretrained(problem.model, attn_implementation="sdpa", dtype=torch.float32)
    callback = TakesTurns(1)  # each pass divides its sum by the trained tokens of the whole step
    callback.trainer = trainer = RowsInOrder(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(labelled(rows))),
        processing_class=AutoTokenizer.from_pretrained(problem.model),
        callbacks=[callback],
    )
    trainer.train()


if __name__ == "__main__":
    main()
