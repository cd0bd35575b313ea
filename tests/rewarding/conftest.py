import itertools
import textwrap
import time
from pathlib import Path

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding.loading import load_reward

_numbers = itertools.count()


class Project:
    """A user's folder with one reward module, whose name no other test has (modules stay imported)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = f"reward_under_test_{next(_numbers)}"

    def write(self, source: str, module: str | None = None) -> None:
        path = self.folder / f"{(module or self.module).replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def config(self, name: str = "score", **keys) -> RewardConfig:
        return RewardConfig(use=f"{self.module}:{name}", **keys)

    def load(self, source: str, name: str = "score", **keys):
        self.write(source)
        return load_reward(self.config(name, **keys), [self.folder])


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def state(pid: int) -> str | None:
    """The kernel's letter for a process (Z: a zombie), or None when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_until(condition, seconds: float = 60.0) -> bool:
    """A guard against hanging, not a bar: generous, since the machine is shared."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
