"""Models that a stage reads and does not train: the reference of a KL penalty, teachers."""
