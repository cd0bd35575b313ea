"""Rewards: loading by import path, worker processes with hard deadlines, scores."""

from cascade_rl.rewarding.loading import LoadedReward, RewardError, load_reward
from cascade_rl.rewarding.scorer import Scorer
from cascade_rl.types import Score

__all__ = ["LoadedReward", "RewardError", "Score", "Scorer", "load_reward"]
