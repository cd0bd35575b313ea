"""Supervised fine-tuning: ``kind: sft``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from cascade_rl.recipe.kinds.base import LanguageModelStage
from cascade_rl.recipe.kinds.offline import NOT_FOR_TRL, OfflineStage
from cascade_rl.recipe.methods import EarlyStopConfig, SftLossConfig
from cascade_rl.recipe.parts import DataSource
from cascade_rl.recipe.problems import Misfit


class SftStage(OfflineStage, LanguageModelStage):
    """Supervised fine-tuning on conversations, loss on assistant tokens only.

    Rows are packed into micro-batches of ``tokens_per_micro_batch``; a row never sees another one.
    """

    REVISIONS = {
        2: "the trainer is that of all other stages; tool calls, tools and reasoning are trained as the template "
        "renders them, and no answer to nothing is",
    }
    kind: Literal["sft"] = "sft"
    TITLE = "Supervised fine-tuning"
    BAND = "#EEF2F7"
    NOT_FOR_TRL = (*NOT_FOR_TRL, "held_out")
    overlong: Literal["drop", "truncate"] = "drop"
    """What happens to rows over ``max_length``; the published recipe drops them."""
    turns: Literal["each", "last"] = "each"
    """``each``: a conversation becomes one training row per assistant turn, its history rendered as at inference;
    ``last``: only the last turn is trained."""
    loss: SftLossConfig | None = None
    """Default: the mean over all trained tokens of the step."""
    held_out: int | list[DataSource] | None = None
    """What the loss is measured on without being trained on: so many rows of ``data``, drawn by the seed, or rows of
    other sources. Of a row that is drawn no copy is trained on, and no other turn of its conversation."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between measurements of the loss on ``held_out``, written as ``eval/loss`` and ``eval/token_accuracy``.
    Default: at the end alone."""
    early_stop: EarlyStopConfig | None = None
    """End the stage once the held-out loss does not improve any more. Needs ``held_out`` and ``evaluate_every``."""
    trainer: Literal["trl"] | None = None
    """``trl``: TRL's SFTTrainer, whole on each rank (one process or data-parallel). Default: the trainer of all other
    stages."""
    packing: bool = False
    """With ``trainer: trl``, its packing: rows fill sequences of ``max_length``, borders respected, and ``batch_size``
    counts those sequences. Else it changes nothing: rows are always packed, and ``batch_size`` counts rows."""

    @model_validator(mode="after")
    def _held_out(self) -> SftStage:
        if self.held_out in (0, []):
            raise Misfit("held_out", "0 rows measure nothing: give a number of rows or data sources, or leave it out")
        if self.evaluate_every is not None and self.held_out is None:
            raise Misfit("evaluate_every", "there is nothing to measure: give `held_out` as well, or leave it out")
        if self.early_stop is not None and self.evaluate_every is None:
            raise Misfit("early_stop", "it looks at the held-out loss: give `held_out` and `evaluate_every` as well")
        return self

    @property
    def held_out_sources(self) -> list[DataSource]:
        """The sources of ``held_out``, where it names some."""
        return self.held_out if isinstance(self.held_out, list) else []

    @property
    def early_stopping(self) -> EarlyStopConfig | None:
        return self.early_stop

    def identity_changes(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.early_stop is None:  # measuring more often changes no weights
            fields.pop("evaluate_every", None)
        return fields

    def notes(self) -> list[str]:
        found = super().notes()
        if self.packing and self.trainer is None:
            found.insert(
                0,
                f"stage {self.name}: rows are packed in any case, and `batch_size` counts rows. `packing` acts with "
                "`trainer: trl` alone, where `batch_size` counts sequences of packed rows",
            )
        return found
