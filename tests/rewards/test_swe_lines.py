"""Line ends and lines that look like marks survive in edits and patches."""

from __future__ import annotations

import difflib

import pytest
import unidiff
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.swe import similarity
from rewards.swe_edits import Edit, FormatError, apply, parse
from rewards.swe_patches import diff, patched
from tests.rewards.case_files import cases

TEXTS = st.text(alphabet="ab \t+-@\\\n\n\n\r\x0b\x0c\x1c\x85\u2028", max_size=40) | st.text(max_size=40)
LINES = st.lists(st.sampled_from(["a", "b", "", "  ", "=======", "\x0c", "c\u2028d", "e\rf"]), max_size=12)


def block(body, path="f"):
    return f"```diff\n### {path}\n{body}\n```"


def edit(search, replace):
    return block(f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE")


def file_of(patch):
    return unidiff.PatchSet(f"--- a/f\n+++ b/f\n{patch}\n")[0]


@given(TEXTS, TEXTS)
@settings(max_examples=200, deadline=None)
def test_a_patch_gives_back_any_text(before, after):
    text = diff(before, after)
    assert (text == "") == (before == after)
    if text:
        assert patched(before, file_of(text)) == after


@pytest.mark.parametrize(
    "after", ["", "\n", "\n\n", "a", "a\n", "a\n\n\n", "a\r\n", "b\r", "\x0c\n", "\u2028", "a\nb\nc"]
)
@pytest.mark.parametrize(
    "before", ["", "\n", "\n\n", "a", "a\n", "a\n\n\n", "a\r\n", "b\r", "\x0c\n", "\u2028", "a\nb\n"]
)
def test_a_patch_gives_back_the_ends_of_a_text(before, after):
    if before != after:
        assert patched(before, file_of(diff(before, after))) == after


@given(LINES, LINES, st.sampled_from(["", "\n", "\n\n\n"]), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=200, deadline=None)
def test_an_answer_equal_to_the_golden_patch_is_worth_one(before, after, end, line_end):
    """The whole file is replaced; the patch is as Python's difflib writes it, which knows nothing of ours."""
    old, new = "\n".join(["head", *before, "tail"]), "\n".join(["head", *after, "end"])
    files = {"f": (old + end).replace("\n", line_end)}
    lines = [[f"{line}\n" for line in (text + end).removesuffix("\n").split("\n")] for text in (old, new)]
    golden = "".join(difflib.unified_diff(*lines, "a/f", "b/f"))
    score = similarity(edit(old, new), relevant_file_contents=files, golden_patch=golden)
    assert score.value == 1.0


@pytest.mark.parametrize("blank", ["", "\n", "\n\n", "\n\n\n\n"])
def test_a_golden_patch_keeps_the_blank_lines_at_the_end(blank):
    """The context of a patch whose change is near the end of the file holds its blank lines."""
    files = {"f": f"a\nb\n{blank}"}
    context = " \n" * min(3, len(blank))
    golden = f"--- a/f\n+++ b/f\n@@ -1,{2 + len(context) // 2} +1,{2 + len(context) // 2} @@\n a\n-b\n+c\n{context}"
    assert similarity(edit("b", "c"), relevant_file_contents=files, golden_patch=golden).value == 1.0
    stripped = similarity(edit("b", "c"), relevant_file_contents=files, golden_patch=golden.rstrip("\n "))
    assert stripped.value == 1.0


def test_blank_lines_at_the_end_are_lines_like_others():
    files = {"f": "a\nb\n\n\n"}
    golden = "--- a/f\n+++ b/f\n@@ -1,4 +1,2 @@\n a\n b\n-\n-\n"

    def value(answer):
        return similarity(answer, relevant_file_contents=files, golden_patch=golden).value

    assert value(edit("b\n\n\n", "b\n")) == 1.0
    assert 0 < value(edit("b\n\n\n", "b\n\n")) < 1  # one blank line too many
    assert value(edit("b", "b")) == 0


def test_a_break_after_the_last_line_alone_is_no_difference():
    """The grammar of edits cannot say whether the last line that it writes has one."""
    golden = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n"
    assert similarity(edit("b", "c"), relevant_file_contents={"f": "a\nb"}, golden_patch=golden).value == 1.0
    # A row whose text has lost its last break still fits its patch.
    golden = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert similarity(edit("b", "c"), relevant_file_contents={"f": "a\nb"}, golden_patch=golden).value == 1.0


@pytest.mark.parametrize(("text", "body", "after"), cases("swe_dividers"))
def test_marks_within_an_edit_are_read_by_the_file(text, body, after):
    if after is None:
        with pytest.raises(FormatError):
            apply(parse(block(body)), {"f": text})
        return
    assert apply(parse(block(body)), {"f": text}) == {"f": after}


def test_later_edits_are_read_by_what_earlier_ones_left():
    answer = "\n".join([edit("Title", "Title\n======="), edit("Title\n=======\nold", "New\n=======\nnew")])
    assert apply(parse(answer), {"f": "Title\nold\n"}) == {"f": "New\n=======\nnew\n"}


def test_an_edit_full_of_rules_is_refused_at_once():
    with pytest.raises(FormatError, match="100"):
        parse(edit("x", "=======\n" * 100_000))


@given(TEXTS, TEXTS, TEXTS)
@settings(max_examples=200, deadline=None)
def test_an_edit_leaves_all_other_lines_as_they_were(before, middle, after):
    files = {"f": f"{before}\nUNIQUE LINE\n{after}"}
    middle = middle.replace("\r\n", "\n")
    done = apply([Edit("f", "UNIQUE LINE", f"<{middle}>")], files)["f"]
    assert done.startswith(f"{before}\n<")
    assert done.endswith(f">\n{after}")


# --- Golden patches as rows have them ---------------------------------------------------------------------------------


def golden(patch, before, after):
    """What the edit that makes ``after`` of all of ``before`` earns under ``patch``."""
    answer = edit(before.removesuffix("\n"), after.removesuffix("\n"))
    return similarity(answer, relevant_file_contents={"f": before}, golden_patch=f"--- a/f\n+++ b/f\n{patch}").value


def test_lines_put_before_the_first_one_make_no_new_file():
    """`git diff -U0` begins such a hunk as that of a new file: at line 0."""
    assert golden("@@ -0,0 +1,2 @@\n+new\n+lines\n", "a\nb\n", "new\nlines\na\nb\n") == 1
    assert golden("@@ -0,0 +1,2 @@\n+new\n+lines\n", "a\nb\n", "new\nlines\n") < 1


def test_a_patch_that_lost_its_last_break_is_whole():
    patch = "@@ -1,2 +1,2 @@\r\n a\r\n-b\r\n+c\r"
    answer = edit("a\nb", "a\nc")
    text = f"--- a/f\r\n+++ b/f\r\n{patch}"
    assert similarity(answer, relevant_file_contents={"f": "a\r\nb\r\n"}, golden_patch=text).value == 1


@pytest.mark.parametrize("blank", ["", " ", "    "])
def test_context_of_blanks_may_be_stripped_from_a_patch(blank):
    """At its end by ``strip()``, in its middle by editors that strip every line."""
    before, after = f"a\n{blank}\nb\n{blank}\n", f"a\n{blank}\nc\n{blank}\n"
    assert golden("@@ -1,4 +1,4 @@\n a\n\n-b\n+c", before, after) == 1


def test_exact_context_goes_before_blank_lines_nearby():
    """The hunk's line number is off by two; the empty line is the one it means, the line of blanks is nearer."""
    before, after = "  \nx\n\nx\n", "  \nx\n\ny\n"
    assert golden("@@ -2,2 +2,2 @@\n \n-x\n+y\n", before, after) == 1
