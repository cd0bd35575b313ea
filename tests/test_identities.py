"""The identities of all stages of all shipped recipes: what moves one throws finished work of its users away.

Whoever changes them on purpose writes the new ones with ``python -m tests.test_identities`` and says why in CHANGELOG.md.
Contents of files and source code are left out, so that only keys, rules and revisions move them.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import yaml

from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.recipe import DataSource, StageConfig, load_recipe
from cascade_rl.store import Store, identity_fields

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.yaml"))
GOLDEN = Path(__file__).with_name("identities.yaml")


def source_of(source: DataSource, recipe_path: Path) -> dict:
    return identity_fields(source)


def identities(name: str, store: Path) -> dict[str, str]:
    """Stage -> identity, as if all files and all source code had the same content."""
    with (
        mock.patch("cascade_rl.inputs.data_fingerprint", source_of),
        mock.patch("cascade_rl.data.exclusion.fingerprint", source_of),
        mock.patch("cascade_rl.inputs.load_reward", lambda config, search: config),
        mock.patch("cascade_rl.inputs.reward_fingerprint", lambda config: config.use),
        mock.patch("cascade_rl.orchestrator.plan.builder_fingerprint", lambda model: model),
        mock.patch("cascade_rl.orchestrator.plan.plan_benchmarks", return_value=[]),
    ):
        return {
            stage.name: stage.identity for stage in make_plan(load_recipe(ROOT / "recipes" / name), Store(store)).stages
        }


@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_keeps_its_identity(name, tmp_path):
    assert identities(name, tmp_path) == yaml.safe_load(GOLDEN.read_text())[name]


def test_a_revision_moves_its_kind_and_what_follows(tmp_path, monkeypatch):
    before = identities("quickstart.yaml", tmp_path)
    monkeypatch.setattr("cascade_rl.recipe.RlStage.REVISIONS", {2: "another loss"})
    after = identities("quickstart.yaml", tmp_path)
    same = {name for name in before if before[name] == after[name]}
    assert same == {"sft-1", "sft-2", "reward-model"}


def test_the_first_revision_has_no_number():
    assert StageConfig.revision() == 1


if __name__ == "__main__":
    found = {name: identities(name, Path("/nowhere")) for name in RECIPES}
    GOLDEN.write_text("# Written by python -m tests.test_identities\n" + yaml.safe_dump(found, sort_keys=False))
