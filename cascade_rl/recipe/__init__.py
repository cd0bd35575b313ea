"""The recipe: one YAML file, typed, with errors that name file, line, key and the nearest valid key."""

from cascade_rl.recipe.loading import LoadedRecipe, load_recipe
from cascade_rl.recipe.problems import Place, Problem, RecipeError
from cascade_rl.recipe.schema import (
    BenchmarkByName,
    BenchmarkConfig,
    DataSource,
    EngineConfig,
    EvaluateConfig,
    OptimizerConfig,
    Recipe,
    RewardConfig,
    RlStage,
    SamplingConfig,
    SftStage,
    Stage,
    StageConfig,
    TemplateConfig,
    TrackingConfig,
)

__all__ = [
    "BenchmarkByName",
    "BenchmarkConfig",
    "DataSource",
    "EngineConfig",
    "EvaluateConfig",
    "LoadedRecipe",
    "OptimizerConfig",
    "Place",
    "Problem",
    "Recipe",
    "RecipeError",
    "RewardConfig",
    "RlStage",
    "SamplingConfig",
    "SftStage",
    "Stage",
    "StageConfig",
    "TemplateConfig",
    "TrackingConfig",
    "load_recipe",
]
