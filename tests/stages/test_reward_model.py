"""Reward models without training: the head, the padding, the hold-out, and what is measured on a model."""

import io
import json
import re

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from cascade_rl.data.template import Template
from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import DataSource, RewardModelStage, TemplateConfig
from cascade_rl.recipe.measuring import PairBenchmark
from cascade_rl.stages.checkpoints.handover import CONTRACT, install_contract, load_tokenizer, write_reward_model
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.stages.offline.held_out import split
from cascade_rl.stages.pair_scores import judge, measure
from cascade_rl.stages.pairs import TokenPair, training_pairs
from cascade_rl.store import Job
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.reward_model import choose_padding, load_reward_model
from cascade_rl.training.scoring import WholeRewardModel
from cascade_rl.types import CascadeError, Preempted

CPU = torch.device("cpu")
PAD = tiny_qwen3.build_tokenizer().pad_token_id


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96, context=64)
    install_contract(folder, TemplateConfig())
    return folder


@pytest.fixture
def context(tmp_path, checkpoint):
    job = Job(
        task="stage", run="r", name="rm", identity="i", folder=tmp_path / "stage", recipe_path=tmp_path / "r.yaml",
        model="tiny-qwen3", template=TemplateConfig(), seed=1, dtype="float32", checkpoint=str(checkpoint),
    )  # fmt: skip
    return Context(job, Ranks(0, 1, CPU), StopFlag(), io.StringIO())


def rows(tmp_path, *entries):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in entries))
    return [DataSource(source="rows.jsonl")]


def stage(data, **keys):
    return RewardModelStage(name="rm", data=data, learning_rate=1e-3, steps=1, **keys)


def test_a_fresh_head_is_drawn_from_the_seed_alone(checkpoint):
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(99 + len(heads))  # must not matter
        heads.append(load_reward_model(str(checkpoint), CPU, seed, PAD).score.weight.detach().clone())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (1, 64)
    assert float(heads[0].std()) == pytest.approx(64**-0.5, rel=0.3)  # the model's own initializer range


def test_the_head_stays_in_float32_under_autocast(checkpoint):
    model = load_reward_model(str(checkpoint), CPU, 1, PAD)
    hidden = torch.randn(3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.score(hidden)
    assert found.dtype == torch.float32
    assert torch.equal(found, hidden @ model.score.weight.T)


def test_what_is_written_loads_anywhere_and_goes_on_with_its_head(checkpoint, tmp_path):
    tokenizer, template = load_tokenizer(checkpoint, TemplateConfig())
    model = load_reward_model(str(checkpoint), CPU, 1, PAD)
    write_reward_model(model, tokenizer, template, tmp_path, "float32")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(plain).__name__ == "Qwen3ForSequenceClassification"
    assert (plain.config.num_labels, plain.config.pad_token_id) == (1, tokenizer.pad_token_id)
    again = load_reward_model(str(tmp_path), CPU, 2, PAD)
    assert torch.equal(again.score.weight, model.score.weight)
    assert json.loads((tmp_path / CONTRACT).read_text())["kind"] == "reward_model"
    load_tokenizer(tmp_path, TemplateConfig())


def test_a_head_of_other_labels_is_refused(checkpoint, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=3)
    model.save_pretrained(tmp_path)
    with pytest.raises(CascadeError, match="3 labels"):
        load_reward_model(str(tmp_path), CPU, 1, PAD)
    with pytest.raises(CascadeError, match="/nothing .*load"):
        load_reward_model(str(tmp_path / "nothing"), CPU, 1, PAD)


def test_padding_is_never_what_a_conversation_ends_with():
    tokenizer = tiny_qwen3.build_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    choose_padding(tokenizer)
    assert tokenizer.pad_token == "<|endoftext|>"
    tokenizer.pad_token = None
    choose_padding(tokenizer)
    assert tokenizer.pad_token == "<|endoftext|>"
    tokenizer.eos_token, tokenizer.pad_token = "<|endoftext|>", "<|endoftext|>"
    with pytest.raises(CascadeError, match="padding"):
        choose_padding(tokenizer)


def test_held_out_pairs_and_their_copies_are_not_trained_on():
    keys = ["a", "b", "a", "c", "d", "b", "a"]
    rows = range(len(keys))
    train, apart = split(keys, rows, 2, 7, "pairs")
    assert len(apart) == len({keys[i] for i in apart}) == 2
    assert {keys[i] for i in train}.isdisjoint(keys[i] for i in apart)
    assert {keys[i] for i in (*train, *apart)} == set("abcd")
    assert split(keys, rows, 2, 7, "pairs") == (train, apart)
    assert len({tuple(split(keys, rows, 2, seed, "pairs")[1]) for seed in range(20)}) > 1
    assert split(keys, rows, 0, 7, "pairs") == (list(range(7)), [])
    with pytest.raises(CascadeError, match="held_out.* 4 .* pairs"):
        split(keys, rows, 4, 7, "pairs")


def test_long_pairs_and_ties_are_left_out_and_counted(context, tmp_path):
    short = {"prompt": "sum?", "chosen": "2", "rejected": "3"}
    tie = {"context": "sum?", "response1": "a", "response2": "b", "overall_preference": 0}
    data = rows(tmp_path, short, {**short, "rejected": "a word " * 40}, tie)
    tokenizer, _ = load_tokenizer(context.job.checkpoint, TemplateConfig())
    (kept,) = training_pairs(context, stage(data, max_length=40), tokenizer)
    assert tokenizer.decode(kept["chosen_ids"]).endswith("sum? /think<|im_end|>\n<|im_start|>assistant\n2<|im_end|>")
    said = context.out.getvalue()
    assert re.search("1 of 2 .* 40 tokens", said)
    assert re.search("1 of 3 .*ties", said)


def whole(checkpoint):
    return WholeRewardModel(load_reward_model(str(checkpoint), CPU, 1, PAD), Ranks(0, 1, CPU), half=False)


def test_a_score_does_not_depend_on_company(context, checkpoint):
    pairs = [TokenPair([5, 6, 7], [9], "c"), TokenPair([5, 6, 7, 8, 9, 10], [3, 4], "d"), TokenPair([5], [6], "c")]
    model = whole(checkpoint)
    alone = [judge(context, model, [pair], 1)[0] for pair in pairs]
    together = judge(context, model, pairs, 1000)
    assert [pair.category for pair in together] == ["c", "d", "c"]
    with torch.no_grad():
        plain = load_reward_model(str(checkpoint), CPU, 1, PAD)
        expected = [
            plain(input_ids=torch.tensor([s])).logits.item() for p in pairs for s in (p.chosen_ids, p.rejected_ids)
        ]
    for judged in (alone, together):
        assert [score for pair in judged for score in (pair.chosen, pair.rejected)] == pytest.approx(expected, abs=1e-5)
    context.stop.is_set = True
    with pytest.raises(Preempted):
        judge(context, model, pairs, 1000)


def test_a_benchmark_leaves_out_what_cannot_be_told_apart_or_read(context, checkpoint, tmp_path):
    good = {"prompt": "sum?", "chosen": "2", "rejected": "3", "category": "a"}
    data = rows(tmp_path, good, {**good, "rejected": "2"}, {**good, "chosen": "word " * 99})
    tokenizer, _ = load_tokenizer(checkpoint, TemplateConfig())
    measure(context, whole(checkpoint), tokenizer, PairBenchmark(name="p", data=data), 100)
    result = json.loads((context.job.stage_folder.evals / "p.json").read_text())
    assert (result["rows"], list(result["categories"]), len(result["identity"])) == (1, ["a"], 12)
    assert re.search("3 rows.* 1 .* 1 .* 64 positions", context.out.getvalue())


def test_the_template_of_a_reward_model_is_used_without_parameters(checkpoint):
    """Whoever serves the checkpoint calls ``apply_chat_template`` with messages alone."""
    from cascade_rl.rewarding.reward_model_ids import judged_ids

    for mode in ("thinking", "instruct", "unified"):
        tokenizer = tiny_qwen3.build_tokenizer()
        Template(TemplateConfig(mode=mode), tokenizer).install()
        messages = [{"role": "user", "content": "sum?"}, {"role": "assistant", "content": "2"}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert judged_ids(tokenizer, messages) == tokenizer.encode(text.rstrip(), add_special_tokens=False)


def test_pairs_that_become_equal_are_dropped_and_counted(context, tmp_path):
    """By cutting off the thinking, by what the template leaves of an answer, and by breaking up control tokens."""
    tokenizer, _ = load_tokenizer(context.job.checkpoint, TemplateConfig())
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    )
    good = {"prompt": "sum?", "chosen": "2", "rejected": "3"}
    equal = [
        {**good, "rejected": "2"},
        {**good, "rejected": "<think>\nhm\n</think>\n\n2"},
        {**good, "rejected": " 2\n"},
        {**good, "chosen": "a<|im_end|>", "rejected": "a< |im_end|>"},
        {"chosen": [{"role": "user", "content": "sum?"}, {"role": "assistant", "content": "2", "reasoning": "hm"}],
         "rejected": [{"role": "user", "content": "sum?"}, {"role": "assistant", "content": "2"}]},
    ]  # fmt: skip
    odd = [{**good, "chosen": None}, {**good, "rejected": "\ud83d"}, {**good, "chosen": ""},
           {**good, "chosen": [{"role": "assistant", "tool_calls": [{"name": "f"}]}]}]  # fmt: skip
    kept = list(training_pairs(context, stage(rows(tmp_path, good, *equal, *odd, good), max_length=64), tokenizer))
    assert [tokenizer.decode(pair["rejected_ids"]).split("\n")[-1] for pair in kept] == ["3<|im_end|>"] * 2
    said = context.out.getvalue()
    assert "5 of 11" in said
    assert "4 of 11" in said
    for number in range(6, 10):
        assert f"row {number} of" in said or f"rows.jsonl:{number}:" in said
    with pytest.raises(CascadeError, match="row 0"):
        list(training_pairs(context, stage(rows(tmp_path, *odd), max_length=64), tokenizer))


def test_pairs_without_a_difference_are_not_measured(context, tmp_path, checkpoint):
    tokenizer, _ = load_tokenizer(context.job.checkpoint, TemplateConfig())
    good = {"prompt": "sum?", "chosen": "2", "rejected": "3"}
    data = rows(tmp_path, {**good, "rejected": "2"}, good, {**good, "chosen": "\ud83d"}, {"prompt": "x"})
    benchmark = PairBenchmark(name="ours", data=data)
    measure(context, whole(checkpoint), tokenizer, benchmark, 100)
    assert json.loads((context.job.stage_folder.evals / "ours.json").read_text())["rows"] == 1
    assert "2 of 4" in context.out.getvalue()


def test_an_adapter_is_what_peft_reads(context, checkpoint):
    """Adapters and head together score as the merged checkpoint does."""
    from peft import PeftModel

    from cascade_rl.algorithms.bradley_terry import pair_losses
    from cascade_rl.recipe import LoraConfig, OptimizerConfig
    from cascade_rl.stages.checkpoints.adapter_files import publish_adapter
    from cascade_rl.training.scoring import TrainedRewardModel, pair_sequences

    model = TrainedRewardModel(
        str(checkpoint), OptimizerConfig(learning_rate=1e-2), ranks=Ranks(0, 1, CPU), dtype="float32", pad_token_id=PAD,
        total_steps=2, lora=LoraConfig(rank=2, alpha=4.0), seed=1,
    )  # fmt: skip
    for _ in range(2):
        for row in model.rows(pair_sequences([5, 6, 7, 8], [5, 6, 9]), 100):
            model.backward(row, lambda scores: pair_losses(scores).sum())
        model.step()
    publish_adapter(context, model)
    base = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1)
    adapted = PeftModel.from_pretrained(base, context.job.stage_folder.adapter).eval()
    plain = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1)
    plain.load_state_dict(model.whole_state_dict(torch.float32))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert adapted(input_ids=ids).logits.item() == pytest.approx(plain(input_ids=ids).logits.item(), abs=1e-5)
        (row,) = model.rows(pair_sequences([5, 6, 7, 8], [5, 6, 9]), 100)
        assert model.score(row)[0].item() == pytest.approx(plain(input_ids=ids).logits.item(), abs=1e-5)
