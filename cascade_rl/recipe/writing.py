"""A typed recipe back as YAML: resolved, short, and read back as the same recipe by any YAML reader."""

from __future__ import annotations

import re
from typing import Any

import yaml

from cascade_rl.recipe.kinds import StageConfig
from cascade_rl.recipe.reading import SCALARS
from cascade_rl.recipe.schema import Recipe

FIRST = ("name", "kind", "init", "data", "reward")
"""Keys that open a stage."""
LINE_BREAKS = "\n\r\x85\u2028\u2029"


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or 1.2 would take for something else (``no`` and ``2e-6``)."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in SCALARS:
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), _first)


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    # In double quotes a break is written as \n. Other styles double it, and turn Unicode's breaks into spaces.
    style = '"' if any(character in value for character in LINE_BREAKS) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(recipe: Recipe) -> str:
    """The values that differ from the schema's defaults, plus what names things."""
    values = recipe.model_dump(exclude_defaults=True)
    values["stages"] = [_stage(stage, recipe.seed) for stage in recipe.stages]
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _stage(stage: StageConfig, seed: int) -> dict[str, Any]:
    values = stage.model_dump(exclude_defaults=True)
    values["kind"] = stage.kind
    if stage.seed == seed:
        values.pop("seed", None)
    return {key: values[key] for key in (*FIRST, *values) if key in values}
