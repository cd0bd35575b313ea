"""The hand-over contract: what a stage inherits is what it was trained as, on every side.

One renderer, one tokenizer, one EOS in SFT, RL and evaluation, and an engine that gives the trainer's log-probs.
Peers lose tens of points to a silent difference here; ours stops the run with both sides shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade_rl.data.template import Template, probe_difference
from cascade_rl.processes import collector_paused
from cascade_rl.recipe import SamplingConfig, TemplateConfig
from cascade_rl.rollout.engine import Engine, Request, request_seed
from cascade_rl.store.files import read_json, write_json
from cascade_rl.training.packing import pack, training_sequence
from cascade_rl.training.policy import Policy
from cascade_rl.types import CascadeError

CONTRACT = "cascade_rl.json"
"""File in each of our checkpoints: what its stage was trained with."""


def load_tokenizer(checkpoint: str | Path, config: TemplateConfig) -> tuple[Any, Template]:
    """Tokenizer and renderer of a checkpoint, checked against what its own stage wrote down.

    Raises CascadeError when the tokenizer cannot be loaded, lacks the template's tokens, or renders differently now.
    """
    with collector_paused():
        from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    except Exception as error:
        raise CascadeError(f"no tokenizer could be loaded from {checkpoint}: {error}") from error
    template = Template(config, tokenizer)
    template.install()
    recorded = read_json(Path(checkpoint) / CONTRACT) if Path(checkpoint).is_dir() else None
    if recorded:
        now = contract_of(tokenizer, template)
        for key in ("eos_token", "eos_token_id", "vocabulary", "probe"):
            if recorded[key] != now[key]:
                shown = (
                    probe_difference(recorded["probe"], now["probe"])
                    if key == "probe"
                    else f"then: {recorded[key]!r}\nnow:  {now[key]!r}"
                )
                raise CascadeError(
                    f"checkpoint {checkpoint} was trained with another {_SPOKEN[key]} than this run uses:\n{shown}\n"
                    "Use the recipe's template and the checkpoint's own tokenizer files unchanged."
                )
    return tokenizer, template


_SPOKEN = {
    "eos_token": "end-of-turn token",
    "eos_token_id": "end-of-turn token id",
    "vocabulary": "vocabulary",
    "probe": "rendering of conversations",
}


def contract_of(tokenizer: Any, template: Template) -> dict[str, Any]:
    """What must stay the same from stage to stage."""
    vocabulary = hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]
    return {
        "eos_token": tokenizer.eos_token,
        "eos_token_id": tokenizer.eos_token_id,
        "vocabulary": vocabulary,
        "probe": template.probe(),
    }


def write_checkpoint(
    model: Any,
    tokenizer: Any,
    template: Template,
    folder: Path,
    dtype: str,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a plain Hugging Face checkpoint into ``folder`` and read it back.

    ``weights``: where they are not whole in ``model``. Raises CascadeError when what was read differs from what was
    written.
    """
    generation = model.generation_config
    generation.eos_token_id, generation.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    # A generation config that samples greedily warns about our sampling-free one when saved with stale values.
    generation.temperature = generation.top_p = generation.top_k = None
    generation.do_sample = True
    _write_and_read_back(model, tokenizer, contract_of(tokenizer, template), folder, dtype, weights)


def write_reward_model(
    model: Any,
    tokenizer: Any,
    template: Template,
    folder: Path,
    dtype: str,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a one-label sequence classifier as ``write_checkpoint`` does a language model.

    The contract says what it is; configuration and tokenizer agree on the padding token, which tells transformers where
    a padded row ends, that is, which token's score counts.
    """
    model.config.pad_token_id = tokenizer.pad_token_id
    contract = {**contract_of(tokenizer, template), "kind": "reward_model"}
    _write_and_read_back(model, tokenizer, contract, folder, dtype, weights)


def _write_and_read_back(
    model: Any,
    tokenizer: Any,
    contract: dict[str, Any],
    folder: Path,
    dtype: str,
    given: Mapping[str, Tensor] | None = None,
) -> None:
    from safetensors.torch import load_file

    target = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    given = model.state_dict() if given is None else given
    weights = {name: tensor.detach().to("cpu", target).contiguous() for name, tensor in given.items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)  # one tensor, stored once; transformers ties it again on loading
    model.config.dtype = target
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    write_json(folder / CONTRACT, contract)
    read: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        read |= load_file(file)
    wrong = [name for name in weights if name not in read or not torch.equal(read[name], weights[name])]
    if wrong or set(read) - set(weights):
        raise CascadeError(f"the checkpoint just written to {folder} reads back differently: {wrong[:5]}")


def probe_logprobs(
    policy: Policy,
    engine: Engine,
    prompts: Iterable[tuple[int, ...]],
    *,
    tokens: int = 8,
    sampling: SamplingConfig,
    engine_temperature: float,
) -> float:
    """Largest |trainer - engine| log-prob over completions of ``prompts`` of at most ``tokens`` tokens."""
    short = sampling.model_copy(update={"max_new_tokens": min(tokens, sampling.max_new_tokens)})
    prompts = list(prompts)
    requests = [Request(str(i), 0, ids, request_seed("hand-over", i), short) for i, ids in enumerate(prompts)]
    rollouts = sorted(engine.generate(requests), key=lambda rollout: int(rollout.prompt_id))
    sequences = [
        training_sequence(
            ids, rollout.token_ids, rollout.logprobs, 0.0, kept=rollout.kept, temperature=sampling.temperature
        )
        for ids, rollout in zip(prompts, rollouts, strict=True)
    ]
    gap = 0.0
    for batch in pack(sequences, budget=1):  # as many rows on every rank, whatever each generated
        scores = policy.score(batch)
        ours = scores.logprobs if engine_temperature == batch.temperature else scores.raw_logprobs
        # Anything that is no number is as far apart as can be: `max` would pass over it.
        apart = (ours.cpu() - batch.engine_logprobs).abs().nan_to_num(nan=torch.inf)
        gap = max(gap, float(apart.max()))
    return gap


def install_contract(folder: Path, config: TemplateConfig) -> None:
    """Put template, EOS and contract on a base model that is being built in ``folder``."""
    tokenizer, template = load_tokenizer(folder, config)
    tokenizer.save_pretrained(folder)
    write_json(folder / CONTRACT, contract_of(tokenizer, template))
