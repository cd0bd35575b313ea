"""Programs may do what judges of competitions let them do: long integers and deep recursion."""

from __future__ import annotations

import pytest

from cascade_rl.rewarding.sandbox import Limits, command, function, open_sandbox, script

from .test_sandbox import BACKENDS, _at_level

CACHED = "from functools import cache\n@cache\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\n"


@pytest.fixture(scope="module", params=BACKENDS)
def sandbox(request):
    with _at_level("landlock") if request.param == "landlock" else open_sandbox(backend=request.param) as made:
        yield made


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        ("print(len(str(10**5000)), int('7' * 5000) % 10)", b"5001 7\n"),
        ("def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(49_000))", b"49000\n"),
        (f"{CACHED}print(f(20_000))", b"20000\n"),
        (f"import sys\nsys.setrecursionlimit(10**6)\n{CACHED}print(f(150_000))", b"150000\n"),
        (
            "import _thread, threading\nthreading.stack_size(512 << 20)\nassert _thread.stack_size() == 512 << 20\n"
            "t = threading.Thread(target=lambda: print(1))\nt.start()\nt.join()",
            b"1\n",
        ),
        (
            "import threading\nts = [threading.Thread(target=lambda: None) for _ in range(12)]\n"
            "for t in ts: t.start()\nfor t in ts: t.join()\nprint(len(ts))",
            b"12\n",
        ),
        ("import threading\ntry: threading.stack_size(5)\nexcept ValueError: print('refused')", b"refused\n"),
    ],
)
def test_deep_and_long(sandbox, source, printed):
    """Within 256 MiB: a stack counts by what is used of it."""
    outcome = sandbox.run(script(source), Limits(memory_mib=256))
    assert (outcome.status, outcome.stdout) == ("ok", printed), outcome


def test_functions_take_and_return_long_integers(sandbox):
    outcome = sandbox.run(function("def f(n): return n + 1", "f", f"[{'9' * 5000}]"))
    assert (outcome.status, outcome.value) == ("ok", b"1" + b"0" * 5000)


def test_room_for_stacks_is_bounded(sandbox):
    source = "import threading\nthreading.stack_size(4 << 30)\nt = threading.Thread(target=print)\nt.start()\nt.join()"
    assert sandbox.run(script(source), Limits(memory_mib=256)).status == "error"


def test_commands_have_the_usual_stack(sandbox):
    if sandbox.level != "namespaces":
        pytest.skip("commands need namespaces")
    asked = command(["python3", "-c", "import resource; print(resource.getrlimit(resource.RLIMIT_STACK)[0])"], {})
    assert sandbox.run(asked).stdout == b"%d\n" % (8 << 20)
