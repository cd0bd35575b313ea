"""The whole recipe. Its parts are in ``parts``, ``methods`` and ``measuring``; its stages in ``kinds``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from cascade_rl.recipe.kinds import StageConfig, find_kind
from cascade_rl.recipe.measuring import EvaluateConfig, GateConfig
from cascade_rl.recipe.parts import Name, Section, TemplateConfig


def _typed(value: Any) -> Any:
    """A stage by its kind; anything else as it is."""
    kind = find_kind(value.get("kind")) if isinstance(value, dict) else None
    return value if kind is None else kind.model_validate(value)


Stage = Annotated[SerializeAsAny[StageConfig], BeforeValidator(_typed)]


class LaunchConfig(Section):
    """How `cascade-rl run` calls `accelerate launch`."""

    accelerate: str | None = None
    """Path of an accelerate config file, e.g. ``launch/accelerate/ddp-8.yaml``."""


class WandbConfig(Section):
    project: str = "cascade-rl"
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    """``auto``: online with a login or WANDB_API_KEY, offline otherwise."""


class TrackioConfig(Section):
    project: str = "cascade-rl"


class TrackingConfig(Section):
    """Metric sinks beside metrics.jsonl, which is always written."""

    wandb: WandbConfig | None = None
    trackio: TrackioConfig | None = None


class Recipe(Section):
    """The whole file after `base`, `extends`, `defaults` and `--set` were applied."""

    name: str = Name
    description: str = ""
    model: str
    """Hub id, local folder, or a built-in name (``tiny-qwen3``, ``smollm2-135m-instruct``)."""
    model_args: dict[str, Any] = {}
    """Arguments of a built-in model, e.g. its sizes."""
    template: TemplateConfig = TemplateConfig()
    seed: int = Field(42, ge=0, le=2**32 - 1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: float32 on CPU, bfloat16 (float32 master weights) on GPU."""
    stages: list[Stage] = Field(min_length=1)
    evaluate: EvaluateConfig = EvaluateConfig()
    gates: list[GateConfig] = []
    """Asked after every stage, once it is measured."""
    tracking: TrackingConfig = TrackingConfig()
    launch: LaunchConfig = LaunchConfig()
