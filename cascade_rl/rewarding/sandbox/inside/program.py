"""A program's text, run as Python would run it. Everything here happens in the fork, beside hostile code: nothing it
says is trusted, and what it returns is only ever compared."""

from __future__ import annotations

import _thread
import atexit
import gc
import importlib
import io
import json
import os
import resource
import site
import sys
import threading
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

RESULT = 3
"""Descriptor that a function's return value is written to."""
OUT_OF_MEMORY = 99
"""Exit code: advice for people, not part of any verdict."""
PATH = "/tmp/program.py"
RECURSION_LIMIT = 50_000
"""Python's own is 1,000. The harness of LiveCodeBench sets this one before each program; a program may raise it."""
_USUAL_STACK = 8 << 20
"""Bytes of stack of a thread that asks for none, and of a command: Linux's usual limit."""


site.setquit()  # exit() and quit(), which many programs end with: without the module `site` there are none
site.sethelper()


def run_script(source: str) -> NoReturn:
    """``source`` as ``__main__``, with descriptors 0, 1 and 2 as its standard streams."""
    _execute(lambda: exec(_compiled(source), _module("__main__")))


def run_function(source: str, name: str, arguments: str) -> NoReturn:
    """Write to RESULT what ``name`` (of a class ``Solution``, or at top level) returns for a JSON list of arguments."""

    def call() -> None:
        sink = os.dup(RESULT)
        names = _module("solution")
        names.update(_prelude())
        exec(_compiled(source), names)
        value = _function(names, name)(*json.loads(arguments))
        text = _encoder(plain(value))
        with os.fdopen(sink, "w") as file:
            file.write(text)

    _encoder = json.JSONEncoder(check_circular=True).encode
    _execute(call)


def write_files(files: Mapping[str, str]) -> None:
    """Into the working folder. Files that do not fit there or have no possible name end the test, as a failed one:
    they may be of a model's making."""
    try:
        for path, content in files.items():
            if folder := os.path.dirname(path):
                os.makedirs(folder, exist_ok=True)
            with open(path, "w", encoding="utf-8", newline="", errors="surrogateescape") as file:
                file.write(content)
    except (OSError, UnicodeError) as error:
        os.write(2, f"a file of the command cannot be written: {error}\n".encode("utf-8", "backslashreplace"))
        os._exit(1)


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become ``command``. Raises OSError where there is no such program."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if hard == resource.RLIM_INFINITY or hard >= _USUAL_STACK:  # each thread of a command reserves as much as this
        resource.setrlimit(resource.RLIMIT_STACK, (_USUAL_STACK, hard))
    try:
        os.execvpe(command[0], list(command), dict(environment))
    except OSError as error:
        raise OSError(error.errno, f"{command[0]}: {error.strerror}") from None


def _compiled(source: str) -> types.CodeType:
    return compile(source, PATH, "exec", dont_inherit=True)  # not with the annotations of this file


def standard_streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper, io.TextIOWrapper]:
    """Text streams over descriptors 0, 1 and 2, whatever these are when they are used."""
    streams = (
        io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape"),
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8", "surrogateescape"),
        io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True),
    )
    for stream, mode in zip(streams, "rww", strict=True):
        stream.mode = mode  # type: ignore[attr-defined, misc]  # as Python's own have it, and fast readers of input ask
    return streams


_STREAMS = standard_streams()
"""Made before any fork: there, each page that making them touches would have to be copied."""


def _execute(work: Any) -> NoReturn:
    sys.stdin, sys.stdout, sys.stderr = _STREAMS
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = _STREAMS  # type: ignore[misc, assignment]
    sys.argv = [PATH]
    sys.setrecursionlimit(RECURSION_LIMIT)
    sys.set_int_max_str_digits(0)  # judges of competitions have no such limit; the limit of time holds
    _size_stacks()
    gc.enable()
    code = 1
    try:
        work()
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
        code = 0
    except SystemExit as stop:
        code = _exit_code(stop.code)
    except MemoryError:
        code = OUT_OF_MEMORY
        os.write(2, b"MemoryError\n")
    except BaseException as error:
        places = error.__traceback__ and error.__traceback__.tb_next  # without this function itself
        traceback.print_exception(type(error), error, places and places.tb_next, limit=-8)
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        code = code or 120
    os._exit(code)


def _size_stacks() -> None:
    """Give threads the usual stack, and address space beyond the memory limit to those that ask for a deep one.

    Judges of competitions count memory that is used. Programs for them reserve 256 MiB and more for the stack of a
    thread and use a small part of it; a limit of address space counts all that is reserved.
    """
    room, hard = resource.getrlimit(resource.RLIMIT_AS)
    original = threading.stack_size

    def stack_size(size: int = 0, /) -> int:
        before = original(size or _USUAL_STACK)
        if room != resource.RLIM_INFINITY:
            wanted = room + size
            resource.setrlimit(
                resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )
        return before

    original(_USUAL_STACK)
    threading.stack_size = _thread.stack_size = stack_size


def _exit_code(given: Any) -> int:
    if given is None or isinstance(given, int):
        return (given or 0) & 0xFF
    print(given, file=sys.stderr)
    return 1


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    module.__file__ = PATH
    sys.modules[name] = module
    return module.__dict__


def _prelude() -> dict[str, Any]:
    """Names that the judges of functions have ready, LeetCode and LiveCodeBench alike."""
    names: dict[str, Any] = {}
    for module, chosen in _READY.items():
        loaded = importlib.import_module(module)
        names[module] = loaded
        names.update({name: getattr(loaded, name) for name in chosen or getattr(loaded, "__all__", ())})
    return names


_READY: dict[str, tuple[str, ...]] = {
    "typing": ("List", "Dict", "Set", "Tuple", "Optional", "Union", "Any", "Iterable", "Iterator", "Callable"),
    "collections": ("deque", "defaultdict", "Counter", "OrderedDict", "namedtuple", "ChainMap"),
    "heapq": ("heappush", "heappop", "heapify", "heappushpop", "heapreplace", "nlargest", "nsmallest"),
    "bisect": ("bisect", "bisect_left", "bisect_right", "insort", "insort_left", "insort_right"),
    "itertools": (
        "accumulate", "chain", "combinations", "combinations_with_replacement", "count", "cycle", "groupby", "islice",
        "pairwise", "permutations", "product", "repeat", "starmap", "takewhile", "dropwhile", "zip_longest",
    ),
    "functools": ("cache", "lru_cache", "reduce", "cmp_to_key", "partial"),
    "math": ("inf", "gcd", "lcm", "sqrt", "isqrt", "ceil", "floor", "log", "log2", "comb", "factorial"),
    "operator": ("itemgetter", "attrgetter", "mul", "xor", "add"),
    "string": ("ascii_lowercase", "ascii_uppercase", "ascii_letters", "digits"),
    "dataclasses": ("dataclass", "field"),
    "random": ("randint",), "re": ("sub",), "sys": ("setrecursionlimit",), "copy": ("deepcopy",),
    "datetime": ("timedelta",), "decimal": ("Decimal",), "fractions": ("Fraction",), "statistics": ("median",),
    "json": ("dumps",), "time": ("perf_counter",),
}  # fmt: skip


def _function(names: Mapping[str, Any], name: str) -> Any:
    solution = names.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    if callable(names.get(name)):
        return names[name]
    raise NameError(f"the program defines no function {name!r}, at top level or in a class Solution")


def plain(value: Any) -> Any:
    """``value`` out of JSON's types alone, by the types' own methods, whatever a subclass says of itself."""
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__int__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, dict):
        return {_key(key): plain(item) for key, item in dict.items(value)}
    if issubclass(kind, list):
        return [plain(item) for item in list.__iter__(value)]
    if issubclass(kind, tuple):
        return [plain(item) for item in tuple.__iter__(value)]
    if issubclass(kind, set | frozenset):
        return {"set": [plain(item) for item in value]}
    if hasattr(kind, "tolist"):  # numpy's arrays and numbers
        return plain(value.tolist())
    if kind.__module__ in ("collections", "builtins") and kind.__name__ in _LISTED:
        return [plain(item) for item in value]
    raise TypeError(f"the function returned {kind.__name__}, which has no form in JSON")


_LISTED = ("deque", "range", "map", "filter", "zip", "reversed", "dict_keys", "dict_values", "dict_items")


def _key(key: Any) -> str:
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    if isinstance(key, str | int | float):
        return str(plain(key))
    return json.dumps(plain(key))
