"""Code with tests: the last ```` ```python ```` block after ``</think>``, run on every test in the sandbox.

Programs read standard input and print (``inputs`` and ``outputs``), or define a function (``fn_name``). Outputs are
compared here, outside of the sandbox, by ``rewards.code_comparing``; ``rewards.code_tests`` reads the data sets' own
layouts. What a verdict costs is in docs/rewards.md.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cascade_rl.rewarding.sandbox import BubblewrapSandbox, Limits, Outcome, Sandbox, function, open_sandbox, script
from cascade_rl.types import Score
from rewards import code_tests, language
from rewards.code_comparing import Comparison, comparison
from rewards.code_tests import Test

F = TypeVar("F", bound=Callable[..., Score])

TIME_LIMIT_S = 10.0
"""Of computing, for a test whose row states none (recipe.md section 6.4)."""
MEMORY_LIMIT_MIB = 4096
"""Address space, for a program whose row states none (the same place). Each worker process runs one program at a time,
which the kernel ends first where a machine has less."""
TIMEOUT_S = 150.0
"""The pool's deadline where a recipe names none: for all tests of a response, beyond ``total_limit_s``."""
MOST_SHOWN = 200
"""Characters of a wrong output that are kept."""


def prepare(require: str = "landlock", backend: str = "own", packages: Sequence[str] = ()) -> None:
    """Have the sandbox ready; called once in each worker. Raises SandboxError where this machine gives none."""
    made = _sandbox(require, backend, tuple(packages))
    if os.environ.get("CASCADE_RL_REWARD_WORKER") == "0":  # one of them says so for all
        print(made.describe(), file=sys.stderr, flush=True)


def verify(
    response: str,
    *,
    tests: Any,
    completion: str = "",
    prompt: str = "",
    time_limit_s: float | None = None,
    memory_limit_mib: int | None = None,
    program_memory_mib: int = MEMORY_LIMIT_MIB,
    total_limit_s: float = 120.0,
    compare: str = "lines",
    float_tolerance: float | None = None,
    tolerance: float | None = None,
    checker: str | None = None,
    partial: bool = False,
    mixed_language: float | None = 0.0,
    require: str = "landlock",
    backend: str = "own",
    packages: Sequence[str] = (),
) -> Score:
    """1 if the program passes every test, else 0; the rest is not run after the first failure.

    ``tests``: see ``rewards.code_tests.read``. ``time_limit_s`` is CPU time of each test; ``total_limit_s`` is CPU time
    and blocked time of all (the section's own ``timeout_s`` ends the call whatever this says). ``memory_limit_mib`` is
    a column; as a key of a section that name is the worker's, so that ``program_memory_mib`` is the key for rows
    without one. ``compare``: ``lines``, ``livecodebench``, ``exact`` or ``unordered``. ``float_tolerance`` allows
    floats to differ and ``tolerance`` all numbers; ``checker`` names a function of yours instead (see
    ``rewards.code_comparing``). ``partial`` runs all tests and gives the share that passed. ``mixed_language``: the
    value of a completion that leaves its prompt's language (0 as published: -1 made coding worse; None: not looked at).
    ``require``, ``backend`` and ``packages`` are the sandbox's.

    Raises ValueError for tests that cannot be read, SandboxError for a broken sandbox: neither is the response's fault.
    """
    readable = code_tests.read(tests)
    compared = comparison(compare, tolerance, checker, float_tolerance)
    limits = _limits(time_limit_s or TIME_LIMIT_S, memory_limit_mib or program_memory_mib)
    if (switched := language.mixed(completion, prompt, mixed_language, {})) is not None:
        return switched
    source = last_python_block(response)
    if source is None:
        return Score(0.0, {"passed": 0, "tests": len(readable), "failure": "no python block"})
    sandbox = _sandbox(require, backend, tuple(packages))
    return _run_all(source, readable, sandbox, limits, total_limit_s, compared, partial)


verify.prepare = prepare  # type: ignore[attr-defined]
verify.timeout_s = TIMEOUT_S  # type: ignore[attr-defined]


def _limits(time_limit_s: Any, memory_mib: Any) -> Limits:
    seconds, memory = float(time_limit_s), int(memory_mib)
    if not (math.isfinite(seconds) and seconds > 0 and memory > 0):
        raise ValueError(f"time_limit_s and memory_limit_mib must be more than 0, not {seconds:g} and {memory}")
    return Limits(cpu_s=seconds, memory_mib=memory)


def _with_options_of(base: Callable[..., Score], *fixed: str) -> Callable[[F], F]:
    """The decorated reward takes the parameters of ``base`` too, but for ``fixed``, which it sets itself."""

    def widen(reward: F) -> F:
        own = [p for p in inspect.signature(reward).parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {*fixed, *(parameter.name for parameter in own)}
        rest = [p for p in inspect.signature(base).parameters.values() if p.name not in names]
        reward.__signature__ = inspect.Signature([*own, *rest])  # type: ignore[attr-defined]
        reward.prepare = prepare  # type: ignore[attr-defined]
        reward.timeout_s = TIMEOUT_S  # type: ignore[attr-defined]
        return reward

    return widen


@_with_options_of(verify, "tests", "time_limit_s", "memory_limit_mib")
def verify_code_contests(
    response: str,
    *,
    public_tests: Mapping[str, Any] | None = None,
    private_tests: Mapping[str, Any] | None = None,
    generated_tests: Mapping[str, Any] | None = None,
    time_limit: Any = None,
    memory_limit_bytes: int | None = None,
    input_file: str | None = None,
    **options: Any,
) -> Score:
    """``verify`` for the columns of CodeContests: all three kinds of tests, and the problem's own limits."""
    if input_file:
        raise ValueError(f"the problem reads a file, {input_file!r}; only standard input is given")
    return verify(
        response,
        tests=[test for part in (public_tests, private_tests, generated_tests) for test in code_tests.pairs(part)],
        time_limit_s=code_tests.seconds(time_limit),
        memory_limit_mib=max(1, memory_limit_bytes >> 20) if memory_limit_bytes else None,
        **options,
    )


@_with_options_of(verify, "tests")
def verify_livecodebench(
    response: str,
    *,
    public_test_cases: Any,
    private_test_cases: Any = None,
    metadata: Any = None,
    compare: str = "livecodebench",
    **options: Any,
) -> Score:
    """``verify`` for the columns of LiveCodeBench, its compressed private tests too, compared as it compares."""
    tests = code_tests.livecodebench(public_test_cases, private_test_cases, metadata)
    return verify(response, tests=tests, compare=compare, **options)


@functools.cache
def _sandbox(require: str, backend: str, packages: tuple[str, ...]) -> Sandbox | BubblewrapSandbox:
    made = open_sandbox(require=require, backend=backend, packages=packages)
    atexit.register(made.close)
    return made


def _run_all(
    source: str,
    tests: Sequence[Test],
    sandbox: Sandbox | BubblewrapSandbox,
    limits: Limits,
    total_limit_s: float,
    compared: Comparison,
    partial: bool,
) -> Score:
    passed, failure, spent_s = 0, None, 0.0
    for number, test in enumerate(tests):
        if spent_s > total_limit_s:
            failure = failure or {"test": number, "status": f"not reached in {total_limit_s:g} s"}
            break
        request = function(source, test.function, test.given) if test.function else script(source, test.given)
        outcome = sandbox.run(request, limits)
        spent_s += outcome.cpu_s + outcome.blocked_s
        if outcome.status == "ok" and compared(test, outcome):
            passed += 1
            continue
        failure = failure or {"test": number, **_seen(outcome, test)}
        if not partial:
            break
    value = passed / len(tests) if partial else float(passed == len(tests))
    return Score(value, {"passed": passed, "tests": len(tests), "failure": failure})


def _seen(outcome: Outcome, test: Test) -> dict[str, Any]:
    if outcome.status == "ok":
        got = outcome.value if test.function else outcome.stdout
        return {"status": "wrong", "got": got[:MOST_SHOWN].decode("utf-8", "replace")}
    last = outcome.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return {"status": outcome.status, "exit": outcome.exit_code, "says": last[:MOST_SHOWN]}


# --- The program in an answer ----------------------------------------------------------------------------------------

_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""Lines with their ends, which are Markdown's: a form feed or U+2028 within a program ends none."""
_FENCE = re.compile(r"(?P<before>[^`~]*)(?P<mark>`{3,}(?!`)|~{3,}(?!~))(?P<info>[^`]*)")
_PYTHON = ("python", "python3", "py")
_INDENTED_CODE = 4
"""Columns by which a line is code to Markdown, whatever it looks like: a fence in a docstring ends nothing."""


@dataclass
class _Block:
    mark: str
    indent: int
    is_python: bool
    lines: list[str] = field(default_factory=list)
    doubtful: str | None = None
    """The text up to the first fence that ends it only if no proper one comes: one indented, or behind code."""

    def text(self, *more: str) -> str:
        """Without the indentation of the fence, as in an item of a list, where the code has it too."""
        lines = [*self.lines, *more]
        first = next((line for line in lines if line.strip()), "")
        if _indent(first) < self.indent:
            return "".join(lines)
        return "".join(line[min(self.indent, _indent(line)) :] for line in lines)


def last_python_block(text: str) -> str | None:
    """The text of the last closed code block marked ``python`` (``py``, ``python3``), or None.

    Blocks are Markdown's (three or more backticks or tildes, ended by no fewer), and some that models write: a fence
    behind the words that introduce it, or behind the last line of code. A python fence within a block begins anew.
    """
    found: str | None = None
    block: _Block | None = None
    for line in _LINES.findall(text):
        fence = _FENCE.fullmatch(line.rstrip())
        part = "text" if fence is None else _part(fence, _indent(line), block)
        if fence is not None and part == "begins":
            found = _left_open(block, found)
            block = _Block(fence["mark"], _indent(line), _is_python(fence["info"]))
        elif block is not None and part == "ends":
            found, block = (block.text() if block.is_python else found), None
        elif block is not None:
            if fence is not None and part == "may end" and block.doubtful is None:
                block.doubtful = block.text(fence["before"].rstrip() + "\n")
            block.lines.append(line)
    return _left_open(block, found)


def _part(fence: re.Match[str], indent: int, block: _Block | None) -> str:
    """What a line with a fence is: it "begins" a block, "ends" this one, "may end" it, or is "text"."""
    alone, info = not fence["before"].strip(), fence["info"]
    if block is None:
        return "begins" if alone or info.strip().lower() in _PYTHON else "text"
    near = alone and indent - block.indent < _INDENTED_CODE
    if near and _is_python(info):
        return "begins"
    if info.strip() or not fence["mark"].startswith(block.mark):
        return "text"
    return "ends" if near else "may end"


def _is_python(info: str) -> bool:
    words = [word for word in re.split(r"[\s{}.,:=]+", info.lower()) if word]
    return bool(words) and words[0] in _PYTHON


def _left_open(block: _Block | None, found: str | None) -> str | None:
    return found if block is None or not block.is_python or block.doubtful is None else block.doubtful


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
