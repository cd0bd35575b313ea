"""Tables of reward cases, kept as YAML files in ``tests/rewards/cases/``.

A file maps the name of each kind of case to a list of rows. A row is a list of values, or a mapping of columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parent / "cases"


def table(name: str) -> dict[str, list[Any]]:
    """The rows of ``cases/<name>.yaml`` by kind."""
    return yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def cases(name: str, *columns: str) -> list[Any]:
    """One ``pytest.param`` per row of ``cases/<name>.yaml``, with an id made of its kind and its number in the kind.

    ``columns`` are the columns of rows that are mappings, in the order of the test's arguments. A column that a row
    leaves out is None.
    """
    return [
        pytest.param(*([row.get(column) for column in columns] if columns else row), id=f"{kind}-{number}")
        for kind, rows in table(name).items()
        for number, row in enumerate(rows, start=1)
    ]
