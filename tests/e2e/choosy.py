"""Rows with limits of their own, and a verifier under which some groups of an untrained model are flat."""

from collections.abc import Iterator


def rows(*, split: str, rows: int) -> Iterator[dict]:
    for number in range(rows):
        yield {"prompt": f"{split} {number}", "max_new_tokens": (6, 40, 80)[number % 3], "strict": number % 4 == 0}


def first_letter(completion: str, *, strict: bool) -> float:
    return float(completion[:1] > ("~" if strict else "M"))
