"""Published answers against themselves and their neighbours; skipped where the sets are not at hand."""

import json
import os
from pathlib import Path

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding import Scorer
from cascade_rl.types import Prompt, Rollout, Stop
from rewards.math import verify

SHARED = Path(os.environ.get("CASCADE_RL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def rows(name):
    if not (SHARED / name).is_file():
        pytest.skip(f"no {name} in {SHARED}")
    return [json.loads(line) for line in (SHARED / name).read_text(encoding="utf-8").splitlines()]


def gsm8k():
    return [row["answer"].split("####")[1].strip() for row in rows("gsm8k-test.jsonl")]


def test_every_gsm8k_answer_equals_itself_and_not_its_neighbours():
    for place, answer in enumerate(gsm8k()):
        number = int(answer.replace(",", ""))
        for right in (answer, number, f"{number}.00", f"\\${number:,}", f"{number:,}".replace(",", "{,}")):
            assert verify(f"So \\boxed{{{right}}}.", answer=answer).value == 1.0, (answer, right)
        halves = [f"{number}.5"] if place % 20 == 0 else []  # decimals are for math-verify, which takes longer
        for wrong in (number + 1, -number if number else 1, number * 10 + 1, *halves):
            assert verify(f"So \\boxed{{{wrong}}}.", answer=answer).value == 0.0, (answer, wrong)


def test_a_gsm8k_sample_through_worker_processes():
    answers = gsm8k()[:200]
    with Scorer(RewardConfig(use="rewards.math:verify"), [], 2, thinking_default=True) as scorer:
        futures = [
            scorer.submit(
                Prompt(str(i), (), {"answer": answer}),
                Rollout(str(i), 0, (1,), (0.0,), f"<think>\\boxed{{0}}</think>\n\\boxed{{{answer}}}", Stop.EOS, 0),
            )
            for i, answer in enumerate(answers)
        ]
        assert {future.result(120).value for future in futures} == {1.0}
        assert scorer.summary()["calls"] == 200


def test_aime_answers_have_leading_zeros():
    for row in rows("aime24.jsonl"):
        assert verify(f"\\boxed{{{int(row['answer'])}}}", answer=row["answer"]).value == 1.0
        assert verify(f"\\boxed{{{int(row['answer']) + 1}}}", answer=row["answer"]).value == 0.0
