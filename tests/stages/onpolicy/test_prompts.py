"""Which prompt is asked in which mode, by which rank."""

import io
import json

import pytest
import torch

from cascade_rl.data.template import Template
from cascade_rl.models.tiny_qwen3 import build_tokenizer
from cascade_rl.recipe import RlStage, TemplateConfig
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.stages.onpolicy.prompts import load_prompts, make_sampler
from cascade_rl.store import Job
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError

ROWS = [
    {"prompt": "1+1?", "thinking": True},
    {"prompt": "2+2?", "thinking": False},
    {"prompt": "3+3?", "thinking": True},
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def load(tmp_path, tokenizer, rows=ROWS, mode="unified", **keys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    template = Template(TemplateConfig(mode=mode), tokenizer)
    template.install()
    config = RlStage.model_validate(
        {"name": "m", "data": [{"source": "rows.jsonl"}], "reward": {"use": "a:b"}, "learning_rate": 1e-6, "steps": 4,
         "prompts_per_step": 4, **keys}
    )  # fmt: skip
    job = Job.model_validate(
        {"task": "stage", "run": "r", "name": "m", "identity": "i", "folder": tmp_path, "recipe_path": tmp_path / "r.yaml",
         "model": "x", "template": {"mode": mode}, "seed": 1, "dtype": "auto"}
    )  # fmt: skip
    return load_prompts(Context(job, Ranks(0, 1, torch.device("cpu")), StopFlag(), io.StringIO()), config, template)


def flags(tokenizer, slots):
    texts = [tokenizer.decode(slot.prompt_token_ids) for slot in slots]
    assert all((" /think<" in text) != (" /no_think<" in text) for text in texts)
    assert [slot.prompt.thinking for slot in slots] == [" /think<" in text for text in texts]
    return [slot.prompt.thinking for slot in slots]


def test_rows_say_for_themselves(tmp_path, tokenizer):
    prompts = load(tmp_path, tokenizer)
    assert flags(tokenizer, prompts.slots([0, 1, 2, 1], 0, 1)) == [True, False, True, False]


def test_exactly_half_of_every_step_thinks_on_any_number_of_ranks(tmp_path, tokenizer):
    prompts = load(tmp_path, tokenizer, modes="half")
    sampler = make_sampler(prompts, 3)
    for _ in range(5):
        indices = sampler.next(4)
        alone = flags(tokenizer, prompts.slots(indices, 0, 1))
        assert sum(alone) == 2
        shares = [flags(tokenizer, prompts.slots(indices, rank, 2)) for rank in (0, 1)]
        assert [sum(share) for share in shares] == [1, 1]  # both modes on every rank
        assert [shares[i % 2][i // 2] for i in range(4)] == alone


def test_a_stage_can_have_one_mode_whatever_its_rows_say(tmp_path, tokenizer):
    for modes, thinks in (("thinking", True), ("instruct", False)):
        assert flags(tokenizer, load(tmp_path, tokenizer, modes=modes).slots([0, 1, 2], 0, 1)) == [thinks] * 3


def test_a_unified_row_without_a_flag_is_an_error_where_rows_decide(tmp_path, tokenizer):
    rows = [{"prompt": "1+1?"}]
    with pytest.raises(CascadeError, match="template.mode.*`thinking: true`"):
        load(tmp_path, tokenizer, rows)
    assert len(load(tmp_path, tokenizer, rows, modes="half").prompts) == 1


def test_the_longest_rendering_counts(tmp_path, tokenizer):
    prompts = load(tmp_path, tokenizer, modes="half")
    assert prompts.longest == max(len(ids) for rendered in prompts.ids.values() for ids in rendered)
    limit = min(map(len, prompts.ids[True]))  # " /no_think" is longer
    with pytest.raises(CascadeError, match="max_prompt_tokens"):
        load(tmp_path, tokenizer, modes="half", max_prompt_tokens=limit)


# --- Exclusions, weights and domains ----------------------------------------------------------------------------------------


def mixture(tmp_path, **keys):
    """Two sources with weights: one has its domain from the recipe, the other's rows say theirs."""
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"prompt": f"a{i}", "thinking": True}) + "\n" for i in range(6))
    )
    rows = [{"prompt": f"b{i}", "thinking": True, "domain": ("left", "right")[i % 2]} for i in range(4)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"source": "a.jsonl", "weight": 3, "domain": "own"}, {"source": "b.jsonl", "weight": 1}]
    rewards = {domain: {"use": "a:b"} for domain in ("own", "left", "right")}
    return {"data": sources, "rewards": rewards, "reward": None, "prompts_per_step": 8, **keys}


def test_weights_share_out_every_step_and_domains_find_their_rewards(tmp_path, tokenizer):
    from concurrent.futures import Future

    from cascade_rl.rewarding import DomainScorer
    from cascade_rl.types import Score

    class Fake:
        """A scorer that answers with its domain."""

        def __init__(self, domain):
            self.domain = domain

        def submit_whole(self, prompt, rollout, *_):
            done = Future()
            done.set_result(Score(1.0, {"domain": self.domain}))
            return done

        def close(self):
            pass

    prompts = load(tmp_path, tokenizer, **mixture(tmp_path, modes="half"))
    sampler = make_sampler(prompts, 3)
    scorer = DomainScorer({domain: Fake(domain) for domain in ("own", "left", "right")})
    for _ in range(4):
        slots = prompts.slots(sampler.next(8), 0, 1)
        asked = [slot.prompt for slot in slots]
        assert [p.id[0] for p in asked].count("a") == 6
        for prompt in asked:
            wanted = "own" if prompt.id.startswith("a") else prompt.columns["domain"]
            assert scorer.submit_whole(prompt, None).result().details["domain"] == wanted == prompt.domain
        for thinking in (True, False):  # either mode and either rank has both sources
            assert {p.id[0] for p in asked if p.thinking is thinking} == {"a", "b"}
        for rank in (0, 1):
            assert "a" in {slot.prompt.id[0] for slot in slots if slot.position % 2 == rank}


def test_a_mixture_goes_on_from_its_state(tmp_path, tokenizer):
    prompts = load(tmp_path, tokenizer, **mixture(tmp_path))
    whole, first, second = (make_sampler(prompts, 3) for _ in range(3))
    drawn = [whole.next(5) for _ in range(7)]
    assert [first.next(5) for _ in range(3)] == drawn[:3]
    second.restore(json.loads(json.dumps(first.state())))
    assert [second.next(5) for _ in range(4)] == drawn[3:]


def test_excluded_rows_are_not_asked_and_the_others_keep_their_ids(tmp_path, tokenizer):
    prompts = load(tmp_path, tokenizer, exclude=[{"where": {"prompt": ["2+2?"]}}])
    assert [prompt.id for prompt in prompts.prompts] == ["rows.jsonl:0", "rows.jsonl:2"]


def test_a_weighted_source_of_which_nothing_is_left_is_an_error(tmp_path, tokenizer):
    keys = mixture(tmp_path, exclude=[{"where": {"domain": ["left", "right"]}}])
    with pytest.raises(CascadeError, match=r"b\.jsonl .*weight"):
        make_sampler(load(tmp_path, tokenizer, **keys), 3)


# --- Odd rows, and tools ----------------------------------------------------------------------------------------------------


def test_odd_rows_are_left_out_and_the_others_keep_their_ids(tmp_path, tokenizer):
    odd = [{"prompt": "a\ud83d"}, {"prompt": "b", "answer": ["\udc00"]}, {"messages": [{"role": "user"}]},
           {"prompt": "no mode"}, {"prompt": "x", "thinking": True, "tools": "calculator"}]  # fmt: skip
    prompts = load(tmp_path, tokenizer, [ROWS[0], *odd, ROWS[1]])
    assert [prompt.id for prompt in prompts.prompts] == ["rows.jsonl:0", "rows.jsonl:6"]
    assert flags(tokenizer, prompts.slots([0, 1], 0, 1)) == [True, False]
    with pytest.raises(CascadeError, match="row 0"):
        load(tmp_path, tokenizer, odd)


def test_a_rows_tools_are_in_its_system_prompt(tmp_path, tokenizer):
    tool = {"name": "f", "description": "adds", "parameters": {}}
    prompts = load(tmp_path, tokenizer, [{**ROWS[0], "tools": [tool]}, ROWS[2]])
    with_tools, without = (tokenizer.decode(slot.prompt_token_ids) for slot in prompts.slots([0, 1], 0, 1))
    assert '<tools>\n{"type": "function", "function": {"name": "f"' in with_tools
    assert "tools" not in without
