"""Which weights decay: one rule for every kind of stage."""

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.stages.trl.trainer import inherit_moments, named_order
from cascade_rl.training.model import load_model
from cascade_rl.training.sharding.replicated import adamw, decay_groups
from cascade_rl.types import CascadeError
from tests.training.test_update import make_policy


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return load_model(folder, torch.device("cpu"))


def config(**keys):
    return OptimizerConfig(learning_rate=0.1, **keys)


def decaying(model, settings):
    """Names of the parameters that one step without any gradient makes smaller: by 1 - rate x decay."""
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = adamw(model.parameters(), settings)
    return {names[id(p)] for group in optimizer.param_groups for p in group["params"] if group["weight_decay"] > 0}


def test_matrices_decay_and_norms_do_not(model):
    every = {name for name, _ in model.named_parameters()}
    norms = {name for name in every if "norm" in name}
    assert len(norms) == 2 * 4 + 1  # of each layer two, and those of queries and keys; and the last
    assert decaying(model, config(weight_decay=0.1)) == every - norms
    assert decaying(model, config(weight_decay=0.1, weight_decay_on="matrices")) == every - norms
    assert decaying(model, config(weight_decay=0.1, weight_decay_on="all")) == every
    assert decaying(model, config(weight_decay_on="all")) == set()


def test_one_group_where_all_decay_alike(model):
    parameters = list(model.parameters())
    for keys in ({}, {"weight_decay": 0.1, "weight_decay_on": "all"}):
        (group,) = decay_groups(parameters, config(**keys))
        assert group["params"] == parameters
        assert group["weight_decay"] == keys.get("weight_decay", 0.0)
    first, second = decay_groups(parameters, config(weight_decay=0.1))
    assert [id(p) for p in first["params"]] == [id(p) for p in parameters if p.dim() > 1]
    assert [id(p) for p in second["params"]] == [id(p) for p in parameters if p.dim() == 1]


def test_a_step_by_hand():
    """No gradient but zeros, rate 0.1, decay 0.5: a matrix of 1 becomes 0.95, a norm of 1 stays."""
    layer = torch.nn.LayerNorm(3)
    matrix = torch.nn.Parameter(torch.ones(2, 2))
    parameters = [matrix, *layer.parameters()]
    for chosen, expected in (("matrices", 1.0), ("all", 0.95)):
        for p in parameters:
            p.data.fill_(1.0)
            p.grad = torch.zeros_like(p)
        adamw(parameters, config(weight_decay=0.5, weight_decay_on=chosen)).step()
        assert float(matrix.detach().mean()) == pytest.approx(0.95)
        assert float(layer.weight.detach().mean()) == pytest.approx(expected)


def test_transformers_leaves_out_the_same(model):
    """The rule by dimensions and transformers' own by names agree on models that this project trains."""
    from transformers import Trainer

    parameters = {name for name, _ in model.named_parameters()}  # a tied head is named once
    assert parameters & set(Trainer.get_decay_parameter_names(None, model)) == decaying(model, config(weight_decay=0.1))


@pytest.mark.parametrize("of_parent", ["matrices", "all"])
@pytest.mark.parametrize("names", [True, False])
def test_moments_are_inherited_by_name(model, tmp_path, of_parent, names):
    """A parent that grouped its parameters otherwise; files without names are of parents that left norms out."""
    if of_parent == "all" and not names:
        return
    parent = adamw(model.parameters(), config(weight_decay=0.1, weight_decay_on=of_parent))
    for number, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, 1.0 + number)
    parent.step()
    state = parent.state_dict() | ({"names": named_order(parent, model)} if names else {})
    torch.save(state, tmp_path / "optimizer")
    for chosen in ("matrices", "all"):
        heir = adamw(model.parameters(), config(weight_decay=0.2, weight_decay_on=chosen))
        inherit_moments(heir, model, tmp_path / "optimizer")
        for p in model.parameters():
            assert torch.equal(heir.state[p]["exp_avg"], parent.state[p]["exp_avg"])
        assert heir.param_groups[0]["weight_decay"] == 0.2


def test_moments_of_another_model_are_refused(model, tmp_path):
    other = torch.nn.Linear(3, 3)
    optimizer = adamw(other.parameters(), config())
    for p in other.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.save(optimizer.state_dict() | {"names": named_order(optimizer, other)}, tmp_path / "optimizer")
    with pytest.raises(CascadeError, match="optimizer"):
        inherit_moments(adamw(model.parameters(), config()), model, tmp_path / "optimizer")


def test_a_policys_state_goes_on_under_another_choice(tmp_path):
    """Moments lie by parameter name, so groups may differ."""
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    parent = make_policy(tmp_path / "model", weight_decay=0.1, weight_decay_on="all")
    for p in parent.model.parameters():
        p.grad = torch.ones_like(p)
    parent.step()
    parent.save_optimizer(tmp_path / "optimizer")
    child = make_policy(tmp_path / "model", weight_decay=0.1)
    child.inherit_optimizer(tmp_path / "optimizer")
    ours, theirs = (dict(policy.model.named_parameters()) for policy in (child, parent))
    for name, p in ours.items():
        assert torch.equal(child.optimizer.state[p]["exp_avg"], parent.optimizer.state[theirs[name]]["exp_avg"])
    assert len(child.optimizer.param_groups) == 2
