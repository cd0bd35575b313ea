"""docs/keys.md, made from the schema: ``python -m cascade_rl.recipe.keys_page > docs/keys.md``."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from cascade_rl.recipe.kinds import KINDS, RolloutStage, StageConfig
from cascade_rl.recipe.schema import Recipe
from cascade_rl.type_words import expected, is_model, required_type

HEAD = """# All keys of a recipe

Made from the schema (`python -m cascade_rl.recipe.keys_page`). A key that is missing has the default named here; one
that is misspelt is an error with the nearest right one. Beside these, a recipe may have `base` (another recipe, which
this one changes) and `defaults` (keys of all stages of a kind: `defaults: {rl: {learning_rate: 2e-6}}`), and a stage
`extends` (another stage, whose keys it takes over) and `skip: true` (leave out a stage of the base).

## From other frameworks

| here | TRL's GRPOConfig | verl |
|---|---|---|
| `prompts_per_step` | `generation_batch_size / num_generations` | `data.train_batch_size` |
| `group_size` | `num_generations` | `rollout.n` |
| `rollout.max_new_tokens` | `max_completion_length` | `data.max_response_length` |
| `max_prompt_tokens` | - | `data.max_prompt_length` |
| `loss.kl` | `beta` | `actor.kl_loss_coef` |
| `loss.clip_low`, `loss.clip_high` | `epsilon`, `epsilon_high` | `actor.clip_ratio_low`, `clip_ratio_high` |
| `updates_per_batch` | `num_iterations`, `steps_per_generation` | `train_batch_size / ppo_mini_batch_size` |
| `tokens_per_micro_batch` | `per_device_train_batch_size` (rollouts) | `actor.ppo_max_token_len_per_gpu` |
| `loss.aggregate: token` | `loss_type: dapo` | `loss_agg_mode: token-mean` |
| `loss.aggregate: sequence` | `loss_type: grpo` | `loss_agg_mode: seq-mean-token-mean` |
| `loss.aggregate: fixed` | `loss_type: dr_grpo` | `loss_agg_mode: seq-mean-token-sum-norm` |
| `advantage: group_mean` | `scale_rewards: none` | `norm_adv_by_std_in_grpo: False` |
| `overlong: filter` | `mask_truncated_completions` | - |
| `mismatch.cap` | `vllm_importance_sampling_cap` | `rollout_correction.rollout_is_threshold` |
| `dynamic_sampling` | - | `algorithm.filter_groups` (DAPO recipe) |
| `engine.placement: colocated`, `dedicated` | `vllm_mode: colocate`, `server` | hybrid engine, fully async |
"""


def keys_page() -> str:
    """The whole page."""
    parts = [HEAD]
    seen: set[type] = set()
    common = set(StageConfig.model_fields)
    rollouts = set(RolloutStage.model_fields) - common
    parts.append(_section("The file", Recipe, set(Recipe.model_fields)))
    parts.append(_section("Every stage", StageConfig, common))
    parts.append(_section("Stages that learn from rollouts: `rl` and `distill`", RolloutStage, rollouts))
    for kind, schema in KINDS.items():
        known = common | (rollouts if issubclass(schema, RolloutStage) else set())
        own = {
            name for name, field in schema.model_fields.items() if name not in known or _differs(schema, name, field)
        }
        parts.append(_section(f"`kind: {kind}`", schema, own - {"kind"}))
    for name, schema in _nested([Recipe, StageConfig, *KINDS.values()], seen):
        parts.append(_section(f"`{name}`", schema, set(schema.model_fields)))
    return "\n".join(parts)


def _differs(schema: type[Any], name: str, field: FieldInfo) -> bool:
    """Whether ``schema`` gives a key of its base another default or meaning."""
    base = RolloutStage if issubclass(schema, RolloutStage) else StageConfig
    above = base.model_fields[name]
    return (_type(field), _default(field)) != (_type(above), _default(above))


def _section(title: str, schema: type[Any], names: set[str]) -> str:
    rows = [
        f"| `{name}` | {_type(field)} | {_default(field)} | {_meaning(field)} |"
        for name, field in schema.model_fields.items()
        if name in names
    ]
    about = _plain(schema.__doc__ or "")
    return "\n".join([f"## {title}\n", about, "", "| key | takes | default | |", "|---|---|---|---|", *rows, ""])


def _nested(schemas: list[type[Any]], seen: set[type]) -> Iterator[tuple[str, type[Any]]]:
    """Sections below ``schemas``, each once, under the key where it is met first."""
    for schema in schemas:
        for name, field in schema.model_fields.items():
            for inner in _models(field.annotation):
                if inner not in seen and not issubclass(inner, StageConfig):
                    seen.add(inner)
                    yield name, inner
                    yield from _nested([inner], seen)


def _models(annotation: Any) -> list[type[Any]]:
    if is_model(annotation):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]


def _type(field: FieldInfo) -> str:
    if is_model(required_type(field.annotation)):
        return "a section, below"
    if any(getattr(each, "pattern", None) for each in field.metadata):
        return "a name"
    return expected(field.annotation, field.metadata).replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    default = field.default
    if default in (None, [], {}, "") or is_model(type(default)):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _meaning(field: FieldInfo) -> str:
    return _plain(field.description or "")


def _plain(text: str) -> str:
    """A docstring's words on one line."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    print(keys_page(), end="")
