"""Frozen models: what they say of a policy's tokens, against plain transformers and against the policy itself."""

import dataclasses

import numpy
import pytest
import torch
from torch.nn.functional import log_softmax

from cascade_rl.models import tiny_qwen3
from cascade_rl.training.packing import pack_row
from cascade_rl.training.reference import FrozenModel, filled
from tests.training.test_update import at, make_policy, sequences

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


def frozen(checkpoint, **keys):
    return FrozenModel(checkpoint, **{"device": CPU, "dtype": "float32", "chunk_tokens": 7, "row_tokens": 30, **keys})


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_every_sequence_gets_the_log_probs_of_plain_transformers(checkpoint, temperature):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    given = at(temperature, sequences())
    found = frozen(checkpoint).fill(given)
    assert len(found) == len(given) == 4
    for before, after in zip(given, found, strict=True):
        ids = torch.tensor([[*before.prompt_ids, *before.completion_ids]])
        with torch.no_grad():
            table = log_softmax(model(ids).logits[0] / temperature, dim=-1)
        expected = [
            float(table[t - 1, token])
            for t, token in enumerate(before.completion_ids.tolist(), start=len(before.prompt_ids))
        ]
        assert after.reference_logprobs == pytest.approx(expected, abs=1e-5)
        assert after.completion_ids is before.completion_ids
        assert before.reference_logprobs is None


def test_it_says_what_the_policy_it_was_says_bit_for_bit(checkpoint):
    policy, given = make_policy(checkpoint), at(0.7, sequences())
    row = pack_row(given)
    expected = policy.score(row).logprobs
    (found,) = [frozen(checkpoint, row_tokens=1000).fill(given)]
    assert numpy.concatenate([s.reference_logprobs for s in found]).tolist() == expected.tolist()


def test_half_precision_is_the_policys_own(checkpoint):
    """Linear layers kept in bfloat16 give what autocast gives from float32 weights."""
    policy, given = make_policy(checkpoint, dtype="bfloat16"), sequences()
    expected = policy.score(pack_row(given)).logprobs
    model = frozen(checkpoint, row_tokens=1000, dtype="bfloat16")
    found = model.fill(given)
    assert numpy.concatenate([s.reference_logprobs for s in found]).tolist() == expected.tolist()
    kinds = {p.dtype for p in model._model.parameters()}
    assert kinds == {torch.bfloat16, torch.float32}
    assert model._model.get_output_embeddings().weight.dtype == torch.float32


def test_it_has_no_gradient_and_leaves_the_policy_alone(checkpoint):
    model = frozen(checkpoint)
    model.fill(sequences())
    assert not any(p.requires_grad for p in model._model.parameters())


@pytest.mark.parametrize("offload", [False, True])
def test_old_reference_log_probs_are_replaced(checkpoint, offload):
    """A teacher is asked again in each step, whatever the sequences brought, some with and some without."""
    given = sequences()
    given[1] = dataclasses.replace(given[1], reference_logprobs=numpy.full(20, 9.0, numpy.float32))
    model = frozen(checkpoint, offload=offload, row_tokens=1000)
    first, second = model.fill(given), model.fill(given)
    for a, b in zip(first, second, strict=True):
        assert (a.reference_logprobs < 0).all()
        assert a.reference_logprobs.tolist() == b.reference_logprobs.tolist()


def test_parts_go_back_to_their_sequences():
    """First-fit puts the longest first; what comes back is in the order given."""
    given = sequences()
    found = filled(given, lambda row: row.targets.float(), 25)
    for before, after in zip(given, found, strict=True):
        assert after.reference_logprobs.tolist() == before.completion_ids.tolist()


def test_nothing_in_nothing_out(checkpoint):
    assert frozen(checkpoint).fill([]) == []
