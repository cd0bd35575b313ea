"""Cascade RL: post-train a reasoning model end to end from one recipe.

Importing the package imports neither torch nor vLLM: `cascade-rl check` and the supervisor stay light.
"""

__version__ = "0.1.0"
