"""Each test imports the ``mine.py`` of its own folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def forgets_mine() -> Iterator[None]:
    yield
    sys.modules.pop("mine", None)
