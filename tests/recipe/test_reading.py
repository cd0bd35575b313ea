import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.recipe.problems import RecipeError
from cascade_rl.recipe.reading import parse, read_yaml


def test_yaml_1_2_scalars():
    read = parse("{a: 2e-6, b: no, c: on, d: true, e: 0x10, f: 1_000, g: ~, h: 1., i: .5, j: -3, k: 08}", "x")
    assert read == {
        "a": 2e-6, "b": "no", "c": "on", "d": True, "e": 16, "f": "1_000", "g": None, "h": 1.0, "i": 0.5, "j": -3, "k": 8,
    }  # fmt: skip


def test_places_are_lines_of_the_file():
    read = parse("a: 1\nb:\n  - x\n  - c: 2\n", "f.yaml")
    assert str(read.places["b"]) == "f.yaml:2"
    assert str(read["b"].places[1]) == "f.yaml:4"
    assert str(read["b"][1].places["c"]) == "f.yaml:4"


def test_a_key_twice_names_both_lines():
    with pytest.raises(RecipeError, match=r"f\.yaml:3: a: stands twice; the first one is on line 1"):
        parse("a: 1\nb: 2\na: 3\n", "f.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("", "is empty"),
        ("- a", "must be a mapping"),
        ("a: !!python/object:os.system x", "write a plain value"),
    ],
)
def test_unreadable_files(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_yaml(path, "r.yaml")


def test_missing_folder_and_binary(tmp_path):
    for path, message in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(RecipeError, match=message):
            read_yaml(path, str(path))
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(RecipeError, match="UTF-8"):
        read_yaml(tmp_path / "b.yaml", "b.yaml")


@given(st.text(max_size=60))
def test_any_text_parses_or_says_why(text):
    try:
        parse(text, "x")
    except RecipeError as error:
        assert str(error)
