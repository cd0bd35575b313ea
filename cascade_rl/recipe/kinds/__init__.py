"""The kinds of stages. Each module has the keys of one kind and its answers (``base.StageConfig``); the module of the
same name in ``cascade_rl.stages`` carries it out.

A package may bring a kind of its own, by an entry point of the group ``cascade_rl.kinds`` that names its class.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from cascade_rl.recipe.kinds.base import LanguageModelStage, StageConfig
from cascade_rl.recipe.kinds.distill import DistillStage
from cascade_rl.recipe.kinds.offline import OfflineStage
from cascade_rl.recipe.kinds.reward_model import RewardModelStage
from cascade_rl.recipe.kinds.rl import RlStage
from cascade_rl.recipe.kinds.rollout import RolloutStage
from cascade_rl.recipe.kinds.sft import SftStage
from cascade_rl.types import CascadeError

KINDS: dict[str, type[StageConfig]] = {
    "sft": SftStage,
    "reward_model": RewardModelStage,
    "rl": RlStage,
    "distill": DistillStage,
}
"""Kind in a recipe -> its class. Kinds of other packages follow once they are asked for."""
GROUP = "cascade_rl.kinds"


def find_kind(name: object) -> type[StageConfig] | None:
    """The class of the kind ``name``; None where there is none. Raises CascadeError for a kind of another package that
    cannot be loaded."""
    if not isinstance(name, str):
        return None
    if name not in KINDS:
        for point in entry_points(group=GROUP, name=name):
            KINDS[name] = _loaded(point)
    return KINDS.get(name)


def kind_names() -> list[str]:
    """Every kind there is, those of other packages too."""
    return list(dict.fromkeys([*KINDS, *(point.name for point in entry_points(group=GROUP))]))


def _loaded(point: EntryPoint) -> type[StageConfig]:
    where = (
        f"kind {point.name} ({point.value}, entry point {GROUP} of {point.dist.name if point.dist else 'a package'})"
    )
    try:
        found = point.load()
    except Exception as error:
        raise CascadeError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, StageConfig)):
        raise CascadeError(f"{where} must be a class derived from cascade_rl.recipe.kinds.StageConfig")
    if found.model_fields["kind"].default != point.name:
        raise CascadeError(f'{where} must have a key `kind: Literal["{point.name}"] = "{point.name}"`')
    if not found.CODE:
        raise CascadeError(f'{where} must name the module that carries it out: CODE = "my_package.my_stage"')
    return found


__all__ = [
    "KINDS", "DistillStage", "LanguageModelStage", "OfflineStage", "RewardModelStage", "RlStage", "RolloutStage",
    "SftStage", "StageConfig", "find_kind", "kind_names",
]  # fmt: skip
