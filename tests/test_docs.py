"""What the documentation names is there."""

import ast
import re
from pathlib import Path

import pytest

from cascade_rl.recipe.keys_page import keys_page

ROOT = Path(__file__).parents[1]
CITED = re.compile(r"`(tests/[\w/]+\.py)::(\w+(?:::\w+)*)`")


def names_in(file: Path) -> set[str]:
    """Names of its test functions, those of classes as ``Class::test``."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_every_test_that_the_pitfalls_page_cites_exists():
    cited = CITED.findall((ROOT / "docs/pitfalls.md").read_text())
    assert len(cited) >= 28, "at least one for each pitfall"
    missing = [f"{file}::{name}" for file, name in cited if name not in names_in(ROOT / file)]
    assert missing == []


def test_every_pitfall_has_its_row():
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/pitfalls.md").read_text(), flags=re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, 29))


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_within_the_repository_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_page_of_keys_is_that_of_the_schema():
    assert (ROOT / "docs/keys.md").read_text() == keys_page(), "python -m cascade_rl.recipe.keys_page > docs/keys.md"
