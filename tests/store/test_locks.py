import os
import subprocess
import sys

import pytest

from cascade_rl.store.locks import hold
from cascade_rl.types import CascadeError

HOLDER = (
    "import sys; from pathlib import Path; from cascade_rl.store.locks import hold\n"
    "with hold(Path(sys.argv[1]), 'it'):\n    print('held', flush=True); sys.stdin.read()\n"
)


def test_a_second_holder_is_told_who_has_it(tmp_path):
    path = tmp_path / "lock"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "held\n"
    with pytest.raises(CascadeError, match=rf"run 'x' is in use by process {first.pid} on"), hold(path, "run 'x'"):
        pass
    first.kill()  # however it ends, the lock goes with it
    first.wait()
    with hold(path, "run 'x'"):
        assert str(os.getpid()) in path.read_text()
    first.stdin.close()
    first.stdout.close()
