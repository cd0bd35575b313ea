"""Which elements of one list equal which of another. A comparison of two roots can take a tenth of a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def matched(
    ours: Sequence[str], theirs: Sequence[str], equal: Callable[[str, str], bool]
) -> dict[str, set[int]] | None:
    """The places in ``theirs`` of each of ``ours``; None if one of ours has none, or one of theirs is not in ours.

    Both lists may repeat elements. Equality is taken to be transitive: two elements that equal a third are not compared
    with each other, and what is found is compared again only with elements that nothing was found equal to. Two lists
    of n different elements in the same order, or in the same writing, take n comparisons.
    """
    places: dict[str, set[int]] = {}
    found: set[int] = set()
    for number, mine in enumerate(ours):
        if mine in places:
            continue

        def unlikely(place: int, mine: str = mine, number: int = number) -> tuple[bool, bool, int]:
            return place in found, theirs[place] != mine, abs(place - number)

        place = next((place for place in sorted(range(len(theirs)), key=unlikely) if equal(mine, theirs[place])), None)
        if place is None:
            return None
        places[mine] = {place}
        found.add(place)
    for place in sorted(set(range(len(theirs))) - found):  # a repeated element, or one that we lack
        owner = next((mine for mine in places if equal(mine, theirs[place])), None)
        if owner is None:
            return None
        places[owner].add(place)
    return places
