"""A tiny Qwen3 whose answers have lengths of our choice: a Markov chain written into its embeddings and its head.

Lengths must come from the model's own end-of-turn token, since TRL takes one maximum for all rollouts. So tokens are
dealt out to classes (lane, phase); a rollout draws its lane with its first token, goes through the phases of that lane,
and ends after the last one:

    start ──1/K──► lane k, phase 1 ──p──► phase 2 ──p──► phase 3 ──p──► end      p = phases / mean length of lane k
                      ↺ 1 - p             ↺               ↺

The lanes' mean lengths are quantiles of a log-normal distribution; several phases keep a lane's own spread small. The
layers in between are ordinary random weights, and cost what they cost, but add next to nothing to the residual stream.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import TemplateConfig

NEVER = -30.0
"""Logit of what must not come next; the others' probabilities add up to one."""
DAMPING = 0.001
"""What is left of the layers' outputs."""
LANES, PHASES = 8, 3


@dataclass(frozen=True)
class Chain:
    """Log-probabilities of the next token: ``start`` [V] after the prompt, ``rows[c]`` [V] after a token of class c."""

    classes: Sequence[Sequence[int]]
    start: Sequence[float]
    rows: Sequence[Sequence[float]]


def lane_means(median: float, sigma: float, lanes: int = LANES) -> list[float]:
    """Mean lengths of the lanes: the middles of ``lanes`` equal shares of a log-normal distribution."""
    normal = statistics.NormalDist()
    return [median * math.exp(sigma * normal.inv_cdf((lane + 0.5) / lanes)) for lane in range(lanes)]


def make_chain(tokens: Sequence[int], vocabulary: int, eos: int, means: Sequence[float] | None) -> Chain:
    """A chain over ``tokens`` with a lane for each of ``means``, in tokens; None: it never ends."""
    lanes, phases = (len(means), PHASES) if means else (LANES, 1)
    classes = [tokens[number :: lanes * phases] for number in range(lanes * phases)]  # lane-major
    start = _row(vocabulary, [(classes[lane * phases], 1 / lanes) for lane in range(lanes)])
    rows = []
    for number, own in enumerate(classes):
        lane, phase = divmod(number, phases)
        onward = min(1.0, phases / means[lane]) if means else 0.0
        then = [eos] if phase == phases - 1 else classes[number + 1]
        rows.append(_row(vocabulary, [(own, 1 - onward), (then, onward)]))
    return Chain(classes, start, rows)


def _row(vocabulary: int, shares: Sequence[tuple[Sequence[int], float]]) -> list[float]:
    row = [NEVER] * vocabulary
    for tokens, share in shares:
        for token in tokens:
            if share > 0:
                row[token] = math.log(share / len(tokens))
    return row


def build(
    folder: Path,
    *,
    means: Sequence[float] | None,
    hidden_size: int = 256,
    layers: int = 4,
    intermediate_size: int = 1024,
    context: int = 1024,
    seed: int = 1,
) -> None:
    """Write the checkpoint into ``folder``, template installed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cascade_rl.data.template import Template
    from cascade_rl.stages.checkpoints.handover import install_contract

    tiny_qwen3.build(
        folder, seed=seed, hidden_size=hidden_size, layers=layers, intermediate_size=intermediate_size, context=context
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = Template(TemplateConfig(), tokenizer)
    template.install()
    last = template.prompt_ids([{"role": "user", "content": "1+1"}])[-1]
    tokens = [token for token in written_tokens(tokenizer) if token != last]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, tie_word_embeddings=False)
    vocabulary = model.config.vocab_size
    chain = make_chain(tokens, vocabulary, tokenizer.eos_token_id, means)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(DAMPING)
            layer.mlp.down_proj.weight.mul_(DAMPING)
        # Direction c of the residual stream says "the last token was of class c"; after the final norm it has length
        # sqrt(hidden size), which the head divides by.
        embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embeddings.zero_()
        head.zero_()
        embeddings[:, -1] = hidden_size**0.5  # of tokens that only prompts have
        head[:, -1] = 0.0
        for direction, (members, row) in enumerate(
            zip([[last], *chain.classes], [chain.start, *chain.rows], strict=True)
        ):
            embeddings[list(members)] = 0.0
            embeddings[list(members), direction] = hidden_size**0.5
            head[:, direction] = torch.tensor(row) / hidden_size**0.5
    model.save_pretrained(folder)
    install_contract(folder, TemplateConfig())


def written_tokens(tokenizer) -> list[int]:
    """Ids of ordinary tokens that are printable ASCII."""
    special = set(tokenizer.get_added_vocab().values())
    texts = {token: tokenizer.decode([token]) for token in range(len(tokenizer)) if token not in special}
    return [token for token, text in texts.items() if text.isascii() and text.isprintable()]
