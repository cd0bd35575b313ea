"""The package that users add domains to."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(code, folder, *path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_importing_the_maths_reward_is_light(tmp_path):
    code = "import sys, rewards.math; print([m for m in ('math_verify', 'sympy', 'pydantic') if m in sys.modules])"
    assert run(code, tmp_path, ROOT).stdout.strip() == "[]"


def test_a_folder_of_the_users_own_joins_the_package(tmp_path):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "mine.py").write_text(
        "from rewards.math import verify\ndef score(response, answer): return verify(response, answer=answer)"
    )
    code = """
from pathlib import Path
from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding import Scorer
from cascade_rl.source_code import project_files
from cascade_rl.types import Prompt, Rollout, Stop
for use in ("rewards.mine:score", "rewards.math:verify"):
    with Scorer(RewardConfig(use=use), [Path.cwd()], 1, False) as scorer:
        rollout = Rollout("p", 0, (1,), (0.0,), "\\\\boxed{2}", Stop.EOS, 0)
        print(scorer.submit(Prompt("p", (), {"answer": "2"}), rollout).result(60).value)
print(sorted(project_files("rewards.mine", [Path.cwd()])))
"""
    done = run(code, tmp_path, ROOT)
    *scores, files = done.stdout.splitlines()
    assert scores == ["1.0", "1.0"], done.stderr
    files = set(ast.literal_eval(files))
    assert {"rewards", "rewards.math", "rewards.math_spelling", "rewards.mine"} <= files
    assert {name.partition(".")[0] for name in files} == {"rewards"}
