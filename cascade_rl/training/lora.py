"""Low-rank adapters on a policy: W + s B A with s = alpha / rank, of which only A and B are trained (peft's layers).

Everything outside sees whole weights by their checkpoint names: the engine, the checkpoint. Merging works on a stream
of (name, tensor), whichever way the policy is spread over ranks, and leaves the trained tensors alone. It is done in
float32 and rounded once, by whoever wants fewer bits: an update added to weights that are rounded already would be lost
where it is smaller than their last bit.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from cascade_rl.recipe import LoraConfig
from cascade_rl.recipe.problems import suggestion
from cascade_rl.types import CascadeError

ADAPTER = "default"
"""peft's name of the one adapter."""
BASE, A, B = "base_layer.weight", f"lora_A.{ADAPTER}.weight", f"lora_B.{ADAPTER}.weight"
Weights = Iterable[tuple[str, Tensor]]


SCORE = "score"
"""Module and peft name of a classifier's head: trained as a whole, since it may be fresh."""


def wrap_model(model: Any, config: LoraConfig, seed: int) -> None:
    """Put adapters on ``model``, in place, and freeze all else but a classifier's head. A is drawn from ``seed``, alike
    on every rank; B is 0, so that the model starts as what it was. Raises CascadeError when ``target_modules`` names
    nothing in it."""
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    _check_targets(model, config.target_modules)
    head = getattr(model, SCORE, None)
    # Not as one of peft's modules_to_save: these are copies, under names that no checkpoint has.
    settings = config.peft_settings if head is None else {**config.peft_settings, "exclude_modules": [SCORE]}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(PeftConfig(**settings), model, ADAPTER)
    if head is not None:
        head.requires_grad_(True)


def peft_task(model: Any) -> dict[str, Any]:
    """What an ``adapter_config.json`` says of the kind of ``model``, as keys of peft's ``LoraConfig``."""
    if getattr(model, SCORE, None) is None:
        return {"task_type": "CAUSAL_LM"}
    return {"task_type": "SEQ_CLS", "modules_to_save": [SCORE]}


def _check_targets(model: Any, wanted: str | list[str]) -> None:
    if wanted == "all-linear":
        return
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    short = sorted({name.rpartition(".")[2] for name in linear})
    for one in [wanted] if isinstance(wanted, str) else wanted:
        if isinstance(wanted, str):
            matched, what = [name for name in linear if re.fullmatch(one, name)], "the whole name"
        else:
            matched, what = [name for name in linear if f".{name}".endswith(f".{one}")], "the name or its end"
        if not matched:
            hint = suggestion(one, short, "their names end in")
            kind = type(model).__name__
            raise CascadeError(f"lora.target_modules: {one!r} is {what} of no linear layer of {kind}; {hint}")
        if any(name == SCORE or model.get_submodule(name) is model.get_output_embeddings() for name in matched):
            raise CascadeError(f"lora.target_modules: {one!r} is the head, which has no adapter; leave it out")


def merged_weights(weights: Weights, scale: float) -> Iterator[tuple[str, Tensor]]:
    """Whole weights by checkpoint name from those of a wrapped model, in the order of layers.

    A tensor of ``weights`` need be valid only until the next is asked for; of one adapted layer at a time a copy is
    kept. Raises ValueError when the stream ends within one.
    """
    waiting: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights:
        module, kind = split_name(name)
        if kind is None:
            yield name.replace(".base_layer.", "."), tensor
            continue
        parts = waiting.setdefault(module, {})
        parts[kind] = tensor.detach().float().clone()
        if len(parts) == 3:
            del waiting[module]
            yield f"{module}.weight", parts[BASE].addmm_(parts[B], parts[A], alpha=scale)
    if waiting:
        raise ValueError(f"weights of {sorted(waiting)} came in part")


def for_engine(weights: Weights, config: LoraConfig | None) -> Iterator[tuple[str, Tensor]]:
    """What the engine of a policy gets of ``weights``; all of them where there are no adapters."""
    if config is None:
        yield from weights
    elif config.sync == "adapter":
        yield from adapter_weights(weights)
    else:
        yield from merged_weights(weights, config.scale)


def for_checkpoint(weights: Weights, config: LoraConfig | None) -> Iterator[tuple[str, Tensor]]:
    """``weights`` as a plain model has them."""
    return iter(weights) if config is None else merged_weights(weights, config.scale)


def adapter_weights(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """A and B alone, and a classifier's head, by the names of a peft checkpoint (``adapter_model.safetensors``)."""
    for name, tensor in weights:
        module, kind = split_name(name)
        if name == f"{SCORE}.weight":
            yield f"base_model.model.{name}", tensor
        elif kind in (A, B):
            yield f"base_model.model.{module}.{kind.replace(f'.{ADAPTER}', '')}", tensor


def split_name(name: str) -> tuple[str, str | None]:
    """Module and which of its three tensors (``BASE``, ``A``, ``B``); ("", None) for a weight without adapter."""
    for kind in (BASE, A, B):
        if name.endswith(f".{kind}"):
            return name.removesuffix(f".{kind}"), kind
    return "", None


@contextlib.contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """``model`` as it was before training, within the block.

    Adapters are multiplied by zero, not left out: every module is still called in the order that ZeRO-3 and FSDP2 have
    seen, and nothing about what is trained changes.
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    before = [layer.scaling[ADAPTER] for layer in layers]
    try:
        for layer in layers:
            layer.scaling[ADAPTER] = 0.0
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.scaling[ADAPTER] = value


def lost_in_rounding(weights: Weights, scale: float, dtype: torch.dtype) -> float:
    """How far rounding the merged weights to ``dtype`` takes them from where they are, as a share of how far training
    has taken them from where they were: sqrt(sum |round(W + s B A) - (W + s B A)|^2 / sum |s B A|^2). 0 where nothing
    was learned."""
    off = learned = 0.0
    originals: dict[str, Tensor] = {}

    def noting() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights:
            module, kind = split_name(name)
            if kind == BASE:
                originals[f"{module}.weight"] = tensor.detach().float().clone()
            yield name, tensor

    for name, whole in merged_weights(noting(), scale):
        if (original := originals.pop(name, None)) is not None:
            off += float((whole.to(dtype).float() - whole).double().square().sum())
            learned += float((whole - original).double().square().sum())
    return math.sqrt(off / learned) if learned else 0.0
