"""Every shipped recipe passes `check` offline and says in its first lines what it is for."""

from pathlib import Path

import pytest

from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.recipe import load_recipe
from cascade_rl.store import Store

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes(path, tmp_path):
    loaded = load_recipe(path)
    assert make_plan(loaded, Store(tmp_path)).stages
    assert path.read_text().startswith("# ")
