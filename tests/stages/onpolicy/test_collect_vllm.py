"""A step collected from a real vLLM engine: interrupted and gone on with, it is the undisturbed one, bit for bit."""

import contextlib
import os

import pytest

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import EngineConfig
from cascade_rl.stages.onpolicy.journal import Journal
from tests.stages.fakes import FakeScorer, collector, content, feed, prompts, stage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    from cascade_rl.rollout.vllm_engine import VllmEngine

    os.environ["OMP_NUM_THREADS"] = "1"
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return VllmEngine(
        folder, EngineConfig(max_num_seqs=16), dtype="float32", cpu=True, world_size=1, max_model_len=96,
        renormalised=True, temperature=1.0, tokenizer=tiny_qwen3.build_tokenizer(),
    )  # fmt: skip


def value(prompt, rollout):
    return float(rollout.token_ids[0] % 2) * (int(prompt.id[1:]) % 3 > 0)


class Died(BaseException):
    pass


@pytest.mark.parametrize("dynamic", [None, {"max_factor": 4}])
def test_an_interrupted_step_is_the_undisturbed_one(engine, tmp_path, dynamic):
    keys = {"rollout": {"max_new_tokens": 24}, "prompts_per_step": 6, "group_size": 3, "overlong": "score"}
    config = stage(**keys, **({"dynamic_sampling": dynamic} if dynamic else {}))

    def limits(index):
        return {"max_new_tokens": 3 + 4 * (index % 6)}

    def collect(scorer, journal):
        source = feed(config, prompts(60, columns=limits))
        return collector(engine, scorer, config, source=source, journal=journal).collect(0, engine.version)

    def journal():
        one = Journal(tmp_path / "open", identity="i", rank=0, world_size=1, say=print)
        one.begin(0, "w")
        return one

    whole = collect(FakeScorer(value), None)
    sizes = [(len(r.token_ids), g.prompt.columns["max_new_tokens"]) for g in whole.groups for r in g.rollouts]
    assert all(length <= limit for length, limit in sizes)  # the rows' own
    assert len({length for length, limit in sizes if length == limit}) > 1
    assert bool(whole.unused) == bool(dynamic)
    scored = []

    def dies(prompt, rollout):
        scored.append(rollout)
        if len(scored) > 7:
            raise Died
        return value(prompt, rollout)

    with contextlib.suppress(Died):
        collect(FakeScorer(dies), journal())
    assert engine.in_flight == 0
    scorer = FakeScorer(value)
    again = collect(scorer, journal())
    assert (content(again.groups), content(again.unused)) == (content(whole.groups), content(whole.unused))
    assert len(scorer.scored) < sum(len(g.rollouts) for g in whole.everything)
