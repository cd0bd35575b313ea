"""A reward that even an untrained model varies in: the share of digits among the characters it wrote."""


def share(completion: str) -> float:
    return sum(character.isdigit() for character in completion) / max(1, len(completion))


def variety(completion: str) -> float:
    """The share of distinct characters: no two rollouts have the same."""
    return len(set(completion)) / max(1, len(completion))
