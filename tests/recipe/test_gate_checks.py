"""What gates name must exist, and be something that can be asked for or compared with."""

from __future__ import annotations

import pytest

from tests.messages import says, says_each

TEXT = """\
name: tiny
model: tiny-qwen3
defaults: {sft: {data: [{source: rows.jsonl}], learning_rate: 1.0e-3, steps: 10}}
stages:
  - {name: sft-1, kind: sft}
  - {name: judge, kind: reward_model, data: [{source: rows.jsonl}], learning_rate: 1e-3, steps: 10}
  - {name: left, kind: sft, init: sft-1}
  - {name: right, kind: sft, init: sft-1}
  - {name: gone, kind: sft, skip: true}
evaluate:
  after_each_stage:
    - gsm8k
    - {use: aime24, name: aime-short}
gates:
  - benchmark: gsm8k
    max_drop: 3
"""


def test_valid_gates(load):
    text = TEXT + (
        "    compare_to: sft-1\n    after: [left, gone]\n"
        "    exceptions: [{name: known, stages: [right, gone], max_drop: 20}]\n"
        "  - {benchmark: aime-short, min_value: 10, compare_to: model}\n"
        "  - {benchmark: aime-short, max_drop: 10, compare_to: best, action: rollback}\n"
    )
    gates = load(text).recipe.gates
    assert [gate.compare_to for gate in gates] == ["sft-1", "model", "best"]


@pytest.mark.parametrize(
    ("lines", "place", "words"),
    [
        (["compare_to: sft-2"], "17: gates.0.compare_to", "'sft-2' previous best model sft-1"),
        (["compare_to: prevoius"], "17: gates.0.compare_to", "'prevoius' previous"),
        (["compare_to: judge"], "17: gates.0.compare_to", "judge reward model"),
        (["compare_to: gone"], "17: gates.0.compare_to", "gone skipped"),
        (["compare_to: right"], "17: gates.0.compare_to", "right descends"),
        (["compare_to: left", "after: [right]"], "17: gates.0.compare_to", "left before right"),
        (["compare_to: sft-1", "after: [sft-1, left]"], "17: gates.0.compare_to", "sft-1 before"),
        (["after: [left, rigth]"], "17: gates.0.after.1", "'rigth' right"),
        (["after: [judge]"], "17: gates.0.after.0", "judge reward model"),
        (["exceptions:", "  - {name: x, stages: [lft]}"], "18: gates.0.exceptions.0.stages.0", "'lft' left"),
        (["exceptions:", "  - {name: x, stages: [left]}", "  - {name: x, stages: [right]}"], "19: gates.0.exceptions.1.name", "another x"),
    ],
)  # fmt: skip
def test_what_gates_name_is_looked_for(problem, lines, place, words):
    found = problem(TEXT + "".join(f"    {each}\n" for each in lines))
    says(found, f"recipe.yaml:{place}", *words.split())


def test_a_benchmark_that_the_recipe_does_not_measure(problem):
    found = problem(TEXT.replace("benchmark: gsm8k", "benchmark: gsm8"))
    says(found, "recipe.yaml:15: gates.0.benchmark", "'gsm8'", "gsm8k", "evaluate.after_each_stage")
    found = problem(TEXT.replace("benchmark: gsm8k", "benchmark: ifeval"))
    says(found, "recipe.yaml:15: gates.0.benchmark", "'ifeval'", "gsm8k", "aime-short")


def test_an_exception_to_a_drop_that_the_gate_does_not_limit(problem):
    text = TEXT.replace("max_drop: 3", "min_value: 3")
    found = problem(f"{text}    exceptions: [{{name: x, stages: [left], max_drop: 3}}]\n")
    says(found, "recipe.yaml:17: gates.0.exceptions.0.max_drop", "gate", "`max_drop`")


def test_a_base_model_that_is_not_measured(problem):
    text = TEXT.replace("evaluate:\n", "evaluate:\n  base_model: false\n")
    says(problem(f"{text}    compare_to: model\n"), "recipe.yaml:18: gates.0.compare_to", "evaluate.base_model")


def test_gates_and_stages_are_told_of_together(problems):
    found = problems(
        TEXT.replace("kind: sft, init: sft-1}", "kind: sft, init: sft-1, stepz: 3}", 1) + "    after: [rigth]\n"
    )
    says_each(found, ("recipe.yaml:7: stages.left.stepz", "unknown"), ("recipe.yaml:17: gates.0.after.0", "'rigth'"))
    says(problems(TEXT + "    after: 3\n")[0], "recipe.yaml:17: gates.0.after", "list", "3")
