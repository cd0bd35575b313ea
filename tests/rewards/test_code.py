"""Code rewards. Expectations come from the problems and the data sets' published layouts, not from our output."""

from __future__ import annotations

import base64
import json
import pickle
import re
import subprocess
import sys
import time
import zlib
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.recipe import BenchmarkConfig
from cascade_rl.rewarding.binding import call_arguments
from cascade_rl.rewarding.loading import load_reward
from cascade_rl.rewarding.records import ScoreCall
from rewards import code, code_tests
from rewards.code import last_python_block, verify, verify_code_contests, verify_livecodebench
from rewards.code_comparing import Tolerance, same_text, same_value
from tests.rewards.case_files import cases, table

DOUBLE = {"inputs": ["2\n", "5\n"], "outputs": ["4\n", "10\n"]}


def block(source: str) -> str:
    return f"Here it is.\n```python\n{source}\n```\nDone."


# --- Finding the program ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "found"), cases("code_blocks"))
def test_the_last_closed_python_block(text, found):
    assert last_python_block(text) == found


@given(st.text(alphabet="`\npython x", max_size=200))
def test_any_text_can_be_searched(text):
    assert last_python_block(text) is None or ("```" in text and "py" in text)


@pytest.mark.parametrize("line", ["~" * 300_000 + "`", "`" * 300_000 + "a`", "a" * 300_000 + "``", "~~~ " * 100_000])
def test_a_long_line_is_searched_in_linear_time(line):
    begun = time.process_time()
    assert last_python_block(f"```python\na\n```\n{line}\n") == "a\n"
    assert time.process_time() - begun < 2


# --- Verdicts --------------------------------------------------------------------------------------------------------


def test_all_tests_must_pass():
    right, partly = block("print(int(input()) * 2)"), block("print(4)")
    assert verify(right, tests=DOUBLE).value == 1
    score = verify(partly, tests=DOUBLE)
    assert (score.value, score.details["passed"], score.details["failure"]["test"]) == (0, 1, 1)
    assert score.details["failure"]["got"] == "4\n"
    assert verify(partly, tests=DOUBLE, partial=True).value == 0.5
    assert verify("no program", tests=DOUBLE).value == 0


def test_it_stops_at_the_first_failure(tmp_path):
    slow = block("n = int(input())\nif n == 2:\n    print('no')\nelse:\n    while True: pass")
    score = verify(slow, tests=DOUBLE, time_limit_s=2)
    assert score.details["failure"]["status"] == "wrong"  # the second test was never run


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("while True: pass", "time"),
        ("x = bytearray(1 << 29)", "memory"),
        ("1/0", "error"),
        ("print('x' * 5_000_000)", "output"),
    ],
)
def test_limits_of_a_row(source, status):
    score = verify(block(source), tests=DOUBLE, time_limit_s=1, memory_limit_mib=200)
    assert score.value == 0
    assert score.details["failure"]["status"] == status


def test_the_total_limit_ends_the_tests():
    tests = {"inputs": ["0.4"] * 50, "outputs": ["done"] * 50}
    sleepy = block("import time\ntime.sleep(float(input()))\nprint('done')")
    score = verify(sleepy, tests=tests, total_limit_s=0.5)
    assert score.value == 0
    assert "not reached in 0.5 s" in score.details["failure"]["status"]


def test_language_switching_has_its_own_value():
    right = block("print(int(input()) * 2)")
    thoughts = f"<think>\nПодумаем.\n</think>\n{right}"
    assert verify(right, tests=DOUBLE, completion=thoughts, prompt="Double it.", mixed_language=None).value == 1
    score = verify(right, tests=DOUBLE, completion=thoughts, prompt="Double it.")
    assert score.value == 0
    assert "Cyrillic" in score.details["foreign"]
    assert verify(right, tests=DOUBLE, completion=right, prompt="Double it.").value == 1


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ([], "tests"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs"),
        ({"questions": []}, "questions"),
        ("not json", "JSON"),
        (3, "int"),
        ([{"input": "x"}], "output"),
        ([{"input": "x", "output": "y", "testtype": "functional"}], "fn_name"),
    ],
)
def test_tests_that_cannot_be_read_are_the_rows_fault(tests, message):
    with pytest.raises(ValueError, match=message):
        verify(block("print(1)"), tests=tests)


def test_unknown_comparisons_are_named():
    with pytest.raises(ValueError, match="compare"):
        verify(block("print(1)"), tests=DOUBLE, compare="fuzzy")


def test_a_checker_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_checker.py").write_text(
        "def any_divisor(*, given, expected, got):\n"
        "    return int(given) % int(got) == 0 and int(got) not in (1, int(given))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    tests = {"inputs": ["12", "35"], "outputs": ["6", "5"]}
    smallest = block("n = int(input())\nprint(next(d for d in range(2, n) if n % d == 0))")
    assert verify(smallest, tests=tests).value == 0  # 2 is not 6, but it divides 12
    assert verify(smallest, tests=tests, checker="my_checker:any_divisor").value == 1
    assert verify(block("print(1)"), tests=tests, checker="my_checker:any_divisor").value == 0


# --- The data sets' layouts ------------------------------------------------------------------------------------------

TWO_SUM = block(
    "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n"
    "        seen = {}\n        for i, n in enumerate(nums):\n"
    "            if target - n in seen: return [seen[target - n], i]\n            seen[n] = i"
)


def test_apps_and_taco():
    """input_output is a JSON text; outputs of functions stand in a list of one."""
    stdin = json.dumps({"inputs": ["3\n1 2 3\n"], "outputs": ["6\n"]})
    assert verify(block("input()\nprint(sum(map(int, input().split())))"), tests=stdin).value == 1
    functional = json.dumps({"fn_name": "twoSum", "inputs": [[[2, 7, 11, 15], 9]], "outputs": [[[0, 1]]]})
    assert verify(TWO_SUM, tests=functional).value == 1
    plain = json.dumps({"fn_name": "twoSum", "inputs": [[[2, 7, 11, 15], 9]], "outputs": [[0, 1]]})
    assert verify(TWO_SUM, tests=plain).value == 1
    as_lines = {"fn_name": "twoSum", "inputs": ["[2, 7, 11, 15]\n9"], "outputs": ["[0, 1]"]}
    assert verify(TWO_SUM, tests=as_lines).value == 1
    wrong = {"fn_name": "twoSum", "inputs": [[[2, 7, 11, 15], 9]], "outputs": [[1, 0]]}
    assert verify(TWO_SUM, tests=wrong).value == 0
    lines = {"inputs": [["3", "1 2 3"]], "outputs": [["6"]]}
    assert verify(block("input()\nprint(sum(map(int, input().split())))"), tests=lines).value == 1


def test_code_contests():
    tests = {"input": ["1 2\n"], "output": ["3\n"]}
    more = {"input": ["5 5\n"], "output": ["10\n"]}
    add = block("print(sum(map(int, input().split())))")
    columns = {
        "public_tests": tests, "private_tests": more, "generated_tests": {"input": [], "output": []},
        "time_limit": {"seconds": 1, "nanos": 500_000_000}, "memory_limit_bytes": 256_000_000,
    }  # fmt: skip
    assert verify_code_contests(add, **columns).value == 1
    assert verify_code_contests(block("print(3)"), **columns).details["passed"] == 1
    assert code_tests.seconds(columns["time_limit"]) == 1.5
    assert verify_code_contests(block("x = bytearray(300_000_000)"), **columns).details["failure"]["status"] == "memory"
    with pytest.raises(ValueError, match="input.txt"):
        verify_code_contests(add, public_tests=tests, input_file="input.txt")


def packed(cases) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def test_livecodebench():
    public = json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}])
    private = packed([{"input": "5 5", "output": "10", "testtype": "stdin"}])
    add = block("print(sum(map(int, input().split())))")
    score = verify_livecodebench(add, public_test_cases=public, private_test_cases=private, metadata="{}")
    assert (score.value, score.details["tests"]) == (1, 2)
    assert verify_livecodebench(block("print(3)"), public_test_cases=public, private_test_cases=private).value == 0
    functional = json.dumps([{"input": "[2, 7, 11, 15]\n9", "output": "[0, 1]", "testtype": "functional"}])
    metadata = json.dumps({"func_name": "twoSum"})
    assert verify_livecodebench(TWO_SUM, public_test_cases=functional, metadata=metadata).value == 1
    in_a_list = json.dumps([{"input": "[2, 7, 11, 15]\n9", "output": "[[0, 1]]", "testtype": "functional"}])
    assert verify_livecodebench(TWO_SUM, public_test_cases=in_a_list, metadata=metadata).value == 0


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), pickle.dumps([1]), b"no pickle"])
def test_packed_tests_hold_text_and_run_nothing(content, capsys):
    text = base64.b64encode(zlib.compress(content)).decode()
    with pytest.raises(ValueError, match="private_test_cases"):
        verify_livecodebench(block("print(1)"), public_test_cases="[]", private_test_cases=text)
    assert capsys.readouterr().out == ""


def test_all_options_are_parameters_of_the_data_sets_rewards():
    """So that check_binding finds a misspelled key."""
    import inspect

    options = set(inspect.signature(verify).parameters)
    for reward, own in (
        (verify_code_contests, {"tests", "time_limit_s", "memory_limit_mib"}),
        (verify_livecodebench, {"tests"}),
    ):
        assert options - own <= set(inspect.signature(reward).parameters)
        assert reward.prepare is code.prepare


@pytest.mark.parametrize("limits", [{"time_limit_s": -1}, {"time_limit_s": float("nan")}, {"memory_limit_mib": -5}])
def test_limits_that_are_none_are_the_rows_fault(limits):
    with pytest.raises(ValueError, match="time_limit_s|memory_limit_mib"):
        verify(block("print(1)"), tests=DOUBLE, **limits)


# --- Comparing -------------------------------------------------------------------------------------------------------


COMPARISONS = table("code_comparisons")


@pytest.mark.parametrize(("got", "expected", "compare", "tolerance", "same"), COMPARISONS["printed texts"])
def test_printed_texts(got, expected, compare, tolerance, same):
    assert same_text(got, expected, compare, Tolerance(all=tolerance)) is same


@pytest.mark.parametrize(
    ("got", "expected", "compare", "tolerance", "same"),
    [
        *COMPARISONS["returned values"],
        (10**400, 10**400 + 1, "lines", 1e-3, False),
        (float("nan"), float("nan"), "lines", None, True),
        (float("nan"), 1.0, "lines", None, False),
    ],
)
def test_returned_values(got, expected, compare, tolerance, same):
    assert same_value(got, expected, compare, Tolerance(all=tolerance)) is same


@given(st.lists(st.lists(st.integers() | st.text(alphabet="ab", min_size=1), min_size=1), max_size=5), st.randoms())
def test_a_text_equals_itself_however_it_is_spaced(lines, random):
    text = "\n".join(" ".join(map(str, line)) for line in lines)
    spaced = "\n".join("  ".join(map(str, line)) + " " * random.randint(0, 2) for line in lines) + "\n"
    assert same_text(spaced, text, "lines", Tolerance())
    random.shuffle(lines)
    shuffled = "\n".join(" ".join(map(str, line)) for line in lines)
    assert same_text(shuffled, text, "unordered", Tolerance())


# --- A table of whole rows, through the command line -----------------------------------------------------------------


def io(*pairs):
    return {"inputs": [given for given, _ in pairs], "outputs": [expected for _, expected in pairs]}


def fenced(source):
    return f"```python\n{source}\n```"


ADD = io(("1 2\n", "3\n"), ("10 20\n", "30\n"))
SUM = "print(sum(map(int, input().split())))"


def whole_rows():
    """Name, answer, columns and value of each row of ``cases/code_rows.yaml``."""
    kinds = table("code_rows")
    for name, printed, expected, value in kinds.pop("printed"):
        program = fenced(f"import sys\nsys.stdout.write({printed!r})")
        yield f"out: {name}", program, {"tests": io(("", expected))}, value
    for kind, rows in kinds.items():
        for row in rows:
            columns = {"tests": ADD, **row}
            name, value = columns.pop("name"), columns.pop("value")
            answer = columns.pop("answer") if "answer" in columns else fenced(columns.pop("program"))
            yield (f"fn: {name}" if kind == "functions" else name), answer, columns, value


TABLE = list(whole_rows())


def test_a_table_of_rows_through_the_command_line(tmp_path):
    lines = [json.dumps({"id": name, "response": answer, **columns}) for name, answer, columns, _ in TABLE]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    command = [
        sys.executable, "-m", "cascade_rl", "score", "rewards.code:verify", "rows.jsonl", "--workers", "2",
        "--set", "mode=instruct", "--set", "timeout_s=60",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(score["id"], score["value"], score["error"]) for score in scores] == [
        (name, value, None) for name, _, _, value in TABLE
    ]


def test_a_thinking_row_without_the_end_of_thought_has_no_program(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"response": fenced(SUM), "tests": ADD}))
    command = [sys.executable, "-m", "cascade_rl", "score", "rewards.code:verify", "rows.jsonl", "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert json.loads(done.stdout)["value"] == 0


def test_the_pools_deadline_leaves_room_for_all_tests():
    """Where nobody names one: tests that are slow together must not be cut by a deadline meant for one call."""
    import inspect

    from cascade_rl.recipe import RewardConfig
    from cascade_rl.rewarding import load_reward

    for use in ("rewards.code:verify", "rewards.code:verify_code_contests", "rewards.code:verify_livecodebench"):
        loaded = load_reward(RewardConfig(use=use), [])
        assert loaded.settings.timeout_s > inspect.signature(verify).parameters["total_limit_s"].default


# --- Long integers, deep recursion, floats ---------------------------------------------------------------------------

LONG = "9" * 6000
"""More digits than Python reads or writes by itself (4,300)."""


def one_test(given, expected, name=""):
    return {"inputs": [given], "outputs": [expected], **({"fn_name": name} if name else {})}


@pytest.mark.parametrize(
    ("program", "tests", "value"),
    [
        ("print(int(input()) + 1)", one_test(LONG, "1" + "0" * 6000), 1),
        ("print(int(input()))", one_test(LONG, "1" + "0" * 6000), 0),
        ("def f(n): return n + 1", one_test([int("9" * 4000)], 10**4000, "f"), 1),
        ("def f(n): return 10**n", one_test([6000], 10**6000, "f"), 1),
        ("def f(n): return 10**n + 1", one_test([6000], 10**6000, "f"), 0),
        ("def f(n): return [10**n, {'a': 10**n}]", one_test([6000], [10**6000, {"a": 10**6000}], "f"), 1),
        ("def f(n): return n + 1", one_test(LONG, "1" + "0" * 6000, "f"), 1),
        ("def f(n): return str(n)", one_test(LONG, LONG, "f"), 1),
        ("def f(n): return 10.0**300", one_test([1], 10**6000, "f"), 0),
        ("def f(n): return 10**6000", one_test([1], 0.5, "f"), 0),
        ("def f(n): return 10**50_000", one_test([1], 1, "f"), 0),
    ],
)
def test_integers_of_any_length(program, tests, value):
    assert verify(block(program), tests=tests).value == value
    if "fn_name" in tests:
        with code_tests.any_integer():
            text = json.dumps(tests)
        assert verify(block(program), tests=text).value == value


def test_what_a_program_returns_is_read_in_linear_time():
    """Four million digits take Python's own reader a minute; a Decimal reads them in no time."""
    value = code_tests.loads("[" + "7" * 4_000_000 + ", 7]")
    assert isinstance(value[0], Decimal)
    assert value == [Decimal("7" * 4_000_000), 7]


def test_the_limit_of_digits_is_put_back():
    before = sys.get_int_max_str_digits()
    code_tests.read([{"input": LONG, "output": LONG, "fn_name": "f"}])
    assert sys.get_int_max_str_digits() == before


CALLS = {
    "plain": "def f(n): return 0 if n == 0 else 1 + f(n - 1)",
    "cached": "from functools import cache\n@cache\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)",
    "sorted": "def f(n): return 0 if n == 0 else 1 + sorted([n], key=lambda _: f(n - 1))[0] * 0 + n - 1",
}


@pytest.mark.parametrize(("kind", "depth"), [("plain", 45_000), ("cached", 20_000), ("sorted", 15_000)])
def test_programs_recurse_deeply_without_asking(kind, depth):
    """As with the harness of LiveCodeBench, which sets the limit to 50,000 calls."""
    assert verify(block(f"{CALLS[kind]}\nprint(f({depth}))"), tests=one_test("", str(depth))).value == 1
    returned = verify(block(CALLS[kind]), tests=one_test([depth], depth, "f"))
    assert returned.value == 1


@pytest.mark.parametrize("kind", CALLS)
def test_programs_that_ask_recurse_more_deeply(kind):
    """Each call through C takes about a kilobyte of stack: 100,000 of them do not fit the usual 8 MiB."""
    program = f"import sys\nsys.setrecursionlimit(10**6)\n{CALLS[kind]}\nprint(f(100_000))"
    assert verify(block(program), tests=one_test("", "100000")).value == 1


def test_the_stack_of_a_thread_counts_by_what_is_used():
    """Competition programs reserve more than the whole memory limit and use little of it."""
    program = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(512 << 20)\n"
        f"{CALLS['cached']}\nt = threading.Thread(target=lambda: print(f(100_000)))\nt.start()\nt.join()"
    )
    assert verify(block(program), tests=one_test("", "100000"), memory_limit_mib=256).value == 1
    greedy = f"import threading\nthreading.stack_size(64 << 20)\n{'x = bytearray(400 << 20)'}\nprint(1)"
    score = verify(block(greedy), tests=one_test("", "1"), memory_limit_mib=256)
    assert (score.value, score.details["failure"]["status"]) == (0, "memory")


def test_recursion_without_an_end_fails():
    score = verify(block("def f(): f()\nf()"), tests=one_test("", ""))
    assert (score.value, score.details["failure"]["status"]) == (0, "error")


@pytest.mark.parametrize(("got", "expected", "compare", "floats", "same"), table("code_floats")["printed texts"])
def test_floats_of_printed_texts(got, expected, compare, floats, same):
    assert same_text(got, expected, compare, Tolerance(floats)) is same


@pytest.mark.parametrize(("got", "expected", "compare", "floats", "same"), table("code_floats")["returned values"])
def test_floats_of_returned_values(got, expected, compare, floats, same):
    assert same_value(got, expected, compare, Tolerance(floats)) is same


def test_float_tolerance_is_an_option_of_every_code_reward():
    public = json.dumps([{"input": "", "output": "0.3333333 7", "testtype": "stdin"}])
    third = block("print(0.33333333, 7)")
    assert verify_livecodebench(third, public_test_cases=public).value == 0
    assert verify_livecodebench(third, public_test_cases=public, float_tolerance=1e-6).value == 1
    assert verify(third, tests=one_test("", "0.33334 7")).value == 0
    assert verify(third, tests=one_test("", "0.33334 7"), float_tolerance=1e-4).value == 1


@pytest.mark.parametrize(
    "options", [{"tolerance": -1.0}, {"float_tolerance": float("nan")}, {"tolerance": float("inf")}]
)
def test_tolerances_that_are_none_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        verify(block("print(1)"), tests=DOUBLE, **options)


def test_lines_of_a_program_end_as_those_of_markdown():
    text = "```python\ns = 'a\x0cb\u2028```\x85'\nprint(s)\n```"
    assert last_python_block(text) == "s = 'a\x0cb\u2028```\x85'\nprint(s)\n"
    assert last_python_block("```python\rprint(1)\r```\r") == "print(1)\r"


def test_rows_of_the_command_line_hold_long_integers(tmp_path):
    tests = one_test([6000], 10**6000, "f")
    with code_tests.any_integer():
        text = json.dumps({"response": block("def f(n): return 10**n"), "tests": tests})
    (tmp_path / "rows.jsonl").write_text(text)
    command = [sys.executable, "-m", "cascade_rl", "score", "rewards.code:verify", "rows.jsonl", "--workers", "1"]
    done = subprocess.run(
        [*command, "--set", "mode=instruct"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert json.loads(done.stdout)["value"] == 1, done.stderr


def test_a_benchmark_names_the_tolerance_of_floats():
    """The one that docs/rewards.md shows, given a row of LiveCodeBench."""
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    (shown,) = [found for found in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "livecodebench" in found]
    benchmark = BenchmarkConfig.model_validate(yaml.safe_load(shown)["evaluate"]["after_each_stage"][0])
    reward = load_reward(benchmark.reward, [])
    row = {
        "public_test_cases": json.dumps([{"input": "", "output": "0.3333333 7", "testtype": "stdin"}]),
        "private_test_cases": "[]",
        "metadata": "{}",
    }
    for printed, value in (("0.33333334, 7", 1), ("0.3334, 7", 0), ("0.3333333, 7.0000001", 0)):
        call = ScoreCall(block(f"print({printed})"), (), False, False, row)
        assert reward.function(**call_arguments(reward, call)).value == value
