"""The sandbox with programs that mean well."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from cascade_rl.rewarding.sandbox import Limits, Sandbox, SandboxError, command, function, open_sandbox, script

from .test_hostile import _at_level, _is_running


def _has_bubblewrap() -> bool:
    try:
        open_sandbox(backend="bubblewrap").close()
    except SandboxError:
        return False
    return True


BACKENDS = [
    "own",
    "landlock",
    pytest.param("bubblewrap", marks=pytest.mark.skipif(not _has_bubblewrap(), reason="not installed")),
]


@pytest.fixture(scope="module", params=BACKENDS)
def sandbox(request):
    with _at_level("landlock") if request.param == "landlock" else open_sandbox(backend=request.param) as made:
        yield made


@pytest.fixture
def commands(sandbox):
    """A sandbox that takes commands."""
    if sandbox.level != "namespaces":
        pytest.skip("commands need namespaces")
    return sandbox


@pytest.mark.parametrize(
    ("source", "given", "printed"),
    [
        ("print(int(input()) + 1)", "41", "42\n"),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", "1 2\n3\n", "6\n"),
        ("import sys\nprint(sys.stdin.buffer.readline())", "a\nb", "b'a\\n'\n"),
        ("print(open(0).read())", "x", "x\n"),
        ("import os\nos.write(1, os.read(0, 9))", "raw", "raw"),
        ("print('grüße', input())", "日本", "grüße 日本\n"),
        ("if __name__ == '__main__':\n    print('main')", "", "main\n"),
        ("print(int(input()) + 1)\nexit()", "41", "42\n"),
        ("print(1)\nquit(0)\nprint(2)", "", "1\n"),
        ("import sys\nprint(sys.stdin.mode, sys.stdout.mode)", "", "r w\n"),
        ("def f(x: int): pass\nprint(f.__annotations__['x'](3.5))", "", "3\n"),
        ("import sys\nprint('no line break', end='')\nsys.exit(0)", "", "no line break"),
        ("import threading\nt = threading.Thread(target=print, args=(5,))\nt.start()", "", "5\n"),
        ("import atexit\natexit.register(print, 'bye')", "", "bye\n"),
        (
            "import sys\nsys.setrecursionlimit(50_000)\nf = lambda n: n and 1 + f(n - 1)\nprint(f(20_000))",
            "",
            "20000\n",
        ),
        (
            "from collections import *\nimport heapq, itertools, bisect, math, re, string\nprint(Counter('aab')['a'])",
            "",
            "2\n",
        ),
        ("import ast, zlib, random, dataclasses, typing, unittest\nprint(random.randint(1, 1))", "", "1\n"),
        ("class A:\n    x: int = 3\nprint(A.__module__, A().x)", "", "__main__ 3\n"),
        ("from typing import *\ndef f(x: Optional[List[int]]) -> int: return 4\nprint(f(None))", "", "4\n"),
        ("print('a', flush=True)\nprint(*'bc', sep='-', end='!')", "", "a\nb-c!"),
        ("try:\n    while True: print(int(input()) * 2)\nexcept EOFError: print('end')", "1\n2", "2\n4\nend\n"),
        ("import sys\nfor line in sys.stdin: sys.stdout.write(line[::-1])", "ab\ncd", "\nbadc"),
        ("import sys\nprint(len(sys.stdin.buffer.read()), sys.stdin.read() == '')", "é" * 5, "10 True\n"),
        (
            "import io, os\nread = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\nprint(read())",
            "x\n",
            "b'x\\n'\n",
        ),
        (
            "import sys\ninput = sys.stdin.readline\nn = int(input())\nprint(sum(map(int, input().split())) + n)",
            "1\r\n2 3\r\n",
            "6\n",
        ),
        ("name = input('your name? ')\nprint(name)", "x", "your name? x\n"),
        ("import sys\nsys.stdout = open(1, 'w')\nprint('reopened')\nsys.stdout.flush()", "", "reopened\n"),
        ("import io, sys\nout = io.StringIO()\nprint(7, file=out)\nsys.stdout.write(out.getvalue())", "", "7\n"),
        (
            "from dataclasses import dataclass, field\n@dataclass(order=True, slots=True)\nclass P:\n    x: int = 0\n"
            "    l: list = field(default_factory=list)\nprint(max(P(1), P(2)))",
            "",
            "P(x=2, l=[])\n",
        ),
        (
            "from enum import Enum\nfrom abc import ABC, abstractmethod\nclass A(ABC):\n    @abstractmethod\n"
            "    def f(self): ...\nclass B(A):\n    def f(self): return type(self).__name__\nprint(B().f())",
            "",
            "B\n",
        ),
        (
            "def tree(n):\n    if n:\n        yield from tree(n - 1)\n    yield n\nprint(sum(x for x in tree(200)))",
            "",
            "20100\n",
        ),
        # As recursive solutions of contests begin: a thread with a stack of 128 MiB, and calls 100,000 deep.
        (
            "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\n"
            "def f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
            "def main(): print(f(100_000))\nt = threading.Thread(target=main)\nt.start()\nt.join()",
            "",
            "100000\n",
        ),
        # Deep in C as well: every second call goes through sorted.
        (
            "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**28)\n"
            "def f(n): return 0 if n == 0 else sorted([n], key=lambda _: f(n - 1))[0]\n"
            "t = threading.Thread(target=lambda: print(f(20_000)))\nt.start()\nt.join()",
            "",
            "20000\n",
        ),
        (
            "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(8) as pool:\n"
            "    print(sum(pool.map(lambda x: x * x, range(10))))",
            "",
            "285\n",
        ),
        ("import asyncio\nasync def f(): await asyncio.sleep(0); return 3\nprint(asyncio.run(f()))", "", "3\n"),
        ("import signal\nsignal.alarm(0)\nimport time, os, uuid, tempfile, secrets\nprint(os.getcwd())", "", "/tmp\n"),
        ("import sys\nsys.set_int_max_str_digits(0)\nprint(len(str(3**20000)))", "", "9543\n"),
        ("import multiprocessing, subprocess, concurrent.futures\nprint('imported')", "", "imported\n"),
        (
            "import gc, resource\ngc.disable()\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 20, -1))\nprint(1)",
            "",
            "1\n",
        ),
        (
            "import sys\nprint('to errors', file=sys.stderr)\nprint(sys.argv, __name__)",
            "",
            "['/tmp/program.py'] __main__\n",
        ),
        ("import os, sys\nprint(sys.stdin.fileno(), os.isatty(1), sys.stdout.encoding)", "", "0 False utf-8\n"),
        ("print({'b', 'a', 'c'} == set('abc'), 10**50)", "", "True 1" + "0" * 50 + "\n"),
        ("", "", ""),
    ],
)
def test_scripts_run_as_python_runs_them(sandbox, source, given, printed):
    outcome = sandbox.run(script(source, given))
    assert (outcome.status, outcome.stdout.decode()) == ("ok", printed), outcome


def test_a_megabyte_in_and_out(sandbox):
    numbers = " ".join(map(str, range(150_000)))
    for source in ("print(input())", "import sys\nsys.stdout.write(sys.stdin.read() + '\\n')",
                   "import os\nos.write(1, open(0, 'rb').read() + b'\\n')",
                   "for x in input().split(): print(x, end=' ')"):  # fmt: skip
        outcome = sandbox.run(script(source, numbers))
        assert outcome.status == "ok"
        assert outcome.stdout.split() == numbers.encode().split()


def test_a_small_limit_is_what_the_program_may_take(sandbox):
    """Not the interpreter, of which a program that adds two numbers takes next to nothing."""
    small = Limits(memory_mib=16)
    assert sandbox.run(script("a, b = map(int, input().split())\nprint(a + b)", "1 2"), small).stdout == b"3\n"
    assert sandbox.run(script("x = bytearray(200 << 20)"), small).status == "memory"


def test_writers_at_once_lose_nothing():
    with Sandbox(require="namespaces") as sandbox:
        lines = "for i in 1 2 3 4; do (for j in $(seq 500); do echo line; done) & done; wait"
        assert sandbox.run(command(["sh", "-c", lines], {}, sandbox.environment())).stdout == b"line\n" * 2000


@pytest.mark.parametrize("path", ["n" * 300 + ".py", "deep/" * 60 + "n" * 300, "huge.txt"])
def test_files_that_do_not_fit_fail_the_test_not_the_sandbox(commands, path):
    """They may be of a model's making."""
    content = "x" * (40 << 20) if path == "huge.txt" else ""
    outcome = commands.run(command(["true"], {path: content}))
    assert outcome.status == "error"
    assert b"cannot be written" in outcome.stderr


def test_a_scratch_folder_of_its_own_that_is_empty_next_time():
    source = "import os, tempfile\nprint(os.listdir('.'))\nopen('mine', 'w').write('x')\nprint(tempfile.mkdtemp()[:5])"
    with Sandbox(require="namespaces") as sandbox:
        for _ in range(2):
            assert sandbox.run(script(source)).stdout == b"[]\n/tmp/\n"


@pytest.mark.parametrize(
    ("source", "status", "says"),
    [
        ("1/0", "error", "ZeroDivisionError: division by zero"),
        ("print(", "error", "SyntaxError"),
        ("raise SystemExit(3)", "error", ""),
        ("raise SystemExit('told')", "error", "told"),
        ("import nothing_of_this_name", "error", "ModuleNotFoundError"),
        ("while True: pass", "time", ""),
        ("import time\ntime.sleep(60)", "time", ""),
        ("x = bytearray(1 << 30)", "memory", "MemoryError"),
        ("print('x' * (1 << 20))", "output", ""),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "error", ""),
    ],
)
def test_how_programs_fail(sandbox, source, status, says):
    limits = Limits(cpu_s=1, blocked_s=1, memory_mib=256, output_kib=512)
    outcome = sandbox.run(script(source), limits)
    assert outcome.status == status, outcome
    assert says in outcome.stderr.decode()


def test_a_traceback_shows_the_program_and_nothing_of_ours(sandbox):
    outcome = sandbox.run(script("def f():\n    return 1 / 0\nf()"))
    assert outcome.stderr.decode().count("File ") == 2
    assert "program.py" in outcome.stderr.decode()


@pytest.mark.parametrize(
    ("source", "arguments", "value"),
    [
        ("def f(a, b): return a + b", [1, 2], 3),
        ("class Solution:\n    def f(self, x: List[int]) -> Optional[int]: return max(x, default=None)", [[1, 3]], 3),
        ("class Solution:\n    def f(self, x): return None", [1], None),
        ("def f(x): return (x, [1.5, True], {'k': None})", ["s"], ["s", [1.5, True], {"k": None}]),
        ("def f(x): return Counter(x)", ["aab"], {"a": 2, "b": 1}),
        ("def f(x): return {1: 2, True: 3, None: 4}", [0], {"1": 3, "null": 4}),
        ("def f(x): return deque([1, 2])", [0], [1, 2]),
        ("def f(x): return {7}", [0], {"set": [7]}),
        ("def f(): print('noise'); return 1", [], 1),
        ("if __name__ == '__main__':\n    raise ValueError('a demo that must not run')\ndef f(): return 1", [], 1),
        (
            "from functools import cache\n@cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)",
            [80],
            23416728348467685,
        ),
        ("def f(n): return 10**n", [400], 10**400),
    ],
)
def test_functions_return_values(sandbox, source, arguments, value):
    outcome = sandbox.run(function(source, "f", json.dumps(arguments)))
    assert outcome.status == "ok", outcome
    assert json.loads(outcome.value) == value


def test_a_missing_function_and_a_value_without_a_form_in_json_are_failures(sandbox):
    assert b"NameError" in sandbox.run(function("g = 1", "f", "[]")).stderr
    assert b"TypeError" in sandbox.run(function("def f(): return object()", "f", "[]")).stderr
    assert sandbox.run(function("def f(): x = []; x.append(x); return x", "f", "[]")).status == "error"


def test_commands_see_their_files_and_nothing_else(commands):
    files = {"package/thing.py": "VALUE = 7\n", "run.sh": "python3 -c 'import package.thing as t; print(t.VALUE)'\n"}
    python = f"{sys.base_prefix}/bin"
    outcome = commands.run(command(["sh", "run.sh"], files, {"PATH": f"{python}:/usr/bin:/bin"}))
    assert (outcome.status, outcome.stdout) == ("ok", b"7\n"), outcome
    with pytest.raises(SandboxError, match="no-such-program"):
        commands.run(command(["no-such-program"], {}))
    # Only what happens before a program begins is the sandbox's to report.
    claims = "echo 'sh: no-such-program: No such file or directory' >&2; exit 127"
    assert commands.run(command(["sh", "-c", claims], {})).exit_code == 127


@pytest.mark.parametrize("path", ["/etc/x.py", "../x.py", "a/../../x.py", "a//b.py", "", "a.py/b.py", "x\0.py"])
def test_files_of_commands_stay_in_their_folder(path):
    with pytest.raises(ValueError, match="path|folder"):
        command(["true"], {"a.py": "", path: ""})


def test_numpy_where_asked_for():
    with Sandbox(packages=["numpy"]) as sandbox:
        assert sandbox.run(script("import numpy as np\nprint(int(np.arange(4).sum()))")).stdout == b"6\n"
        assert json.loads(sandbox.run(function("import numpy as np\ndef f(): return np.eye(2)", "f", "[]")).value) == [
            [1, 0],
            [0, 1],
        ]
    with Sandbox() as sandbox:
        assert b"ModuleNotFoundError" in sandbox.run(script("import numpy")).stderr
    source = (
        "import numpy as np\na = np.ones((300, 300))\nprint(int((a @ a).sum()), np.random.default_rng(0).integers(9))"
    )
    with Sandbox(packages=["numpy"]) as sandbox:
        outcome = sandbox.run(script(source), Limits(memory_mib=64))
        assert (outcome.status, outcome.stdout.split()[0]) == ("ok", b"27000000"), outcome


def test_it_says_what_it_has_and_refuses_less_than_required(monkeypatch):
    from cascade_rl.rewarding.sandbox.inside import jail

    with Sandbox() as sandbox:
        assert sandbox.describe().startswith("sandbox: namespaces, landlock")

    # As on a host that forbids user namespaces. The interpreter inside is another process, so its files are changed.
    broken = _copy_with(
        jail.__file__, "kernel.unshare(_NAMESPACES)", "raise PermissionError(1, 'unshare: not permitted')"
    )
    monkeypatch.setattr("cascade_rl.rewarding.sandbox.client._HERE", broken)
    with Sandbox() as sandbox:
        assert sandbox.level == "landlock"
        assert "unshare: not permitted" in sandbox.describe()
        assert sandbox.run(script("print(1)")).stdout == b"1\n"
        with pytest.raises(SandboxError, match="namespaces.*landlock"):
            sandbox.run(command(["true"], {}))
    with pytest.raises(SandboxError, match="not permitted.*require: landlock"):
        Sandbox(require="namespaces")
    shutil.rmtree(broken)


def test_what_programs_need_may_not_lie_where_their_own_folder_is(monkeypatch):
    """They would not find it. The weaker level shows it."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr("cascade_rl.rewarding.sandbox.client._SYSTEM", (folder, "/usr", "/lib", "/lib64"))
        with pytest.raises(SandboxError, match=folder):
            Sandbox(require="namespaces")
        with Sandbox() as sandbox:
            assert sandbox.level == "landlock"


def _copy_with(file: str, old: str, new: str):
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp())
    shutil.copytree(Path(file).parent, folder / "inside")
    changed = folder / "inside" / Path(file).name
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"require": "walls"}, "require"),
        ({"backend": "docker"}, "backend"),
        ({"packages": ["no_such_package"]}, "no_such_package"),
    ],
)
def test_wrong_settings_are_named(arguments, text):
    with pytest.raises(SandboxError, match=text):
        open_sandbox(**arguments)


def test_the_sandbox_ends_with_the_process_that_opened_it(tmp_path):
    """Also when that one is killed outright."""
    source = (
        "import os, signal\nfrom cascade_rl.rewarding.sandbox import Sandbox\ns = Sandbox()\n"
        "print(s._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    pid = int(done.stdout)
    import time

    deadline = time.monotonic() + 20
    while _is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_results_do_not_depend_on_the_worker():
    """Orders of sets are the same in every interpreter, so that a verdict is one too."""
    source = "print(list({'alpha', 'beta', 'gamma', 'delta'}), hash('x'))"
    outputs = set()
    for _ in range(3):
        with Sandbox() as sandbox:
            outputs.add(sandbox.run(script(source)).stdout)
    assert len(outputs) == 1


@pytest.mark.slow
def test_many_started_side_by_side_all_come_up():
    """A process that built the walls may still be dying when the interpreter binds its life to its parent's."""
    start = (
        "from cascade_rl.rewarding.sandbox import Sandbox\n"
        "for _ in range(40):\n    Sandbox(require='namespaces').close()\nprint('all')"
    )
    beside = [subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=300)[0] for process in beside] == ["all\n"] * 3
