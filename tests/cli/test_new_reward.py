"""What `cascade-rl new-reward` writes works as it is written."""

import json
import subprocess
import sys

import pytest

from cascade_rl.cli.new_reward import write_domain
from cascade_rl.types import CascadeError
from tests.cli.test_cli import cli
from tests.messages import mentions


def test_all_of_it_works_in_a_folder_of_ones_own(tmp_path):
    made = cli("new-reward", "colours", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    for path in (
        "rewards/colours.py",
        "tests/rewards/test_colours.py",
        "recipes/colours.yaml",
        "recipes/colours.jsonl",
    ):
        assert mentions(made.stdout, path)
        assert "NAME" not in (tmp_path / path).read_text()
    checked = cli("check", "recipes/colours.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "warning" not in checked.stderr
    rows = [
        {"response": "Blue.", "answer": "blue"},
        {"response": "red", "answer": "blue"},
        {"response": "", "answer": ""},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = cli("score", "rewards.colours:score", "rows.jsonl", "--set", "mode=instruct", cwd=tmp_path)
    assert [json.loads(line)["value"] for line in scored.stdout.splitlines()] == [1.0, 0.0, None]
    # The folder's package has no __init__.py, so Python must know where ours is: it is installed.
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "5 passed" in tested.stdout, tested.stdout + tested.stderr


def test_nothing_is_overwritten(tmp_path):
    write_domain("colours", tmp_path)
    (tmp_path / "rewards" / "colours.py").unlink()
    with pytest.raises(CascadeError, match=r"tests/rewards/test_colours\.py, .*exists"):
        write_domain("colours", tmp_path)
    assert not (tmp_path / "rewards" / "colours.py").exists()


@pytest.mark.parametrize("name", ["two words", "Upper", "1st", "class", "a-b", "", "../up", "_own"])
def test_names_that_no_module_can_have(tmp_path, name):
    with pytest.raises(CascadeError, match="module"):
        write_domain(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_shipped_domain_is_not_shadowed(tmp_path):
    with pytest.raises(CascadeError, match=r"rewards\.math exists"):
        write_domain("math", tmp_path)
