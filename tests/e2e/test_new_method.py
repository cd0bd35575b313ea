"""recipes/new-method.yaml as a whole run: losses and advantages by import path do what docs/new-method.md says."""

import math

import pytest

from tests.e2e import cascade
from tests.e2e.test_variants import run

pytestmark = pytest.mark.slow
RECIPE = "recipes/new-method.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("new-method")
    code, output = run(root, recipe=RECIPE)
    assert code == 0, output
    return root


def test_a_loss_and_an_advantage_of_ones_own_train(trained):
    rows = cascade.metrics(trained, "own", "new-method")
    assert len(rows) == 3
    assert all(row["grad_norm"] > 0 and row["update/skipped"] == 0 for row in rows)
    # On-policy no weight comes near its bound of 1.5, so the loss is the policy gradient: its metric says so.
    assert all(row["loss/bounded"] == 0 for row in rows)


def test_gspo_and_reinforce_pp_train(trained):
    rows = cascade.metrics(trained, "shipped", "new-method")
    assert len(rows) == 3
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    # The second update of a batch is off-policy, and the paper's ranges are narrow.
    assert all(0 < row["loss/clipped"] < 1 for row in rows)
    assert len(set(cascade.weights(trained, "new-method").values())) == 2
