"""Reward models: ``kind: reward_model``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cascade_rl.recipe.kinds.offline import OfflineStage
from cascade_rl.recipe.measuring import PairBenchmark
from cascade_rl.recipe.methods import LoraConfig
from cascade_rl.recipe.parts import NOT_IDENTITY, TemplateConfig
from cascade_rl.recipe.problems import Misfit


class RewardModelStage(OfflineStage):
    """A scalar head on a language model, trained on preference pairs (Bradley-Terry).

    Rows bring ``chosen`` and ``rejected`` (conversations or texts) and, where these are answers only, ``prompt``; or
    HelpSteer3's ``context``, ``response1``, ``response2`` and ``overall_preference``. A side branch: the stage after it
    does not start from it.
    """

    REVISIONS = {2: "it is trained on packed pairs by the trainer of all other stages, no longer by TRL's"}
    kind: Literal["reward_model"] = "reward_model"
    ALSO_CALLED = ("rm", "reward")
    READS = "pairs"
    RESULT = "reward model"
    STARTS_FROM = ("language model", "reward model")
    IS_SIDE_BRANCH = True
    MEASURED_ON = "pairs"
    OWN_TEMPLATE = True
    ROWS = "pairs"
    batch_size: int = Field(256, ge=1)
    """Pairs per optimizer step over all ranks."""
    max_length: int = Field(4096, ge=2)
    """Longest conversation in tokens; pairs with a longer one are dropped, and counted in the log."""
    centering: float | None = Field(None, gt=0.0)
    """Adds the mean of ``centering`` * (chosen + rejected)^2 to the loss, which keeps scores near zero (TRL's
    ``center_rewards_coefficient``; 0.01, say). Default: nothing is added."""
    lora: LoraConfig | None = None
    """Train low-rank adapters, and the scalar head as a whole. Default: all weights are trained."""
    trainer: Literal["trl"] | None = None
    """``trl``: TRL's RewardTrainer, whole on each rank (one process or data-parallel). Default: the trainer of all
    other stages."""
    micro_batch_size: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """With ``trainer: trl``, pairs per forward pass and rank; default: the whole share of the rank."""
    held_out: int = Field(0, ge=0)
    """Pairs, drawn by the seed, that are not trained on but measured at the end."""
    evaluate_every: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """Steps between measurements of the held-out pairs, written as ``eval/loss``, ``eval/accuracy`` and
    ``eval/margin``. Default: at the end alone."""
    template: TemplateConfig | None = None
    """Default: the recipe's for a model of this recipe, ``native`` for one from elsewhere."""
    evaluate: list[str | PairBenchmark] = Field([], json_schema_extra=NOT_IDENTITY)
    """Measured at the end beside the held-out pairs: names of shipped ones (``rewardbench``), or definitions."""

    @model_validator(mode="after")
    def _held_out_to_measure(self) -> RewardModelStage:
        if self.evaluate_every is not None and not self.held_out:
            raise Misfit("evaluate_every", "there is nothing to measure: give `held_out` as well, or leave it out")
        return self

    @property
    def own_benchmarks(self) -> list[str | PairBenchmark]:
        return self.evaluate

    @property
    def own_template(self) -> TemplateConfig | None:
        return self.template
