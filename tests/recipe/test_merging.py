"""Laws of merging trees, and stages that meet by name."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.recipe.merging import merged, merged_stages
from cascade_rl.recipe.reading import parse
from cascade_rl.recipe.tree import plain

KEYS = st.sampled_from(["a", "b", "c", "d"])
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.lists(st.integers(0, 3), max_size=2)
TREES = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=3),
    lambda inner: st.dictionaries(KEYS, LEAVES | inner, max_size=3),
    max_leaves=8,
)


def tree(value: Any, file: str = "x.yaml") -> Any:
    return parse(yaml.safe_dump(value), file)


def paths(value: Any, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every leaf of plain mappings by its path; an empty mapping counts as a leaf."""
    if not isinstance(value, dict) or not value:
        return {above: value}
    return {path: leaf for key, inner in value.items() for path, leaf in paths(inner, (*above, key)).items()}


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_nothing_and_itself_change_nothing(value):
    assert merged(tree({}), tree(value)) == value
    assert merged(tree(value), tree({})) == value
    assert merged(tree(value), tree(value)) == value


@given(TREES, TREES)
@settings(max_examples=60, deadline=None)
def test_the_child_wins_everywhere_and_the_arguments_stay(under, over):
    below, above = tree(under), tree(over)
    result = merged(below, above)
    assert below == under
    assert above == over
    if over:
        found = paths(plain(result))
        for path, leaf in paths(over).items():
            if leaf != {}:  # an empty mapping adds nothing, so others may stand under it
                assert found[path] == leaf
    assert set(result) == set(under) | set(over)


@given(*[st.dictionaries(KEYS, st.dictionaries(KEYS, st.integers(0, 9), max_size=3), max_size=3)] * 3)
@settings(max_examples=60, deadline=None)
def test_merging_is_associative_where_shapes_agree(a, b, c):
    a, b, c = tree(a), tree(b), tree(c)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


def test_each_key_keeps_the_place_of_the_file_it_came_from():
    result = merged(tree({"a": {"x": 1, "y": 2}}, "base.yaml"), tree({"a": {"y": 3}}, "child.yaml"))
    assert result == {"a": {"x": 1, "y": 3}}
    assert result["a"].places["x"].file == "base.yaml"
    assert result["a"].places["y"].file == result.places["a"].file == "child.yaml"


def test_lists_replace():
    assert merged(tree({"data": [1, 2]}), tree({"data": [3]})) == {"data": [3]}


def order(base: str, child: str) -> str:
    """Names after merging stages called by one letter each."""
    result = merged_stages(tree([{"name": name} for name in base]), tree([{"name": name} for name in child]))
    return "".join(stage["name"] for stage in result)


@pytest.mark.parametrize(
    ("base", "child", "result"),
    [
        ("abcd", "", "abcd"),
        ("abcd", "b", "abcd"),  # one listed is edited where it stands
        ("abcd", "db", "adcb"),  # two listed the other way round are swapped; a and c stay
        ("abcd", "dcba", "dcba"),
        ("abcd", "cad", "cbad"),  # the slots of a, c, d hold c, a, d
        ("abcd", "bx", "abxcd"),  # a new one goes behind the listed one before it
        ("abcd", "bxy", "abxycd"),
        ("abcd", "x", "abcdx"),  # with none before it, to the end
        ("abcd", "xby", "abycdx"),
        ("abcd", "dxb", "adxcb"),  # d moved to b's slot, and x goes along
        ("", "ab", "ab"),
        ("ab", "aa", "aab"),  # the second a counts as new; that names repeat is reported later
        ("aab", "ba", "baa"),
    ],
)
def test_where_stages_go(base, child, result):
    assert order(base, child) == result


@given(st.permutations("abcdef"), st.lists(st.sampled_from("abcdefxyz"), unique=True))
@settings(max_examples=100, deadline=None)
def test_stages_are_neither_lost_nor_doubled_and_unlisted_ones_keep_their_order(base, child):
    result = order("".join(base), "".join(child))
    assert sorted(result) == sorted(set(base) | set(child))
    assert [name for name in result if name not in child] == [name for name in base if name not in child]
    listed = [name for name in child if name in base]
    assert [name for name in result if name in listed] == listed


def test_a_listed_stage_is_merged_deeply():
    base = tree([{"name": "a", "rollout": {"top_p": 0.9, "top_k": 5}, "data": [1, 2]}])
    child = tree([{"name": "a", "rollout": {"top_k": 7}, "data": [3]}])
    assert merged_stages(base, child) == [{"name": "a", "rollout": {"top_p": 0.9, "top_k": 7}, "data": [3]}]


def test_entries_that_are_no_stages_are_kept_for_validation():
    assert merged_stages(tree([{"name": "a"}, 5]), tree([None, {"kind": "rl"}])) == [
        {"name": "a"},
        5,
        None,
        {"kind": "rl"},
    ]
