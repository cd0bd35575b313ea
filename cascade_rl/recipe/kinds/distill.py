"""On-policy distillation: ``kind: distill``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cascade_rl.recipe.kinds.base import Found, Panel
from cascade_rl.recipe.kinds.rollout import GAP, LENGTHS, RolloutStage
from cascade_rl.recipe.methods import TeacherConfig
from cascade_rl.recipe.problems import Misfit


class DistillStage(RolloutStage):
    """On-policy distillation: the student's own rollouts, each token weighed by how much likelier a teacher finds it
    (MOPD, arXiv 2603.19220)."""

    ALSO_CALLED = ("opd", "mopd", "gkd")
    BAND = "#EEF7EF"
    HEADLINE = ("advantage", "distill/advantage_mean")
    PANELS = (
        Panel("distill/advantage_mean", "teacher - student log-prob"),
        *LENGTHS,
        Panel("distill/masked", "tokens outside the ratio band, %", 100.0),
        GAP,
    )
    kind: Literal["distill"] = "distill"
    teacher: TeacherConfig | None = None
    teachers: dict[str, TeacherConfig] = {}
    """Instead of ``teacher``: domain -> teacher. A row's domain is that of its source, or its column ``domain``."""
    group_size: int = Field(4, ge=1)
    ratio_low: float = Field(0.5, gt=0.0, le=1.0)
    """Tokens whose trainer / engine ratio is below this are left out of the loss, not of the denominator."""
    ratio_high: float = Field(2.0, ge=1.0)
    """Same above this."""

    @model_validator(mode="after")
    def _one_teacher(self) -> DistillStage:
        if (self.teacher is None) == (not self.teachers):
            raise Misfit("teachers" if self.teachers else "teacher", "give exactly one of `teacher` and `teachers`")
        return self

    @property
    def teachers_by_domain(self) -> dict[str, TeacherConfig]:
        return self.teachers if self.teacher is None else {"": self.teacher}

    @property
    def uses_ratios(self) -> bool:
        return True

    def contradictions(self) -> Found:
        yield from super().contradictions()
        for teacher in self.teachers_by_domain.values():
            keys = self.keys_of(teacher)
            if teacher.url is not None and not teacher.url.startswith(("http://", "https://")):
                yield keys, f"the address of a teacher starts with http:// or https://, unlike {teacher.url!r}"
            if teacher.url is not None and self.rollout.temperature != 1.0:
                yield (
                    keys,
                    "a server says how likely tokens are at temperature 1 only, and this stage samples at "
                    f"{self.rollout.temperature:g}: give the teacher as `model`, or set rollout.temperature to 1",
                )
