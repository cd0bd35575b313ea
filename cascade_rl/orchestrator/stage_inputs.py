"""What of a stage's keys its identity is made of."""

from __future__ import annotations

from typing import Any

from cascade_rl.recipe import StageConfig
from cascade_rl.store import identity_fields

_BY_THEMSELVES = frozenset({"kind", "name", "init", "data", "exclude", "reward", "rewards", "teacher", "teachers"})
"""Keys of a stage that enter its identity as what they lead to."""


def config_inputs(config: StageConfig) -> dict[str, Any]:
    """The stage's keys as its identity has them. A stage that is computed as it was before a key existed keeps its
    identity; one that is computed otherwise now gets another."""
    fields = identity_fields(config, _BY_THEMSELVES | set(config.data_lists))
    chosen = fields.pop("weight_decay_on", None) or "matrices"
    if config.weight_decay and chosen != config.DECAYED_BEFORE:
        fields["weight_decay_on"] = chosen
    return config.identity_changes(fields)
