"""Processes of tests, forked from one that has imported torch, transformers and DeepSpeed.

A fresh process spends more on these imports than on a test of ranks. One server per pytest process imports them once and
forks the ranks that a test asks for: what they share is code, and no state of an earlier test.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.processes import die_with_parent

REPOSITORY = Path(__file__).parents[1]
_server: subprocess.Popen | None = None


def run(
    module: str, environments: Sequence[Mapping[str, str]], arguments: Sequence[str] = (), timeout_s: float = 300
) -> tuple[list[int], list[str]]:
    """Run ``python -m module ARGUMENTS`` in a forked process for each of ``environments``, all at the same time.

    Returns their exit codes and what each printed. A process that takes longer than ``timeout_s`` is killed: exit code
    -14.
    """
    global _server
    if _server is None or _server.poll() is not None:
        _server = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1",
                 "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
    assert _server.stdin is not None
    assert _server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"{folder}/{number}" for number in range(len(environments))]
        order = {
            "module": module, "arguments": list(arguments), "timeout_s": timeout_s,
            "processes": [{"output": path, "environment": dict(e)} for path, e in zip(outputs, environments, strict=True)],
        }  # fmt: skip
        _server.stdin.write(json.dumps(order) + "\n")
        _server.stdin.flush()
        answer = _server.stdout.readline()
        assert answer, "the process that forks others has ended"
        return json.loads(answer), [Path(path).read_text(errors="replace") for path in outputs]


def _begin(order: dict[str, Any], process: dict[str, Any]) -> None:
    """Become one of the processes; never returns."""
    code = 1
    try:
        die_with_parent(os.getppid())
        signal.alarm(int(order["timeout_s"]))
        descriptor = os.open(process["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(process["environment"])
        sys.argv = [order["module"], *order["arguments"]]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    """Fork the processes of each order on standard input; answer with their exit codes, in order."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what imports print is no answer
    with contextlib.suppress(ImportError):
        import deepspeed  # noqa: F401
    import tests.training.sharded  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        pids = []
        for process in order["processes"]:
            pid = os.fork()
            if pid == 0:
                answers.close()
                _begin(order, process)
            pids.append(pid)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), file=answers)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    _serve()
