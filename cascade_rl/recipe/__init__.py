"""The recipe: one YAML file, typed, with errors that name file, line, key and the nearest valid key."""

from cascade_rl.recipe.loaded import LoadedRecipe
from cascade_rl.recipe.loading import load_recipe
from cascade_rl.recipe.problems import Place, Problem, RecipeError
from cascade_rl.recipe.schema import (
    KINDS,
    BenchmarkByName,
    BenchmarkConfig,
    DataSource,
    EngineConfig,
    EvaluateConfig,
    LaunchConfig,
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
    TrackioConfig,
    WandbConfig,
)

__all__ = [
    "KINDS",
    "BenchmarkByName",
    "BenchmarkConfig",
    "DataSource",
    "EngineConfig",
    "EvaluateConfig",
    "LaunchConfig",
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
    "TrackioConfig",
    "WandbConfig",
    "load_recipe",
]
