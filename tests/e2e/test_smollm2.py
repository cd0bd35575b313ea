"""The real-model recipe: two steps of RL on real GSM8K rows with SmolLM2-135M."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import cascade

SHARED = Path(os.environ.get("CASCADE_RL_SHARED_DATA", cascade.REPOSITORY.parent / "shared" / "data"))

OWN_ROWS = [
    {"question": "Tom has 3 apples and buys 4 more. How many has he?", "answer": "3 + 4 = 7 #### 7"},
    {"question": "A box holds 6 eggs. How many eggs are in 5 boxes?", "answer": "6 * 5 = 30 #### 30"},
]


@pytest.mark.slow
def test_two_steps_on_real_rows(tmp_path):
    rows = tmp_path / "rows.jsonl"
    real = SHARED / "gsm8k-test.jsonl"
    lines = real.read_text().splitlines()[:8] if real.is_file() else [json.dumps(row) for row in OWN_ROWS]
    rows.write_text("\n".join(lines) + "\n")
    changes = {
        "stages.gsm8k-rl.data.0": json.dumps(
            {
                "source": str(rows),
                "extract": {"answer": r"####\s*(.*?)\s*$"},
                "prompt": "{question}\n\nGive the number only.",
            }
        ),
        "stages.gsm8k-rl.reward.use": "tests.e2e.digits:share",  # an untuned 135M model rarely boxes: here variance matters
        "stages.gsm8k-rl.prompts_per_step": "1",
        "stages.gsm8k-rl.group_size": "4",
        "stages.gsm8k-rl.steps": "2",
        "stages.gsm8k-rl.warmup_steps": "0",
        "stages.gsm8k-rl.rollout.max_new_tokens": "128",
        "evaluate.after_each_stage": "[]",
    }
    arguments = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    result = subprocess.run(
        [sys.executable, "-m", "cascade_rl", "run", "recipes/smollm2-135m.yaml", "--root", str(tmp_path), *arguments],
        cwd=cascade.REPOSITORY, env={**cascade.environment(), "CASCADE_RL_THREADS": "2"}, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    rows = cascade.metrics(tmp_path, "gsm8k-rl", run="smollm2-135m")
    assert [row["step"] for row in rows] == [1, 2]
    taught = [row for row in rows if row["grad_norm"] > 0]  # a step whose groups all agree teaches and measures nothing
    assert taught
    for row in taught:
        assert row["sampling/logprob_gap_mean"] < 1e-4
        assert row["policy/entropy"] < 4.0  # a pretrained model; random weights over 49K tokens would be near 10.8
