"""What the launcher's accelerate config asks for, read from the variables that `accelerate launch` sets.

The supervisor reads them once; its children get them under a name of ours, since accelerate's own would make TRL and
accelerate set up what we set up ourselves (and differently on CPU: shared notes "training", section 8).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade_rl.recipe.methods import ShardingConfig
from cascade_rl.types import CascadeError

VARIABLE = "CASCADE_RL_LAUNCH"
"""Under which a stage's process finds it, as JSON."""
NOTHING = ("", "none", "no", "false", "null")


_OTHERWISE = {
    "ACCELERATE_DEEPSPEED_DEEPSPEED_CONFIG_FILE": "ACCELERATE_DEEPSPEED_CONFIG_FILE",
    "ACCELERATE_DEEPSPEED_GRADIENT_ACCUMULATION_STEPS": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "ACCELERATE_DEEPSPEED_GRADIENT_CLIPPING": "ACCELERATE_GRADIENT_CLIPPING",
}
"""Keys of a config file whose variable is not just their name in capitals."""


@dataclass(frozen=True)
class Launch:
    """What was asked for; None and False where the launcher says nothing, as torchrun and plain data-parallel do."""

    strategy: str | None = None
    offload_optimizer: bool = False
    offload_parameters: bool = False
    precision: str | None = None
    """``bf16``, ``fp16`` or ``fp8``: compute precision that the accelerate config names."""
    gradient_clipping: float | None = None
    processes: int | None = None
    refused: tuple[str, ...] = ()
    """What is asked for and is not offered, in words for the user."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Launch:
        """As the supervisor handed it on, else as accelerate left it. Raises CascadeError for an unreadable file."""
        if VARIABLE in environment:
            values = json.loads(environment[VARIABLE])
            return cls(**{**values, "refused": tuple(values["refused"])})
        processes = int(environment["WORLD_SIZE"]) if "WORLD_SIZE" in environment else None
        precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
        common = cls(
            processes=processes,
            precision=None if precision in NOTHING else precision,
            refused=tuple(_others(environment)),
        )
        if environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
            return _deepspeed(common, environment)
        if environment.get("ACCELERATE_USE_FSDP", "").lower() == "true":
            return _fsdp(common, environment)
        return common

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Launch:
        """The same from the content of an accelerate config file, before anything is launched with it."""
        kind = str(config.get("distributed_type", "")).upper()
        sections: dict[str, Mapping[str, Any]] = {
            "ACCELERATE_DEEPSPEED_": (config.get("deepspeed_config") or {}) if kind == "DEEPSPEED" else {},
            "": (config.get("fsdp_config") or {}) if kind == "FSDP" else {},
        }
        named = {prefix + key: value for prefix, section in sections.items() for key, value in section.items()}
        environment = {key.upper(): str(value) for key, value in named.items() if value is not None}
        environment["ACCELERATE_USE_DEEPSPEED"] = str(kind == "DEEPSPEED")
        environment["ACCELERATE_USE_FSDP"] = str(kind == "FSDP")
        environment["ACCELERATE_USE_MEGATRON_LM"] = str(kind == "MEGATRON_LM")
        environment["ACCELERATE_MIXED_PRECISION"] = str(config.get("mixed_precision", "no"))
        for ours, theirs in _OTHERWISE.items():
            if ours in environment:
                environment[theirs] = environment.pop(ours)
        return cls.from_environment(environment)

    def handed_on(self) -> str:
        """For ``VARIABLE`` in a child's environment."""
        return json.dumps(dataclasses.asdict(self))

    def resolve(self, how: ShardingConfig) -> ShardingConfig:
        """``how`` with its ``auto`` replaced, and offloading where either side asks for it.

        Raises CascadeError where the two ask for different things (which `check` has told before).
        """
        if problem := self.disagreement(how):
            raise CascadeError(problem)
        strategy = how.strategy if how.strategy != "auto" else self.strategy or "ddp"
        return how.model_copy(
            update={
                "strategy": strategy,
                "offload_optimizer": how.offload_optimizer or self.offload_optimizer,
                "offload_parameters": how.offload_parameters or self.offload_parameters,
            }
        )

    def disagreement(self, how: ShardingConfig) -> str | None:
        """In words, where recipe and launcher name different strategies."""
        if self.strategy is None or how.strategy in ("auto", self.strategy):
            return None
        return (
            f"the recipe asks for {how.strategy}, the accelerate config for {self.strategy}; use `strategy: auto`, or "
            "another of launch/accelerate/"
        )


def _deepspeed(common: Launch, environment: Mapping[str, str]) -> Launch:
    """Its ZeRO settings; stage 0 shards nothing, and so asks for nothing."""
    get = environment.get
    prefix = "ACCELERATE_DEEPSPEED_"
    stage = int(get(f"{prefix}ZERO_STAGE", "2"))
    devices = [get(f"{prefix}OFFLOAD_{what}_DEVICE", "none").lower() for what in ("OPTIMIZER", "PARAM")]
    clipping = get("ACCELERATE_GRADIENT_CLIPPING", "none")
    refused = list(common.refused)
    if file := get(f"{prefix}CONFIG_FILE"):
        config = _read(file)
        zero = config.get("zero_optimization", {})
        stage = int(zero.get("stage", 0))
        devices = [str(zero.get(f"offload_{what}", {}).get("device", "none")) for what in ("optimizer", "param")]
        clipping = str(config.get("gradient_clipping", "none"))
    if stage == 1:
        refused.append("ZeRO stage 1 is not offered; use zero_stage: 2, which shares out gradients as well")
    if "nvme" in devices:
        refused.append("offloading to NVMe is not offered; use cpu or none")
    if (accumulation := get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")) not in ("1", "auto"):
        refused.append(
            f"gradient_accumulation_steps: {accumulation} is not followed, since rows are cut by "
            "`tokens_per_micro_batch`; set it to 1"
        )
    return dataclasses.replace(
        common,
        strategy=f"zero{stage}" if stage in (2, 3) else None,
        offload_optimizer=stage > 0 and devices[0] not in NOTHING,
        offload_parameters=stage > 0 and devices[1] not in NOTHING,
        gradient_clipping=None if clipping.lower() in (*NOTHING, "auto") else float(clipping),
        refused=tuple(refused),
    )


def _fsdp(common: Launch, environment: Mapping[str, str]) -> Launch:
    refused = list(common.refused)
    if (version := environment.get("FSDP_VERSION", "1")) != "2":
        refused.append(f"FSDP version {version} is not offered; set fsdp_version: 2")
    offload = environment.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
    return dataclasses.replace(
        common, strategy="fsdp2", offload_optimizer=offload, offload_parameters=offload, refused=tuple(refused)
    )


def _others(environment: Mapping[str, str]) -> Iterator[str]:
    if environment.get("ACCELERATE_USE_MEGATRON_LM", "").lower() == "true":
        yield "Megatron-LM is not offered; use one of launch/accelerate/"
    if environment.get("ACCELERATE_USE_PARALLELISM_CONFIG", "").lower() == "true":
        yield "a parallelism_config is not followed; the recipe's `sharding.sequence_parallel` decides"
    if (precision := environment.get("ACCELERATE_MIXED_PRECISION")) in ("fp16", "fp8"):
        yield f"mixed_precision: {precision} is not offered; set it to no, the recipe's `dtype` decides"


def _read(file: str) -> dict[str, Any]:
    try:
        return json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise CascadeError(f"the accelerate config's deepspeed_config_file {file} cannot be read: {error}") from error
