"""Which frozen model a KL penalty compares the policy with."""

from types import SimpleNamespace

import pytest

from cascade_rl.stages.frozen import reference as references
from cascade_rl.stages.rl import Grpo
from cascade_rl.training.reference import WithoutAdapters
from tests.builders import make_context, rl_config, run_of


@pytest.fixture
def frozen(monkeypatch):
    """Stands in for loading a model; lists what was to be loaded, and how."""
    asked = []
    monkeypatch.setattr(references, "FrozenModel", lambda checkpoint, **keys: asked.append((checkpoint, keys)) or "it")
    return asked


def test_it_is_the_checkpoint_the_stage_started_from(tmp_path, frozen):
    context = make_context(tmp_path)
    context.job = context.job.model_copy(update={"checkpoint": "start"})
    config = rl_config(tokens_per_micro_batch=7, logprob_chunk_tokens=3, sharding={"offload_reference": True})
    assert references.start_reference(context, config, None) == "it"
    ((checkpoint, keys),) = frozen
    assert checkpoint == "start"
    assert (keys["row_tokens"], keys["chunk_tokens"], keys["offload"]) == (7, 3, True)


def test_adapters_are_taken_off_instead(tmp_path, frozen):
    policy = SimpleNamespace()
    assert isinstance(references.start_reference(make_context(tmp_path), rl_config(lora={}), policy), WithoutAdapters)
    assert frozen == []


@pytest.mark.parametrize(
    ("loss", "loaded"),
    [(None, 0), ({"entropy": 0.1}, 0), ({"kl": 0.1}, 1), ({"use": "cascade_rl.algorithms.gspo:loss"}, 0)],
)
def test_it_is_loaded_only_where_the_loss_needs_it(tmp_path, frozen, loss, loaded):
    run = run_of(tmp_path)
    method = Grpo(rl_config(**({"loss": loss} if loss else {})))
    method.prepare(run)
    assert len(frozen) == loaded
    assert (method.reference is not None) == bool(loaded)


def test_an_estimator_without_effect_is_pointed_out(tmp_path, frozen):
    run = run_of(tmp_path)
    Grpo(rl_config(loss={"kl": 0.1, "kl_estimator": "k1"})).prepare(run)
    assert "k1" in run.out.getvalue()
