"""SWE rewards. The grammar and the -1, 0, 1 cases are recipe.md's sections 7.3 and 7.4; numbers are worked out by hand or
by git."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import math
import shutil
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import chat_server, swe
from rewards.swe import Judge, JudgeDown, execution, similarity
from rewards.swe_edits import Edit, FormatError, apply, files_of, parse
from rewards.swe_patches import changes, golden_changes
from tests.rewards import fake_server
from tests.rewards.case_files import table
from tests.rewards.fake_server import FakeServer

FILES = {"pkg/a.py": "def one():\n    return 2\n\n\ndef two():\n    return 2\n", "b.txt": "x\ny\nz\n"}
GOLDEN = """\
--- a/pkg/a.py
+++ b/pkg/a.py
@@ -1,5 +1,5 @@
 def one():
-    return 2
+    return 1
 
 
 def two():
"""


def edit(path, search, replace, language="diff") -> str:
    replace = f"{replace}\n" if replace is not None else ""
    return f"```{language}\n### {path}\n<<<<<<< SEARCH\n{search}\n=======\n{replace}>>>>>>> REPLACE\n```"


def solution(*edits) -> str:
    return "The bug is in one().\n<solution>\n" + "\n\n".join(edits) + "\n</solution>"


RIGHT = solution(edit("pkg/a.py", "def one():\n    return 2", "def one():\n    return 1"))


# --- Reading edits ---------------------------------------------------------------------------------------------------


def test_edits_are_read_in_order():
    text = solution(
        edit("a", "x", "y"), "and", edit("b", "p\n  q", "r", language="python"), edit("a", "s", None, language="")
    )
    assert parse(text) == [Edit("a", "x", "y"), Edit("b", "p\n  q", "r"), Edit("a", "s", None)]


def test_without_solution_tags_all_of_the_answer_counts():
    assert parse("So:\n" + edit("a", "x", "y")) == [Edit("a", "x", "y")]


def test_other_code_blocks_are_talk():
    assert parse("```python\nprint(1)\n```\n" + edit("a", "x", "y")) == [Edit("a", "x", "y")]


def test_carriage_returns_of_the_answer_do_not_matter():
    assert parse(edit("a", "x\ny", "z").replace("\n", "\r\n")) == [Edit("a", "x\ny", "z")]


def test_fences_inside_a_block_belong_to_it():
    assert parse(edit("README.md", "```sh\nls\n```", "```sh\nls -a\n```")) == [
        Edit("README.md", "```sh\nls\n```", "```sh\nls -a\n```")
    ]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", "edit"),
        ("Just change the 2.", "edit"),
        ("<solution>\n</solution>", "edit"),
        ("<solution>\n" + edit("a", "x", "y"), "solution"),
        (solution(edit("a", "x", "y")) * 2, "solution"),
        ("</solution>" + edit("a", "x", "y") + "<solution>", "order"),
        (edit("a", "x", "y") + "\n<solution></solution>", "edit"),
        ("### a\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE", "outside"),
        ("```diff\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n```", "path"),
        ("```diff\n### a\nx\n```", "SEARCH"),
        ("```diff\n### a\n<<<<<<< SEARCH\nx\n>>>>>>> REPLACE\n```", "======="),
        ("```diff\n### a\n<<<<<<< SEARCH\nx\n=======\ny\n```", "REPLACE"),
        ("```diff\n### a\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n", "```"),
        (edit("../a", "x", "y"), "leaves"),
        (edit("pkg/../../a", "x", "y"), "leaves"),
        (edit("/etc/passwd", "x", "y"), "leaves"),
        (edit("C:/a", "x", "y"), "leaves"),
        (edit("~/a", "x", "y"), "leaves"),
        (edit(" ", "x", "y"), "leaves"),
    ],
)
def test_what_is_no_edit(answer, says):
    with pytest.raises(FormatError, match=says):
        parse(answer)
    assert similarity(answer, relevant_file_contents=FILES, golden_patch=GOLDEN).value == -1


@given(st.text(alphabet="`#<>=\n SEARCHPL/adif", max_size=300))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(FormatError):
        parse(text)


# --- Applying them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "after"),
    [
        ([("b.txt", "y", "Y")], "x\nY\nz\n"),
        ([("b.txt", "x\ny", "x")], "x\nz\n"),
        ([("b.txt", "y\n", "")], "x\nz\n"),
        ([("b.txt", "z", "z\nw")], "x\ny\nz\nw\n"),
        ([("./b.txt", "x", "1")], "1\ny\nz\n"),
        ([("b.txt", "x", "1"), ("b.txt", "z", "3")], "1\ny\n3\n"),  # several of one file
        ([("b.txt", "x\ny", "p\ny"), ("b.txt", "p\ny\nz", "q")], "q\n"),  # the second reads what the first wrote
    ],
)
def test_edits_change_their_files(edits, after):
    changed = apply(parse("\n".join(edit(*one) for one in edits)), FILES)
    assert changed == {**FILES, "b.txt": after}


@pytest.mark.parametrize(
    "edits",
    [
        [("b.txt", "not there", "x")],
        [("b.txt", " y", "x")],  # exact spaces
        [("pkg/a.py", "return 2", "return 1")],  # from the beginning of a line, indentation included
        [("new.py", "", "x")],  # a file that was not shown
        [("b.txt", "x\ny", "p"), ("b.txt", "y\nz", "q")],  # overlapping: the first has taken the y away
    ],
)
def test_edits_that_do_not_fit_are_refused(edits):
    answer = "\n".join(edit(*one) for one in edits)
    with pytest.raises(FormatError):
        apply(parse(answer), FILES)
    assert similarity(answer, relevant_file_contents=FILES, golden_patch=GOLDEN).value == -1


def test_a_search_text_found_twice_is_replaced_twice():
    changed = apply([Edit("pkg/a.py", "    return 2", "    return 3")], FILES)
    assert changed["pkg/a.py"].count("return 3") == 2


def test_line_ends_and_a_missing_last_one_stay_as_they_were():
    files = {"dos": "a\r\nb\r\n", "open": "a\nb", "empty": ""}
    after = apply([Edit("dos", "a\nb", "a\nc"), Edit("open", "b", "c"), Edit("empty", "", "new\n")], files)
    assert after == {"dos": "a\r\nc\r\n", "open": "a\nc", "empty": "new\n"}


# --- Similarity ------------------------------------------------------------------------------------------------------


def test_one_zero_and_minus_one():
    def value(answer):
        return similarity(answer, relevant_file_contents=FILES, golden_patch=GOLDEN).value

    assert value(RIGHT) == 1
    assert value(solution(edit("pkg/a.py", "def one():", "def one():"))) == 0  # nothing changed
    assert value("I would change it.") == -1
    there_and_back = solution(edit("b.txt", "x", "q"), edit("b.txt", "q", "x"))
    assert value(there_and_back) == 0


def test_a_needless_block_beside_the_right_one_does_no_harm():
    answer = solution(edit("b.txt", "x", "x"), edit("pkg/a.py", "def one():\n    return 2", "def one():\n    return 1"))
    assert similarity(answer, relevant_file_contents=FILES, golden_patch=GOLDEN).value == 1


def test_partly_right_is_the_ratio_of_the_two_diffs():
    answer = solution(edit("pkg/a.py", "def one():\n    return 2", "def one():\n    return 9"))
    ours = "@@ -1,5 +1,5 @@\n def one():\n-    return 2\n+    return 9\n \n \n def two():"
    golden = ours.replace("9", "1")
    # One character of 71 differs on each side: 2 * 70 / (71 + 71).
    expected = 2 * (len(ours) - 1) / (len(ours) + len(golden))
    score = similarity(answer, relevant_file_contents=FILES, golden_patch=GOLDEN)
    assert score.value == pytest.approx(expected)
    assert score.value == pytest.approx(difflib.SequenceMatcher(None, ours, golden, autojunk=False).ratio())
    assert similarity(answer, relevant_file_contents=FILES, golden_patch=GOLDEN, zero_below=0.999).value == 0
    assert similarity("no edit", relevant_file_contents=FILES, golden_patch=GOLDEN, broken=0.0).value == 0


def test_files_are_averaged_over_the_union():
    both = solution(edit("pkg/a.py", "def one():\n    return 2", "def one():\n    return 1"), edit("b.txt", "x", "q"))
    assert similarity(both, relevant_file_contents=FILES, golden_patch=GOLDEN).value == 0.5
    golden = GOLDEN + "--- a/b.txt\n+++ b/b.txt\n@@ -1,3 +1,3 @@\n-x\n+q\n y\n z\n"
    assert similarity(RIGHT, relevant_file_contents=FILES, golden_patch=golden).value == 0.5
    assert similarity(both, relevant_file_contents=FILES, golden_patch=golden).value == 1
    elsewhere = solution(edit("b.txt", "x", "q"))
    assert similarity(elsewhere, relevant_file_contents=FILES, golden_patch=GOLDEN).value == 0


def git_patch(tmp_path, before: dict, after: dict, *flags: str) -> str:
    for name, files in (("a", before), ("b", after)):
        for path, content in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        (tmp_path / name).mkdir(exist_ok=True)
    done = subprocess.run(["git", "diff", "--no-index", *flags, "a", "b"], cwd=tmp_path, capture_output=True, text=True)
    return (
        done.stdout.replace("a/a/", "a/")
        .replace("b/b/", "b/")
        .replace("rename from a/", "rename from ")
        .replace("rename to b/", "rename to ")
    )


@pytest.mark.parametrize(
    ("before", "after", "edits"),
    [
        ({"f": "a\nb\nc\n"}, {"f": "a\nB\nc\n"}, [("f", "b", "B")]),
        ({"f": "a\nb"}, {"f": "a\nc"}, [("f", "b", "c")]),  # no line break at the end, on either side
        ({"f": "a\nb\n"}, {"f": "a\nb"}, None),  # only the last line break: no change that counts
        ({"f": "a\r\nb\r\n"}, {"f": "a\r\nc\r\n"}, [("f", "b", "c")]),
        ({"f": "a\n", "g": "x\n"}, {"f": "a\n", "g": "y\n"}, [("g", "x", "y")]),
        ({"f": "a\nb\n", "g": "x\n"}, {"g": "x\n"}, [("f", "a\nb\n", "")]),  # deleted: emptied
        ({"f": "".join(f"{i}\n" for i in range(40))}, {"f": "".join(f"{i if i not in (3, 30) else -i}\n" for i in range(40))},
         [("f", "3", "-3"), ("f", "30", "-30")]),
    ],
)  # fmt: skip
def test_the_edits_that_git_would_make_are_worth_one(tmp_path, before, after, edits):
    patch = git_patch(tmp_path, before, after)
    files = dict(before)
    if edits is None:
        with pytest.raises(ValueError, match="golden_patch"):
            golden_changes(patch, files)
        return
    if len(edits) == 2:  # "3" begins many lines, and each is replaced: search for all of it
        edits = [("f", "2\n3\n4\n", "2\n-3\n4\n"), ("f", "29\n30\n31\n", "29\n-30\n31\n")]
    score = similarity(solution(*(edit(*one) for one in edits)), relevant_file_contents=files, golden_patch=patch)
    assert score.value == 1, (patch, score)


def test_new_renamed_and_binary_files_of_a_golden_patch(tmp_path):
    before = {"old.py": "x = 1\ny = 2\nz = 3\n", "keep.py": "k = 1\n", "image.png": b"\0\1"}
    after = {"moved.py": "x = 1\ny = 2\nz = 3\n", "keep.py": "k = 2\n", "new.py": "n = 1\n", "image.png": b"\0\2"}
    golden = golden_changes(
        git_patch(tmp_path, before, after, "-M"), {"old.py": before["old.py"], "keep.py": "k = 1\n"}
    )
    assert golden == {
        "keep.py": "@@ -1 +1 @@\n-k = 1\n+k = 2",
        "new.py": "@@ -0,0 +1 @@\n+n = 1",
        "moved.py": "rename from old.py\nrename to moved.py",
    }
    score = similarity(
        solution(edit("keep.py", "k = 1", "k = 2")),
        relevant_file_contents={"old.py": before["old.py"], "keep.py": "k = 1\n"},
        golden_patch=git_patch(tmp_path, before, after, "-M"),
    )
    assert score.value == pytest.approx(1 / 3)


def test_a_golden_patch_that_does_not_fit_the_files_speaks_for_itself():
    files = {**FILES, "pkg/a.py": FILES["pkg/a.py"].replace("return 2", "return 3")}
    expected = "@@ -1,5 +1,5 @@\n def one():\n-    return 2\n+    return 1\n \n \n def two():"
    assert golden_changes(GOLDEN, files)["pkg/a.py"] == expected
    assert golden_changes(GOLDEN, {"b.txt": "x"}).keys() == {"pkg/a.py"}


@pytest.mark.parametrize("patch", ["", "prose, no patch", "--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n-a\n"])
def test_a_golden_patch_that_is_none_is_the_rows_fault(patch):
    with pytest.raises(ValueError, match="golden_patch"):
        similarity(RIGHT, relevant_file_contents=FILES, golden_patch=patch)


@pytest.mark.parametrize("contents", [[], {}, "nonsense", [{"path": "a"}], {"a": 1}, 3])
def test_files_that_cannot_be_read_are_the_rows_fault(contents):
    with pytest.raises(ValueError, match="relevant_file_contents"):
        similarity(RIGHT, relevant_file_contents=contents, golden_patch=GOLDEN)


def test_files_come_as_a_list_a_mapping_or_json():
    listed = [{"path": path, "content": text} for path, text in FILES.items()]
    assert files_of(listed) == files_of(FILES) == files_of(json.dumps(listed)) == files_of(json.dumps(FILES)) == FILES


def test_long_diffs_are_compared_in_bounded_time():
    """By characters, two diffs of this size would take minutes."""
    before = "".join(f"line {i}\n" for i in range(6000))
    golden_after = before.replace("line 1", "LINE 1")
    ours_after = before.replace("line 1", "LINE 1").replace("line 2", "LINE 2")
    golden, ours = (changes({"f": before}, {"f": after}) for after in (golden_after, ours_after))
    value = swe.agreement(ours, golden)
    assert 0.4 < value < 1


# --- A table of whole rows, through the command line -----------------------------------------------------------------

CODE = FILES["pkg/a.py"]
LONG = "".join(f"line {i}\n" for i in range(60))


def sub(text, *pairs):
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def ud(before, after, path, n=3, prefix=True):
    names = ("a/" + path, "b/" + path) if prefix else (path, path)
    return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), *names, n=n))


def hunks(before, after):
    return "\n".join(list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm=""))[2:])


def sim(before, ours, golden):
    """As SWE-RL has it: on the two diffs, by characters."""
    return difflib.SequenceMatcher(None, hunks(before, ours), hunks(before, golden), autojunk=False).ratio()


MENDED = CODE.replace("one():\n    return 2", "one():\n    return 1")
PATCH = ud(CODE, MENDED, "pkg/a.py")
ONE, ONE_MENDED = "def one():\n    return 2", "def one():\n    return 1"
MENDING = edit("pkg/a.py", ONE, ONE_MENDED)
TABLE: list[tuple] = []


def row(name, answer, value, golden=PATCH, files=FILES):
    TABLE.append((name, answer, value, {"relevant_file_contents": files, "golden_patch": golden}))


for given_row in (one for rows in table("swe_rows").values() for one in rows):
    answer = given_row.get("answer")
    if answer is None:
        answer = solution(*(edit(*one) for one in given_row.get("edits", [("pkg/a.py", ONE, ONE_MENDED)])))
    row(
        given_row["name"],
        answer,
        given_row["value"],
        given_row.get("golden_patch", PATCH),
        given_row.get("files", FILES),
    )
# Rows whose values or texts are computed.
OFF_BY_A_CHARACTER = sub(CODE, ("one():\n    return 2", "one():\n    return 7"))
row(
    "one character off",
    solution(edit("pkg/a.py", ONE, "def one():\n    return 7")),
    sim(CODE, OFF_BY_A_CHARACTER, MENDED),
)
BOTH = sub(CODE, ("return 2", "return 1"))
row("found twice: both", solution(edit("pkg/a.py", "    return 2", "    return 1")), sim(CODE, BOTH, MENDED))
EXPLAINED = sub(CODE, (ONE, ONE + "\n    # why"))
row("another line", solution(edit("pkg/a.py", ONE, ONE + "\n    # why")), sim(CODE, EXPLAINED, MENDED))
TWO = ud(CODE, MENDED, "pkg/a.py") + ud(FILES["b.txt"], "x\nY\nz\n", "b.txt")
row(
    "two files, one done badly",
    solution(MENDING, edit("b.txt", "y", "W")),
    (1 + sim("x\ny\nz\n", "x\nW\nz\n", "x\nY\nz\n")) / 2,
    TWO,
)
LONG_MENDED = sub(LONG, ("line 5\n", "LINE 5\n"), ("line 40\n", "LINE 40\nnew\n"))
LONG_EDITS = [edit("l", "line 4\nline 5\n", "line 4\nLINE 5\n"), edit("l", "line 40", "LINE 40\nnew")]
row("two hunks", solution(*LONG_EDITS), 1, ud(LONG, LONG_MENDED, "l"), {"l": LONG})
row("two hunks, other order", solution(*LONG_EDITS[::-1]), 1, ud(LONG, LONG_MENDED, "l"), {"l": LONG})
row(
    "two hunks, lines off",
    solution(*LONG_EDITS),
    1,
    ud(LONG, LONG_MENDED, "l").replace("-3,7 +3,7", "-6,7 +6,7").replace("-38,7 +38,8", "-41,7 +41,8"),
    {"l": LONG},
)
row(
    "one of two hunks",
    solution(LONG_EDITS[0]),
    sim(LONG, sub(LONG, ("line 5\n", "LINE 5\n")), LONG_MENDED),
    ud(LONG, LONG_MENDED, "l"),
    {"l": LONG},
)
row(
    "deleted lines, no line",
    solution(
        edit("l", "line 4\nline 5", "line 4"),
    ),
    1,
    ud(LONG, sub(LONG, ("line 4\nline 5\n", "line 4\n")), "l"),
    {"l": LONG},
)
row(
    "deleted, REPLACE with an empty line",
    solution(edit("b.txt", "y", "")),
    sim("x\ny\nz\n", "x\n\nz\n", "x\nz\n"),
    ud("x\ny\nz\n", "x\nz\n", "b.txt"),
)
row("empty SEARCH, runaway", solution(edit("l", "", "x" * 100_000)), -1, ud(LONG, LONG_MENDED, "l"), {"l": LONG * 20})
row(
    "file twice in the patch",
    solution(*LONG_EDITS),
    1,
    ud(LONG, sub(LONG, ("line 5\n", "LINE 5\n")), "l") + ud(sub(LONG, ("line 5\n", "LINE 5\n")), LONG_MENDED, "l"),
    {"l": LONG},
)


def test_a_table_of_rows_through_the_command_line(tmp_path):
    lines = [json.dumps({"id": name, "response": answer, **columns}) for name, answer, _, columns in TABLE]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    command = [
        sys.executable, "-m", "cascade_rl", "score", "rewards.swe:similarity", "rows.jsonl", "--workers", "1",
        "--set", "mode=instruct",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line) for line in done.stdout.splitlines()]
    assert [score["error"] for score in scores] == [None] * len(TABLE)
    assert {score["id"]: score["value"] for score in scores} == {
        name: pytest.approx(value) for name, _, value, _ in TABLE
    }


def test_a_thinking_row_without_the_end_of_thought_is_no_edit(tmp_path):
    row = {"response": solution(MENDING), "relevant_file_contents": FILES, "golden_patch": GOLDEN}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    command = [sys.executable, "-m", "cascade_rl", "score", "rewards.swe:similarity", "rows.jsonl", "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert json.loads(done.stdout)["value"] == -1


def test_a_megabyte_is_scored_in_bounded_time():
    before = "".join(f"line {i} with some forty characters of text\n" for i in range(20_000))
    files = {f"f{i}": before for i in range(3)}
    golden = "".join(ud(before, before.replace("line 1", "LINE 1"), path) for path in files)
    answer = solution(*(edit(path, "line 1", "LINE 1 and 2") for path in files))
    begun = time.process_time()
    assert 0.4 < similarity(answer, relevant_file_contents=files, golden_patch=golden).value < 1
    assert time.process_time() - begun < 20


def test_diffs_of_ten_thousand_characters_are_compared_by_characters():
    before = "".join(f"    value_{i} = compute({i})\n" for i in range(100))
    ours, golden = before.replace("compute", "count"), before.replace("compute", "measure")
    assert len(hunks(before, ours)) * len(hunks(before, golden)) > 2e7
    score = similarity(
        solution(edit("f", before.rstrip("\n"), ours.rstrip("\n"))),
        relevant_file_contents={"f": before}, golden_patch=ud(before, golden, "f"),
    )  # fmt: skip
    assert score.value == pytest.approx(sim(before, ours, golden))


def test_off_the_main_thread_there_is_no_alarm_and_the_same_value():
    from concurrent.futures import ThreadPoolExecutor

    answer = solution(edit("pkg/a.py", ONE, "def one():\n    return 7"))
    row = {"relevant_file_contents": FILES, "golden_patch": GOLDEN}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(similarity, answer, **row).result() == similarity(answer, **row)


# --- Execution -------------------------------------------------------------------------------------------------------

TEST_FILE = {
    "test_a.py": "import unittest\nfrom pkg import a\n\nclass T(unittest.TestCase):\n"
    "    def test_one(self): self.assertEqual(a.one(), 1)\n    def test_two(self): self.assertEqual(a.two(), 2)\n"
}


def run(answer, **more):
    row = {
        "relevant_file_contents": FILES, "test_files": TEST_FILE, "test_command": "python3 -m unittest test_a",
        "time_limit_s": 20, **more,
    }  # fmt: skip
    return execution(answer, **row)


def test_a_repair_is_tried_by_its_tests():
    assert run(RIGHT).value == 1
    wrong = solution(edit("pkg/a.py", "def one():\n    return 2", "def one():\n    return 7"))
    score = run(wrong)
    assert score.value == 0
    assert "FAILED" in score.details["says"]
    assert run("no edits").value == -1
    assert run(solution(edit("b.txt", "x", "x"))).value == 0


def test_edits_cannot_change_the_tests():
    files = {**FILES, **TEST_FILE}
    answer = solution(edit("test_a.py", TEST_FILE["test_a.py"].rstrip("\n"), "import unittest"))
    assert run(answer, relevant_file_contents=files).value == 0


needs_packages = pytest.mark.skipif(
    pytest.__file__.startswith("/tmp/"), reason="programs see a folder of their own in place of /tmp, where pytest lies"
)


@needs_packages
def test_names_that_must_pass():
    row = {"test_command": "python3 -m pytest -rA -q -p no:cacheprovider test_a.py", "packages": PYTEST}
    assert run(RIGHT, must_pass=["test_a.py::T::test_one", "test_a.py::T::test_two"], **row).value == 1
    score = run(RIGHT, must_pass=["test_a.py::T::test_three"], **row)
    assert (score.value, score.details["missing"]) == (0, ["test_a.py::T::test_three"])
    leaves = solution(edit("pkg/a.py", "def one():\n    return 2", "import os\nos._exit(0)"))
    assert run(leaves, must_pass=["test_a.py::T::test_one"], **row).value == 0


@needs_packages
def test_names_with_spaces_are_whole_or_cut_off_as_in_swe_bench():
    tests = (
        "import pytest\nfrom pkg import a\n\n@pytest.mark.parametrize('n', ['is one'])\n"
        "def test_one(n): assert a.one() == 1\n"
    )
    for flags, names in (
        ("-rA", ["test_b.py::test_one[is one]", "test_b.py::test_one[is"]),
        ("-v", ["test_b.py::test_one[is one]"]),
    ):
        score = run(
            RIGHT, test_files={"test_b.py": tests}, must_pass=names, packages=PYTEST,
            test_command=f"python3 -m pytest {flags} -p no:cacheprovider test_b.py",
        )  # fmt: skip
        assert score.value == 1, score
    assert swe._passed("FAILED t.py::x - PASSED y\nt.py::z FAILED\n") == set()


def test_a_repair_that_never_ends_fails():
    forever = solution(edit("pkg/a.py", "def one():\n    return 2", "def one():\n    while True: pass"))
    score = run(forever, time_limit_s=1)
    assert (score.value, score.details["status"]) == (0, "time")


PYTEST = ["pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"]


def test_a_command_that_is_not_there_is_the_graders_fault():
    with pytest.raises(Exception, match="no-such-program"):
        run(RIGHT, test_command="no-such-program")
    with pytest.raises(ValueError, match="test_command"):
        run(RIGHT, test_command="")


# --- The judge -------------------------------------------------------------------------------------------------------


class FakeJudge(FakeServer):
    """Answers each request by the next of ``plan``: a status with a body, or with ``hang``. The last one stays."""

    def __init__(self, *plan) -> None:
        in_turn = fake_server.plan(*plan)

        def answer(path, body):
            status, content = in_turn(path, body)
            if content == "hang":
                time.sleep(5)
            return status, content

        super().__init__(answer)

    @property
    def url(self) -> str:
        return f"{super().url}/v1"


def said(*places) -> dict:
    """An answer whose tokens have these likeliest words with their probabilities; the first of each is the token."""
    content = [
        {"token": next(iter(place)), "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in place.items()]}
        for place in places
    ]
    return {"choices": [{"logprobs": {"content": content}}]}


WRONG = solution(edit("pkg/a.py", "def one():\n    return 2", "def one():\n    return 7"))
ROW = {"relevant_file_contents": FILES, "golden_patch": GOLDEN, "problem_statement": "one() must be 1"}


def judged(server, answer=WRONG, **options):
    async def ask():
        return await Judge(base_url=server.url, model="judge", **options).score(answer, **ROW)

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(chat_server, "_WAIT_S", (0.01, 0.02))


def test_the_judges_probability_of_yes():
    with FakeJudge((200, said({"YES": 0.7, "NO": 0.2, "yes": 0.05, "MAYBE": 0.05}))) as server:
        assert judged(server).value == pytest.approx(0.75)
        assert judged(server, normalised=True).value == pytest.approx(0.75 / 0.95)
        path, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert body["messages"][0]["content"].startswith("You are an expert judge evaluating AI assistant interactions.")
    asked = body["messages"][1]["content"]
    assert "one() must be 1" in asked
    assert "### pkg/a.py\ndef one():\n    return 2" in asked
    assert GOLDEN in asked
    assert "--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -1,5 +1,5 @@\n def one():\n-    return 2\n+    return 7" in asked
    assert asked.endswith('Respond with "<judgement>YES</judgement>" or "<judgement>NO</judgement>".')
    assert body["messages"][2] == {"role": "assistant", "content": "<judgement>"}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


def test_without_prefill_the_token_after_the_tag_counts():
    answer = said({"<jud": 1.0}, {"gement>": 1.0}, {"NO": 0.6, "YES": 0.4}, {"</": 1.0})
    with FakeJudge((200, answer)) as server:
        assert judged(server, prefill=False).value == pytest.approx(0.4)
    with (
        FakeJudge((200, said({"Well": 1.0}, {",": 1.0}))) as server,
        pytest.raises(JudgeDown, match="Well"),
    ):
        judged(server, prefill=False)


def test_the_judge_is_asked_only_where_the_edits_do_not_settle_it():
    with FakeJudge((200, said({"YES": 0.5}))) as server:
        assert judged(server, RIGHT).value == 1
        assert judged(server, "prose").value == -1
        assert judged(server, solution(edit("b.txt", "x", "x"))).value == 0
        assert server.asked == []


def test_a_judge_that_stumbles_is_asked_again():
    good = (200, said({"YES": 0.5}))
    with FakeJudge((503, "busy"), (429, "slow down"), (200, "not json"), good) as server:
        assert judged(server).value == pytest.approx(0.5)
        assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("plan", "options", "says"),
    [
        ((500, "broken"), {"tries": 3}, "3 tries.*500"),
        ((404, "no such model"), {}, "404"),
        ((200, {"choices": []}), {}, "log-prob"),
        ((200, {"choices": [{"logprobs": None}]}), {}, "log-prob"),
        ((200, {"choices": [{"logprobs": {"content": []}}]}), {}, "log-prob"),
        ((200, {"choices": [{"logprobs": {"content": [{"token": "YES"}]}}]}), {}, "log-prob"),
        ((200, '"just text"'), {}, "log-prob"),
        ((200, said({"The": 0.9, "Sure": 0.1})), {}, "YES"),
        ((401, "no key"), {}, "401"),
        ((429, "slow down"), {"tries": 2}, "2 tries.*429"),
        ((200, '{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "YES", "logprob": NaN}]}]}}]}'), {}, "numbers"),
        ((200, "hang"), {"tries": 1, "request_timeout_s": 0.2}, "ReadTimeout"),
    ],
)  # fmt: skip
def test_a_judge_that_is_down_is_an_error_and_no_score(plan, options, says):
    with FakeJudge(plan) as server, pytest.raises(JudgeDown, match=says):
        judged(server, **options)


def test_no_server_at_all():
    async def ask():
        return await Judge(base_url="http://127.0.0.1:9/v1", model="m", tries=2).score(WRONG, **ROW)

    with pytest.raises(JudgeDown, match="ConnectError"):
        asyncio.run(ask())


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with FakeJudge((200, said({"YES": 0.5}))) as server:
        judged(server, api_key_env="JUDGE_KEY")
        assert server.headers_seen[0]["Authorization"] == "Bearer secret"
    with pytest.raises(JudgeDown, match="NO_SUCH_KEY"):
        Judge(base_url="http://x/v1", model="m", api_key_env="NO_SUCH_KEY")


def test_through_the_scorer_errors_are_counted_and_concurrency_is_bounded():
    from cascade_rl.rewarding import Scorer
    from cascade_rl.rewarding.records import RewardSettings
    from cascade_rl.types import Prompt, Rollout, Stop

    with FakeJudge((200, said({"YES": 0.25}))) as up, FakeJudge((500, "down")) as down:
        for server, value, error in ((up, 0.25, None), (down, 0.0, "JudgeDown")):
            params = {"base_url": server.url, "model": "m", "tries": 2}
            settings = RewardSettings("rewards.swe:Judge", params, timeout_s=30, failure=0.0, concurrency=3)
            with Scorer(settings, [], 1, thinking_default=False) as scorer:
                futures = [
                    scorer.submit(Prompt(str(i), (), ROW), Rollout(str(i), 0, (), (), WRONG, Stop.EOS, 0))
                    for i in range(8)
                ]
                scores = [future.result(60) for future in futures]
            assert all((error or "") in (score.error or "") for score in scores)
            if error is None:
                assert [score.value for score in scores] == [pytest.approx(value)] * 8
            else:
                assert scorer.summary()["errors"] == 8


assert shutil.which("git"), "these tests compare with git"


def test_files_that_are_null_are_not_the_rows_own():
    """Arrow gives every row the paths of all rows."""
    assert files_of({"a.py": "x\n", "b.py": None}) == files_of({"a.py": "x\n"})
    with pytest.raises(ValueError, match="file"):
        files_of({"a.py": None})
