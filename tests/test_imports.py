"""Imports point one way. The table is the house's plan: whoever needs a new arrow changes it here, in the open."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IN_THE_SANDBOX = ROOT / "cascade_rl" / "rewarding" / "sandbox" / "inside"
"""Started under another name, in an interpreter that has nothing else of ours: its imports are relative."""
BASE = {
    "types",
    "processes",
    "fingerprints",
    "importing",
    "type_words",
    "arguments",
    "source_code",
    "json_lines",
    "rows",
}
ALLOWED = {
    "types": set(),
    "processes": {"types"},
    "importing": {"types"},
    "type_words": set(),
    "arguments": {"type_words"},
    "fingerprints": set(),
    "source_code": {"importing", "fingerprints"},
    "json_lines": set(),
    "rows": set(),
    "recipe": {"types"},
    "algorithms": {"types"},
    "data": {"recipe"},
    "rollout": {"recipe", "algorithms"},
    # How a row asks and how its texts are broken up: the same for rewards as for the stages that learn from it.
    "rewarding": {"recipe", "algorithms", "data.asking", "data.defusing"},
    "training": {"recipe", "algorithms"},
    "models": {"recipe", "data"},
    "store": {"recipe"},
    "tracking": {"recipe"},
    "evals": {"recipe", "data", "rollout", "rewarding", "store"},
    # What identities are made of: read by the plan, and again by each stage's process. No torch.
    "inputs": {"recipe", "data.exclusion", "data.sources", "rewarding.loading", "store"},
    "stages": {
        "recipe",
        "inputs",
        "algorithms",
        "data",
        "rollout",
        "rewarding",
        "training",
        "models",
        "store",
        "tracking",
        "evals",
    },
    "report": {"recipe", "store"},
    # The orchestrator reads the torch-free parts of data, rewards, benchmarks and losses.
    "orchestrator": {
        "recipe",
        "inputs",
        "store",
        "tracking",
        "algorithms.loading",
        "algorithms.trial",
        "data.preferences",
        "data.exclusion",
        "data.questions",
        "data.refusals",
        "data.sources",
        "rewarding.binding",
        "rewarding.loading",
        "rewarding.trial",
        "evals.registry",
        "models",
    },
    # Decontamination is a command of its own: rows, and the benchmarks they are compared with.
    "cli": {"orchestrator", "report", "recipe", "store", "rewarding", "data.decontamination", "evals.registry"},
    "__main__": {"cli"},
}


PUBLIC = (
    "cascade_rl.types", "cascade_rl.importing", "cascade_rl.rewarding", "cascade_rl.rewarding.sandbox",
    "cascade_rl.rewarding.nested", "cascade_rl.rewarding.reward_model", "cascade_rl.rewarding.reward_text",
    "cascade_rl.rewarding.response",
)  # fmt: skip
"""What rewards may use of the framework."""


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and IN_THE_SANDBOX in path.parents:
            assert node.level < 2, f"{path}:{node.lineno}: nothing of ours is there but its own modules"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "cascade_rl").parts[0].removesuffix(".py")


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_imports_point_one_way(room):
    wrong = []
    for path in (ROOT / "cascade_rl").rglob("*.py"):
        if room_of(path) != room:
            continue
        for line, module in imports(path):
            if not module.startswith("cascade_rl.") or module.startswith(f"cascade_rl.{room}"):
                continue
            target = module.removeprefix("cascade_rl.")
            allowed = ALLOWED[room] | (BASE if room not in BASE else set())
            if not any(target == name or target.startswith(f"{name}.") for name in allowed):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}; {room} may import {sorted(allowed)}")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_on_the_plan():
    rooms = {room_of(path) for path in (ROOT / "cascade_rl").rglob("*.py")} - {"__init__"}
    assert rooms <= set(ALLOWED)


def test_rewards_use_public_names_only_and_the_framework_names_no_domain():
    for path in (ROOT / "rewards").rglob("*.py"):
        for line, module in imports(path):
            if module.startswith("cascade_rl"):
                assert module in PUBLIC, f"{path}:{line}"
    for path in (ROOT / "cascade_rl").rglob("*.py"):
        assert not any(module.partition(".")[0] == "rewards" for _, module in imports(path)), path


@pytest.mark.parametrize(
    "module", ["cascade_rl.cli.main", "cascade_rl.orchestrator.run", "cascade_rl.data.sources", "cascade_rl.rewarding"]
)
def test_light_rooms_load_nothing_heavy(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'vllm', 'datasets', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_no_machine_paths_or_giant_files_are_committed():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout")
    marks = ["/" + name + "/" for name in ("work", "farm", "root")]
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix in (".py", ".md", ".sh", ".yaml", ".toml", ".txt", ".json"):
            text = path.read_text(errors="replace")
            assert not any(mark in text for mark in marks), f"{name} names a folder of one machine"
        assert not path.is_file() or path.stat().st_size < 2_000_000, name
