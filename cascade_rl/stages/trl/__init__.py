"""Stages trained by TRL's own trainers (``trainer: trl``): the reference that ours is compared with."""
