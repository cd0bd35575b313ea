from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from cascade_rl.recipe import Problem, RecipeError, SourceLine, load_recipe
from cascade_rl.recipe.reading import parse, read_yaml
from tests.messages import mentions, says, says_each


def error_of(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(text, "x.yaml")
    return str(caught.value.problems[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-6", 2e-6),
        ("2E6", 2e6),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("10_000", "10_000"),
        ("12:30:00", "12:30:00"),
        ("2026-11-24", "2026-11-24"),
        ("'2e-6'", "2e-6"),
        ("1.2.3", "1.2.3"),
        ("true\n", True),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = parse(text, "x.yaml")
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_entry_keeps_its_line():
    tree = parse("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n", "x.yaml")
    assert tree == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    assert (tree.places["a"].line, tree.places["b"].line) == (1, 2)
    assert [place.line for place in tree["b"].places] == [3, 4]
    assert (tree["b"][1].places["c"].line, tree["b"][1].places["d"].line) == (4, 5)
    assert tree.places["a"].file == "x.yaml"


def test_keys_are_words_whatever_they_look_like():
    assert parse("{on: 1, 2: x, true: y}", "x.yaml") == {"on": 1, "2": "x", "true": "y"}


def test_duplicate_keys_are_all_reported_with_both_lines():
    with pytest.raises(RecipeError) as caught:
        parse("a: 1\nb: {c: 1, c: 2}\na: 2\n", "x.yaml")
    found = [str(problem) for problem in caught.value.problems]
    says_each(found, ("x.yaml:2: b.c", "twice", "2"), ("x.yaml:3: a", "twice", "1"))


def test_a_duplicate_key_in_a_stage_is_named_by_the_stage():
    text = "stages:\n  - name: math\n    steps: 1\n    steps: 2\n"
    says(error_of(text), "x.yaml:4: stages.math.steps", "twice", "3")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: b: c\n", "x.yaml:1:5", "colon"),
        ("a:\n\tb: 1\n", "x.yaml:2:1", "tab"),
        ("a: [1, 2\nb: 3\n", "x.yaml:2:2", "list ["),
        ("a: {b: 1\n", "x.yaml:2:1", "mapping {"),
        ("a: 'b\n", "x.yaml:2:1", "quote closed"),
        ('a: "####\\s"\n', "x.yaml:1:10", "single quotes"),
        ("a: @b\n", "x.yaml:1:4", "quotes"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1", "one recipe"),
        ("a: 1\n  b: 2\n", "x.yaml:2:4", "indentation"),
        ("a: &x 1\nb: *x\n", "x.yaml:2:4", "aliases"),
        ("a: 1\nb: \x07\n", "x.yaml:2:4", "control"),
    ],
)
def test_syntax_errors_say_where_and_what_to_look_for(text, place, words):
    says(error_of(text), place, "YAML", *words.split())


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (
            "a: !!python/object/apply:os.system [ls]",
            "x.yaml:1: a",
            "tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("a: !secret x", "x.yaml:1: a", "tag !secret"),
        ("a: !!int ten", "x.yaml:1: a", "number ten"),
        ("a:\n  <<: {b: 1}", "x.yaml:2: a.<<", "merge"),
        ("? [a, b]\n: 1", "x.yaml:1", "word keys"),
        ("a: 99999999999999999999", "x.yaml:1: a", "number 9223372036854775807"),
        ("a: " + "9" * 5000, "x.yaml:1: a", "number 9223372036854775807"),
        ('a: "\\ud800"', "x.yaml:1: a", "surrogate"),
        ("a: " + "[" * 60 + "]" * 60, "x.yaml:1: a.0.0.0", "deeper 50"),
        ("[" * 5000, "x.yaml", "deeper 50"),
    ],
)
def test_what_a_recipe_has_no_use_for_is_refused(text, place, words):
    says(error_of(text), place, *words.split())


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        (b"", "r.yaml", "empty name model stages"),
        (b"# only a comment\n", "r.yaml", "empty name model stages"),
        (b"- a\n", "r.yaml:1", "mapping list name model stages"),
        (b"word\n", "r.yaml:1", "mapping value name model stages"),
        (b"a: 1\nb: \xff\n", "r.yaml:2", "UTF-8 0xff"),
    ],
)
def test_files_that_hold_no_recipe(folder, content, place, words):
    Path("r.yaml").write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe("r.yaml")
    says_each([str(problem) for problem in caught.value.problems], (place, *words.split()))
    *_, last = str(caught.value).splitlines()
    assert mentions(last, "1", "r.yaml")


def test_files_that_cannot_be_read(folder):
    Path("recipes").mkdir()
    Path("recipes/math.yaml").write_text("name: x")
    cases = {
        "recipes/maths.yaml": "no file recipes/math.yaml",
        "nowhere/x.yaml": "no file folder nowhere",
        "recipes": "folder inside",
        "a\0b.yaml": "read",
    }
    for path, words in cases.items():
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        assert mentions(caught.value.problems[0].message, *words.split()), path


def test_a_byte_order_mark_is_not_part_of_the_first_key(folder):
    Path("r.yaml").write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml(Path("r.yaml"), "r.yaml") == {"name": "x"}


def test_an_error_survives_pickling_with_its_problems():
    error = RecipeError([Problem(SourceLine("x.yaml", 3), "a.b", "wrong")], "x.yaml")
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy) == str(error)
    assert str(copy).splitlines()[0] == "x.yaml:3: a.b: wrong"
    assert (copy.problems[0].file, copy.problems[0].line) == ("x.yaml", 3)


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(text):
    """Also under free keys such as `args`: an identity is made of JSON, which has none of these."""
    with pytest.raises(RecipeError, match=r"2: a\.b: .*finite"):
        parse(f"\na: {{b: {text}}}\n", "recipe.yaml")


@pytest.mark.parametrize("text", ['"a\\0b"', '"\\0"'])
def test_null_characters_are_refused_wherever_they_stand(text):
    with pytest.raises(RecipeError, match=r"1: a: .*null"):
        parse(f"a: {text}\n", "recipe.yaml")
    with pytest.raises(RecipeError, match="null"):
        parse(f"{text}: 1\n", "recipe.yaml")
