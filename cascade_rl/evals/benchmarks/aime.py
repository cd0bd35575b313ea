"""AIME 2024 and 2025: 30 problems each with integer answers, avg@64 (P1 section 8.1), prompt of P1's sister model."""

from cascade_rl.recipe import BenchmarkConfig, DataSource, EvaluationSampling, RewardConfig

_PROMPT = "{problem}\n\nPlease place your final answer inside \\boxed{{}}."
_SAMPLING = EvaluationSampling(max_new_tokens=65536)

AIME24 = BenchmarkConfig(
    name="aime24",
    data=[DataSource(source="HuggingFaceH4/aime_2024", split="train", prompt=_PROMPT)],
    reward=RewardConfig(use="rewards.math:verify"),
    samples=64,
    sampling=_SAMPLING,
)
AIME25 = BenchmarkConfig(
    name="aime25",
    data=[DataSource(source="math-ai/aime25", split="test", prompt=_PROMPT)],
    reward=RewardConfig(use="rewards.math:verify"),
    samples=64,
    sampling=_SAMPLING,
)
