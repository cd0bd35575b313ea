"""Losses and advantages of the user's: what they are given, and what is said of wrong ones."""

import sys

import pytest
import torch

from cascade_rl.algorithms.custom import CustomAdvantage, CustomLoss
from cascade_rl.algorithms.inputs import GroupInputs, LossInputs, loss_function, whole_batch
from cascade_rl.algorithms.loading import key_problems, load_function
from cascade_rl.types import CascadeError


def tokens(n=3, lengths=None):
    values = torch.arange(float(n))
    return LossInputs(values, values, values, values, lengths=lengths)


def groups(*sizes):
    return [GroupInputs(torch.arange(float(size)), torch.ones(size, dtype=torch.int64)) for size in sizes]


def scaled(inputs, *, scale: float = 1.0):
    return scale * inputs.logprobs


def test_keys_are_handed_over():
    assert CustomLoss("m:scaled", scaled, {"scale": 2.0})(tokens()).tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda inputs: inputs.logprobs.sum(), r"\[3\].*\[\]"),
        (lambda inputs: 1.0, "float"),
        (lambda inputs: inputs.missing, "AttributeError.*test_custom"),
        (lambda inputs: inputs.mean_over_rollouts(inputs.logprobs), "whole_rollouts"),
    ],
)
def test_a_loss_that_fails_or_returns_another_shape(function, word):
    with pytest.raises(CascadeError, match=f"(?s)m:f.*{word}"):
        CustomLoss("m:f", function, {})(tokens())


def test_whole_rollouts_and_measures_take_the_keys_they_name():
    def means(inputs, *, scale=1.0):
        return scale * inputs.mean_over_rollouts(inputs.logprobs)

    @loss_function(whole_rollouts=means, measures=lambda inputs: {"twice": 2 * inputs.logprobs}, needs_reference=True)
    def function(inputs, *, scale, other):
        return inputs.from_rollouts

    loss = CustomLoss("m:f", function, {"scale": 10.0, "other": 1})
    assert loss.from_rollouts(tokens(3, torch.tensor([2, 1]))).tolist() == [5.0, 5.0, 20.0]
    assert loss.measures(tokens())["loss/twice"].tolist() == [0.0, 2.0, 4.0]
    assert loss.traits.needs_reference
    assert not loss.traits.zero_without_advantage
    assert CustomLoss("m:scaled", scaled, {}).measures(tokens()) == {}


def test_means_over_rollouts_are_taken_in_float64():
    one = torch.full((3,), 0.1)
    given = LossInputs(one, one, one, one, lengths=torch.tensor([0, 3]))
    assert given.mean_over_rollouts(one).dtype == torch.float32
    assert torch.equal(given.mean_over_rollouts(one), one)


def test_advantages_of_groups_and_of_the_batch():
    alone = CustomAdvantage("m:f", lambda group: group.rewards - 1, {})
    assert alone(groups(2, 1)) == [[-1.0, 0.0], [-1.0]]
    assert not alone.needs_whole_batch

    @whole_batch
    def share(batch, *, scale: float):
        total = sum(float(group.rewards.sum()) for group in batch)
        return [scale * group.rewards / total for group in batch]

    together = CustomAdvantage("m:share", share, {"scale": 4.0})
    assert together.needs_whole_batch
    assert together(groups(2, 3)) == [[0.0, 1.0], [0.0, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda group: group.rewards[:1], "2 advantages"),
        (lambda group: group.rewards / 0, "finite"),
        (lambda group: "no", "str"),
        (lambda group: 1 / 0, "ZeroDivisionError"),
        (whole_batch(lambda batch: batch[0].rewards), "one tensor for each"),
        (whole_batch(lambda batch: []), "one tensor for each"),
    ],
)
def test_advantages_that_cannot_be_taken(function, word):
    with pytest.raises(CascadeError, match=f"(?s)m:f.*{word}"):
        CustomAdvantage("m:f", function, {})(groups(2))


def test_only_functions_are_loaded(tmp_path):
    (tmp_path / "own_losses.py").write_text("class Loss: pass\nimport math\ndef loss(inputs): return inputs.logprobs\n")
    try:
        assert load_function("own_losses:loss", [tmp_path], "loss")(tokens()) is not None
        for use, word in (("own_losses:Loss", "class"), ("own_losses:lost", "did you mean loss"), ("none:x", "module")):
            with pytest.raises(CascadeError, match=f"loss '{use}'.*{word}"):
                load_function(use, [tmp_path], "loss")
    finally:
        sys.modules.pop("own_losses", None)


def test_keys_that_do_not_fit():
    assert list(key_problems(scaled, {"scale": 2}, "tokens")) == []
    assert [p for p in key_problems(scaled, {"scal": 2.0}, "tokens") if "scale?" in p]
    assert [p for p in key_problems(scaled, {"scale": "big"}, "tokens") if "number" in p]
    assert [p for p in key_problems(lambda inputs, *, needed: 0, {}, "tokens") if "needs `needed`" in p]
    assert [p for p in key_problems(lambda: 0, {}, "tokens") if "tokens" in p]
    assert [p for p in key_problems(lambda *, inputs: 0, {}, "tokens") if "tokens" in p]
    assert [p for p in key_problems(scaled, {"inputs": 1}, "tokens") if "inputs" in p]
    assert list(key_problems(lambda inputs, **keys: 0, {"any": 1}, "tokens")) == []
