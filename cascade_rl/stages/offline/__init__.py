"""Stages that learn from a fixed set of examples (SFT, reward models): one loop, one method per kind."""
