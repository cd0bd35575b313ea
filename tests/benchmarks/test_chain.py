"""Lengths of our choice: the chain by hand, and the model that it is written into."""

import math

import pytest
import torch

from benchmarks.grpo.chain import NEVER, build, lane_means, make_chain, written_tokens


def test_lanes_are_quantiles_of_a_log_normal_distribution():
    # The middles of two halves are the quartiles, 0.6745 standard deviations from the middle.
    assert lane_means(100, 1.0, 2) == pytest.approx([100 * math.exp(-0.67449), 100 * math.exp(0.67449)], rel=1e-4)
    assert lane_means(74, 0.0, 3) == pytest.approx([74, 74, 74])


def test_a_chain_by_hand():
    chain = make_chain(list(range(12)), vocabulary=14, eos=13, means=[30.0, 300.0])
    assert chain.classes == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]  # two lanes of three phases
    chances = [[math.exp(x) if x > NEVER else 0.0 for x in row] for row in (chain.start, *chain.rows)]
    assert all(sum(row) == pytest.approx(1.0) for row in chances)
    start, first, *_, last = chances
    assert [token for token, chance in enumerate(start) if chance] == [0, 3, 6, 9]  # the first phase of either lane
    assert start[0] == pytest.approx(1 / 4)
    assert first[0] == first[6] == pytest.approx((1 - 3 / 30) / 2)  # it stays in a phase for 10 tokens on average
    assert first[1] == first[7] == pytest.approx(3 / 30 / 2)
    assert last[13] == pytest.approx(3 / 300)  # after the last phase of the second lane comes the end


def test_a_chain_without_lengths_never_ends():
    chain = make_chain(list(range(16)), vocabulary=18, eos=17, means=None)
    assert all(row[17] == NEVER for row in (chain.start, *chain.rows))


def test_the_model_says_what_the_chain_says(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cascade_rl.data.template import Template
    from cascade_rl.recipe import TemplateConfig

    means = lane_means(74, 0.9)
    build(tmp_path, means=means, hidden_size=64, layers=2, intermediate_size=64, context=128)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    template = Template(TemplateConfig(), tokenizer)
    template.install()
    prompt = template.prompt_ids([{"role": "user", "content": "3+4"}])
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = [token for token in written_tokens(tokenizer) if token != prompt[-1]]
    chain = make_chain(tokens, model.config.vocab_size, tokenizer.eos_token_id, means)
    answer = [chain.classes[number][0] for number in (0, 1, 2, 21, 23)]
    with torch.no_grad():
        said = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 :].log_softmax(-1).exp()
    for probabilities, row in zip(said, [chain.start, *(chain.rows[n] for n in (0, 1, 2, 21, 23))], strict=True):
        assert (probabilities - torch.tensor(row).exp()).abs().max() < 0.01
    assert float(said[-1][tokenizer.eos_token_id]) == pytest.approx(3 / means[-1], rel=0.1)
