"""Tests of programs, in the layouts of the public sets, as one list of ``Test``."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import pickle
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class Test:
    """``given``: standard input, or a JSON list of arguments where ``function`` is named."""

    given: str
    expected: Any
    """Standard output, or the value to be returned."""
    function: str = ""
    also: tuple[Any, ...] = ()
    """Other values that are as good as ``expected``, where a row can be read in more than one way."""

    __test__ = False  # pytest would take it for one of its own


_MOST_DIGITS = 4300
"""Of an integer that Python reads from a text in a time that does not matter, and of its own limit."""


def loads(text: str | bytes) -> Any:
    """JSON that nobody trusts, in time linear in its length: integers of more than 4,300 digits become Decimals.

    Raises ValueError and RecursionError as ``json.loads``.
    """
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else Decimal(digits))


@contextlib.contextmanager
def any_integer() -> Iterator[None]:
    """Integers of any length are read and written, for what the data set gives: the time is quadratic in it."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


@any_integer()
def read(tests: Any) -> list[Test]:
    """Tests in any of these layouts, or as JSON text of one:

    - ``{"inputs": [...], "outputs": [...]}``, with ``"fn_name"`` for functions (APPS, TACO);
    - ``{"input": [...], "output": [...]}`` (CodeContests);
    - a list of ``{"input", "output"}`` (LiveCodeBench's ``testtype`` and a ``fn_name`` are understood), or of Tests.

    Raises ValueError for anything else, and where there is no test at all.
    """
    if isinstance(tests, str | bytes):
        tests = _json(tests, "tests")
    if isinstance(tests, Mapping):
        found = pairs(tests)
    elif isinstance(tests, Sequence):
        found = [test if isinstance(test, Test) else _one(test) for test in tests]
    else:
        raise ValueError(f"tests must be a mapping or a list, not {type(tests).__name__}")
    if not found:
        raise ValueError("the row has no tests")
    return found


@any_integer()
def pairs(tests: Mapping[str, Any] | None) -> list[Test]:
    """Two lists of one length, of inputs and of outputs. Raises ValueError."""
    tests = {name: value for name, value in (tests or {}).items() if value is not None}  # Arrow stores absent keys so
    if not tests:
        return []
    inputs, outputs = (tests.get(key + "s", tests.get(key)) for key in ("input", "output"))
    if not isinstance(inputs, Sequence) or not isinstance(outputs, Sequence) or isinstance(inputs, str):
        raise ValueError(f"tests need a list of inputs and a list of outputs; there are {', '.join(map(str, tests))}")
    if len(inputs) != len(outputs):
        raise ValueError(f"tests have {len(inputs)} inputs and {len(outputs)} outputs")
    name = tests.get("fn_name") or ""
    if not name:
        return [_script_test(given, expected) for given, expected in zip(inputs, outputs, strict=True)]
    found = [_function_test(given, expected, name) for given, expected in zip(inputs, outputs, strict=True)]
    # APPS has every value in a list of one. Where any of them is something else, none is wrapped.
    if all(isinstance(value, list) and len(value) == 1 for value in outputs):
        found = [replace(test, also=(*test.also, test.expected[0])) for test in found]
    return found


@any_integer()
def livecodebench(public: Any, private: Any, metadata: Any) -> list[Test]:
    """``public_test_cases``, ``private_test_cases`` (JSON, or base64 of zlib of pickle of it) and ``metadata``."""
    facts = _json(metadata, "metadata") if isinstance(metadata, str) and metadata else metadata or {}
    name = facts.get("func_name") or ""
    cases = [*_cases(public, "public_test_cases"), *_cases(private, "private_test_cases")]
    return [_one({**case, "fn_name": name} if case.get("testtype") == "functional" else case) for case in cases]


def _cases(text: Any, what: str) -> list[Mapping[str, Any]]:
    if isinstance(text, str) and text and text.lstrip()[:1] not in ("[", "{"):
        text = _unpacked(text, what)
    found = _json(text, what) if isinstance(text, str | bytes) and text else text or []
    if not isinstance(found, Sequence):
        raise ValueError(f"{what} must be a list, not {type(found).__name__}")
    return list(found)


def seconds(limit: Any) -> float | None:
    """A time limit as data sets write it: a number, or ``{"seconds", "nanos"}``; None where there is none."""
    if isinstance(limit, Mapping):
        limit = (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9
    return float(limit) if limit else None


def _one(test: Any) -> Test:
    if not isinstance(test, Mapping) or "input" not in test or "output" not in test:
        raise ValueError("each test of a list needs `input` and `output`")
    if name := test.get("fn_name"):
        return replace(_function_test(test["input"], test["output"], name), also=())  # JSON, and nothing else
    if test.get("testtype") == "functional":
        raise ValueError("a functional test needs the function's name: fn_name, or func_name in metadata")
    if test["input"] is None or test["output"] is None:  # only a function can be given None, or return it
        raise ValueError("a test of standard input needs `input` and `output`; one of them is null")
    return _script_test(test["input"], test["output"])


def _script_test(given: Any, expected: Any) -> Test:
    return Test(_text(given), _text(expected))


def _text(value: Any) -> str:
    """Some rows have lists of lines, or bare numbers."""
    return (
        "\n".join(map(str, value)) + "\n" if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    )


def _function_test(given: Any, expected: Any, name: str) -> Test:
    """Arguments as a list, or as JSON values one a line; the expected value as itself, or as text that stands for it.

    A text may also be the expected value: ``"123"`` is matched by 123 and by "123".
    """
    arguments = json.dumps(_arguments(given))
    if not isinstance(expected, str):
        return Test(arguments, expected, name)
    value = _value(expected)
    return Test(arguments, value, name, also=() if value == expected else (expected,))


def _arguments(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [_json(line, "an argument") for line in given.split("\n") if line.strip()]
    if isinstance(given, Sequence):
        return list(given)
    if given is None or isinstance(given, bool | int | float):
        return [given]
    raise ValueError(f"arguments must be a list or JSON lines, not {type(given).__name__}")


def _value(text: str) -> Any:
    """What a text stands for: JSON, a literal of Python (``True``, ``(1, 2)``), or itself."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    if len(text) <= _LONGEST_LITERAL:
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return json.loads(json.dumps(ast.literal_eval(text.strip())))
    return text


_LONGEST_LITERAL = 10_000


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{what}: not JSON: {error}") from None


class _TextOnly(pickle.Unpickler):
    """Loads a text and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a pickle of tests may hold text only, not {module}.{name}")


_MOST_UNPACKED = 1 << 30


def _unpacked(text: str, what: str) -> str:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=False), _MOST_UNPACKED)
        loaded = _TextOnly(io.BytesIO(data)).load()
    except Exception as error:
        raise ValueError(f"{what}: neither JSON nor packed text: {error}") from None
    if not isinstance(loaded, str | bytes):
        raise ValueError(f"{what}: packed {type(loaded).__name__}, not text")
    return loaded if isinstance(loaded, str) else loaded.decode()
