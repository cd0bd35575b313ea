from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from cascade_rl.recipe import Place, Problem, RecipeError, load_recipe
from cascade_rl.recipe.reading import parse, read_yaml


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
    assert [str(problem) for problem in caught.value.problems] == [
        "x.yaml:2: b.c: stands twice; the first one is on line 2",
        "x.yaml:3: a: stands twice; the first one is on line 1",
    ]


def test_a_duplicate_key_in_a_stage_is_named_by_the_stage():
    text = "stages:\n  - name: math\n    steps: 1\n    steps: 2\n"
    assert error_of(text) == "x.yaml:4: stages.math.steps: stands twice; the first one is on line 3"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: b: c\n", "x.yaml:1:5", "a colon and a space stand in text without quotes"),
        ("a:\n\tb: 1\n", "x.yaml:2:1", "a tab cannot indent YAML"),
        ("a: [1, 2\nb: 3\n", "x.yaml:2:2", "a list is opened by ["),
        ("a: {b: 1\n", "x.yaml:2:1", "a mapping is opened by {"),
        ("a: 'b\n", "x.yaml:2:1", "a quote is opened and never closed"),
        ('a: "####\\s"\n', "x.yaml:1:10", "put patterns in single quotes"),
        ("a: @b\n", "x.yaml:1:4", "needs quotes"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1", "one file holds one recipe"),
        ("a: 1\n  b: 2\n", "x.yaml:2:4", "the indentation is off"),
        ("a: &x 1\nb: *x\n", "x.yaml:2:4", "aliases (*name) are not used in recipes"),
        ("a: 1\nb: \x07\n", "x.yaml:2:4", "a control character"),
    ],
)
def test_syntax_errors_say_where_and_what_to_look_for(text, place, words):
    message = error_of(text)
    assert message.startswith(f"{place}: not valid YAML: ")
    assert words in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: !!python/object/apply:os.system [ls]",
            "x.yaml:1: a: the tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("a: !secret x", "x.yaml:1: a: the tag !secret is not used here"),
        ("a: !!int ten", "x.yaml:1: a: must be a number"),
        ("a:\n  <<: {b: 1}", "x.yaml:2: a.<<: merge keys are not used here"),
        ("? [a, b]\n: 1", "x.yaml:1: must be a word, as all keys"),
        ("a: 99999999999999999999", "x.yaml:1: a: must be a number of at most 9223372036854775807"),
        ("a: " + "9" * 5000, "x.yaml:1: a: must be a number of at most"),
        ('a: "\\ud800"', "x.yaml:1: a: holds half of a surrogate pair"),
        ("a: " + "[" * 60 + "]" * 60, "x.yaml:1: a.0.0.0: nested deeper than 50 levels"),
        ("[" * 5000, "x.yaml: nested deeper than 50 levels"),
    ],
)
def test_what_a_recipe_has_no_use_for_is_refused(text, message):
    assert error_of(text).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "r.yaml: the file is empty; a recipe needs at least name, model and stages"),
        (b"# only a comment\n", "r.yaml: the file is empty; a recipe needs at least name, model and stages"),
        (b"- a\n", "r.yaml:1: the file must be a mapping of keys such as name, model and stages, not a list"),
        (b"word\n", "r.yaml:1: the file must be a mapping of keys such as name, model and stages, not a single value"),
        (b"a: 1\nb: \xff\n", "r.yaml:2: the file is not UTF-8 text: byte 0xff; save it as UTF-8"),
    ],
)
def test_files_that_hold_no_recipe(folder, content, message):
    Path("r.yaml").write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe("r.yaml")
    assert str(caught.value) == f"{message}\n1 problem in r.yaml"


def test_files_that_cannot_be_read(folder):
    Path("recipes").mkdir()
    Path("recipes/math.yaml").write_text("name: x")
    cases = {
        "recipes/maths.yaml": "there is no such file; did you mean recipes/math.yaml?",
        "nowhere/x.yaml": "there is no such file; there is no folder nowhere either",
        "recipes": "this is a folder; name the YAML file inside it",
        "a\0b.yaml": "the file cannot be read",
    }
    for path, message in cases.items():
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        assert message in caught.value.problems[0].message


def test_a_byte_order_mark_is_not_part_of_the_first_key(folder):
    Path("r.yaml").write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml(Path("r.yaml"), "r.yaml") == {"name": "x"}


def test_an_error_survives_pickling_with_its_problems():
    error = RecipeError([Problem(Place("x.yaml", 3), "a.b", "wrong")], "x.yaml")
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy) == "x.yaml:3: a.b: wrong\n1 problem in x.yaml"
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
