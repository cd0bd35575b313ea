"""What a stage inherits must be what it was trained as; a difference stops with both sides shown."""

import json

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import TemplateConfig
from cascade_rl.stages.checkpoints.handover import CONTRACT, install_contract, load_tokenizer, write_checkpoint
from cascade_rl.types import CascadeError


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    install_contract(folder, TemplateConfig())
    return folder


def test_the_same_template_passes(checkpoint):
    tokenizer, template = load_tokenizer(checkpoint, TemplateConfig())
    assert tokenizer.eos_token == "<|im_end|>"
    assert template.probe() == json.loads((checkpoint / CONTRACT).read_text())["probe"]


def test_another_template_is_shown_on_both_sides(checkpoint):
    with pytest.raises(CascadeError) as caught:
        load_tokenizer(checkpoint, TemplateConfig(system="Be brief."))
    text = str(caught.value)
    assert "'<|im_start|>system\\nYou are a helpful" in text
    assert "'<|im_start|>system\\nBe brief." in text


def test_another_vocabulary_is_refused(checkpoint):
    tokenizer, _ = load_tokenizer(checkpoint, TemplateConfig())
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(checkpoint)
    with pytest.raises(CascadeError, match="vocabulary"):
        load_tokenizer(checkpoint, TemplateConfig())


def test_another_eos_is_refused(checkpoint):
    contract = json.loads((checkpoint / CONTRACT).read_text())
    contract["eos_token_id"] += 1
    (checkpoint / CONTRACT).write_text(json.dumps(contract))
    with pytest.raises(CascadeError, match="end-of-turn"):
        load_tokenizer(checkpoint, TemplateConfig())


def test_no_tokenizer_at_all(tmp_path):
    with pytest.raises(CascadeError, match=f"loaded.*{tmp_path}"):
        load_tokenizer(tmp_path, TemplateConfig())


def test_what_is_written_is_a_plain_model_that_reads_back(checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM

    tokenizer, template = load_tokenizer(checkpoint, TemplateConfig())
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    out = tmp_path / "out"
    out.mkdir()
    write_checkpoint(model, tokenizer, template, out, "float32")
    again = AutoModelForCausalLM.from_pretrained(out)
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert again.config.tie_word_embeddings
    assert again.get_output_embeddings().weight.data_ptr() == again.get_input_embeddings().weight.data_ptr()
    load_tokenizer(out, TemplateConfig())


def test_a_tied_head_is_stored_once_where_it_is_handed_over_apart(checkpoint, tmp_path):
    """As gathered shards are; stored twice, a tool that trusts the file would untie it."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    tokenizer, template = load_tokenizer(checkpoint, TemplateConfig())
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    apart = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert "lm_head.weight" in apart
    (tmp_path / "out").mkdir()
    write_checkpoint(model, tokenizer, template, tmp_path / "out", "float32", apart)
    assert "lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")


def test_a_checkpoint_that_reads_back_differently_is_an_error(checkpoint, tmp_path, monkeypatch):
    import safetensors.torch
    from transformers import AutoModelForCausalLM

    tokenizer, template = load_tokenizer(checkpoint, TemplateConfig())
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    load = safetensors.torch.load_file

    def damaged(path):
        tensors = load(path)
        tensors[next(iter(tensors))] += 1
        return tensors

    monkeypatch.setattr(safetensors.torch, "load_file", damaged)
    (tmp_path / "out").mkdir()
    with pytest.raises(CascadeError, match="differently"):
        write_checkpoint(model, tokenizer, template, tmp_path / "out", "float32")
