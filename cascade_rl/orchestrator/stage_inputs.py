"""What of a stage's keys its identity is made of."""

from __future__ import annotations

from typing import Any

from cascade_rl.recipe import RlStage, RolloutStage, SftStage, Stage
from cascade_rl.store import identity_fields

_BY_THEMSELVES = frozenset({"kind", "name", "init", "data", "exclude", "reward", "rewards", "teacher", "teachers"})
"""Keys of a stage that enter its identity as what they lead to."""


def config_inputs(config: Stage) -> dict[str, Any]:
    """The stage's keys as its identity has them. A stage that is computed as it was before a key existed keeps its
    identity; one that is computed otherwise now gets another."""
    fields = identity_fields(config, _BY_THEMSELVES)
    chosen = fields.pop("weight_decay_on", None) or "matrices"
    before = "all" if isinstance(config, RolloutStage) else "matrices"  # what each kind did before there was a choice
    if config.weight_decay and chosen != before:
        fields["weight_decay_on"] = chosen
    if (mismatch := fields.get("mismatch")) and mismatch.get("support") == "whole":  # as before the key existed
        fields["mismatch"] = {key: value for key, value in mismatch.items() if key != "support"}
    if isinstance(config, SftStage):
        if config.held_out_sources:  # by what they hold, not by where they lie
            fields.pop("held_out")
        if config.early_stop is None:  # measuring more often changes no weights
            fields.pop("evaluate_every", None)
    if isinstance(config, RlStage) and (config.updates_per_batch or 1) > 1:
        fields["updates"] = "cut over all ranks, one learning rate a step"
    return fields
