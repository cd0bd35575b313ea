"""A source whose first rows are odd is refused by `check` only where the stage could not start from it either."""

import json
import sys

import pytest

from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.orchestrator.trials import try_rewards
from cascade_rl.recipe import RecipeError, load_recipe

RECIPE = """\
name: demo
model: tiny-qwen3
template: {mode: instruct}
stages:
  - {name: sft, kind: sft, data: [{source: sft.jsonl}], learning_rate: 1e-3, steps: 2, batch_size: 2, max_length: 64}
  - name: rm
    kind: reward_model
    init: model
    data: [{source: pairs.jsonl}]
    learning_rate: 1e-3
    steps: 2
    batch_size: 2
    max_length: 64
  - name: rl
    kind: rl
    init: sft
    data: [{source: rl.FORMAT}]
    exclude: [{data: [{source: out.jsonl}]}]
    rewards: {math: {use: "row_checks_grader:score"}}
    learning_rate: 1e-6
    steps: 2
    prompts_per_step: 4
"""
IMAGE = {"messages": [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "a"}]}
GOOD = {
    "sft": {"prompt": "q", "response": "a"},
    "pairs": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "rl": {"prompt": "q", "answer": "4", "domain": "math"},
    "out": {"prompt": "other"},
}
ODD = {
    "image rows": ("sft", IMAGE),
    "no response": ("sft", {"prompt": "q"}),
    "equal pairs": ("pairs", {"prompt": "q", "chosen": "a", "rejected": "a"}),
    "null answer": ("rl", {"prompt": "q", "answer": None, "domain": "math"}),
    "no prompt, no domain": ("rl", {"prompt": None, "answer": "4"}),
    "excluded, no question": ("out", {"prompt": None}),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "row_checks_grader.py").write_text("def score(response, answer): return float(response == answer)\n")
    for name, row in GOOD.items():
        write(tmp_path / f"{name}.jsonl", [row])
    yield tmp_path
    sys.modules.pop("row_checks_grader", None)


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def checked(folder, file="jsonl"):
    (folder / "r.yaml").write_text(RECIPE.replace("FORMAT", file))
    loaded = load_recipe(folder / "r.yaml")
    preflight(loaded, 1)
    try_rewards(loaded)


@pytest.mark.parametrize("odd", ODD)
def test_odd_first_rows_do_not_stop_a_recipe(folder, odd):
    name, row = ODD[odd]
    write(folder / f"{name}.jsonl", [row] * 120 + [GOOD[name]] * 3)
    checked(folder)


def test_a_null_in_the_first_rows_of_a_table(folder):
    write(folder / "rl.parquet", [ODD["null answer"][1]] * 120 + [GOOD["rl"]] * 3)
    checked(folder, "parquet")


@pytest.mark.parametrize(
    ("odd", "word"),
    [
        ("image rows", "row 0 of sft.jsonl"),
        ("no response", "response"),
        ("equal pairs", "pairs.jsonl"),
        ("null answer", "answer"),
        ("excluded, no question", "out.jsonl"),
    ],
)
def test_rows_of_which_none_can_be_used_stop_it(folder, odd, word):
    name, row = ODD[odd]
    write(folder / f"{name}.jsonl", [row] * 20)
    with pytest.raises(RecipeError, match=word):
        checked(folder)


def test_a_usable_row_of_an_unknown_domain_stops_it(folder):
    write(folder / "rl.jsonl", [GOOD["rl"]] * 20 + [{**GOOD["rl"], "domain": "code"}])
    with pytest.raises(RecipeError, match="'code'"):
        checked(folder)


def test_no_more_rows_are_read_than_needed(folder):
    """A row that cannot be read, far behind the first usable ones, is left to the stage."""
    (folder / "sft.jsonl").write_text(json.dumps(GOOD["sft"]) + "\nbroken\n")
    checked(folder)
