"""The recipe: one YAML file, typed, with errors that name file, line, key and the nearest valid key."""

from cascade_rl.recipe.kinds import (
    KINDS,
    DistillStage,
    LanguageModelStage,
    OfflineStage,
    RewardModelStage,
    RlStage,
    RolloutStage,
    SftStage,
    StageConfig,
    find_kind,
)
from cascade_rl.recipe.learning import (
    Curriculum,
    DynamicSampling,
    EarlyStopConfig,
    LoraConfig,
    LossConfig,
    MismatchConfig,
    SftLossConfig,
    ShardingConfig,
    TeacherConfig,
)
from cascade_rl.recipe.loaded import LoadedRecipe
from cascade_rl.recipe.loading import load_recipe
from cascade_rl.recipe.measuring import (
    BenchmarkByName,
    BenchmarkConfig,
    EvaluateConfig,
    GateConfig,
    GateException,
    PairBenchmark,
)
from cascade_rl.recipe.parts import (
    DataSource,
    EngineConfig,
    EvaluationSampling,
    Exclusion,
    OptimizerConfig,
    RewardConfig,
    RopeScaling,
    SamplingConfig,
    TemplateConfig,
)
from cascade_rl.recipe.problems import Place, Problem, RecipeError
from cascade_rl.recipe.schema import LaunchConfig, Recipe, TrackingConfig, TrackioConfig, WandbConfig

__all__ = [
    "KINDS", "BenchmarkByName", "BenchmarkConfig", "Curriculum", "DataSource", "DistillStage", "DynamicSampling",
    "EarlyStopConfig", "EngineConfig", "EvaluateConfig", "EvaluationSampling", "Exclusion", "GateConfig",
    "GateException", "LanguageModelStage", "LaunchConfig", "LoadedRecipe", "LoraConfig", "LossConfig",
    "MismatchConfig", "OfflineStage", "OptimizerConfig", "PairBenchmark", "Place", "Problem", "Recipe", "RecipeError",
    "RewardConfig", "RewardModelStage", "RlStage", "RolloutStage", "RopeScaling", "SamplingConfig", "SftLossConfig",
    "SftStage", "ShardingConfig", "StageConfig", "TeacherConfig", "TemplateConfig", "TrackingConfig", "TrackioConfig",
    "WandbConfig", "find_kind", "load_recipe",
]  # fmt: skip
