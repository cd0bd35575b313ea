"""What kinds that learn from given rows have in common."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cascade_rl.recipe.kinds.base import Found, Positions, StageConfig
from cascade_rl.recipe.methods import EarlyStopConfig
from cascade_rl.recipe.parts import NOT_IDENTITY
from cascade_rl.recipe.problems import Misfit

NOT_FOR_TRL = ("tokens_per_micro_batch", "logprob_chunk_tokens", "lora", "max_skipped_steps", "stall_timeout_s", "loss",
               "evaluate_every", "early_stop")  # fmt: skip
"""Keys that TRL's trainers do not follow."""


class OfflineStage(StageConfig):
    """Keys of stages that learn from given rows or pairs."""

    ROWS: ClassVar[str] = "rows"
    """What a batch is counted in."""
    NOT_FOR_TRL: ClassVar[tuple[str, ...]] = NOT_FOR_TRL
    lr_schedule: Literal["constant", "cosine", "linear"] = "cosine"
    batch_size: int = Field(256, ge=1)
    """Rows per optimizer step over all ranks."""
    epochs: float | None = Field(None, gt=0.0)
    steps: int | None = Field(None, ge=1)
    """Optimizer steps; give either this or ``epochs``."""
    max_length: int = Field(16384, ge=2)
    """Longest row in tokens, prompt included."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between measurements on ``held_out``. Default: at the end alone."""
    trainer: Literal["trl"] | None = None
    """``trl``: TRL's own trainer, whole on each rank (one process or data-parallel). Default: the trainer of all other
    stages."""
    micro_batch_size: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """With ``trainer: trl``, rows per forward pass and rank; default: the whole share of the rank."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise Misfit("steps", "give exactly one of `epochs` and `steps`")
        return self

    def rows_per_step(self) -> tuple[str, int]:
        return "batch_size", self.batch_size

    @property
    def known_steps(self) -> int | None:
        return self.steps

    @property
    def rows_per_pass(self) -> tuple[str, int] | None:
        return ("micro_batch_size", self.micro_batch_size) if self.micro_batch_size else None

    def longest_tokens(self) -> Positions:
        return Positions(("max_length",), self.max_length, f"{self.max_length}")

    def arithmetic(self, processes: int) -> str:
        length = f"{self.steps} steps" if self.steps else f"{self.epochs:g} epochs"
        return (
            f"{length}; each {self.batch_size} {self.ROWS} of <= {self.max_length} tokens "
            f"({self.batch_size // processes} per rank), 1 update"
        )

    @property
    def early_stopping(self) -> EarlyStopConfig | None:
        """When the held-out loss ends the stage; None: never."""
        return None

    @property
    def trained_by(self) -> Literal["trl"] | None:
        return self.trainer

    def contradictions(self) -> Found:
        yield from super().contradictions()
        for key in self.NOT_FOR_TRL if self.trainer == "trl" else ():
            field = type(self).model_fields.get(key)
            if field is not None and getattr(self, key) != field.default:
                yield (key,), "TRL's trainers do not follow it: leave it out, or leave out `trainer: trl`"

    def notes(self) -> list[str]:
        if self.trainer is not None or self.micro_batch_size is None:
            return []
        return [
            f"stage {self.name}: micro-batches are cut by `tokens_per_micro_batch`; `micro_batch_size` acts with "
            "`trainer: trl` alone"
        ]
