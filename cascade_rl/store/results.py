"""Evaluation results in the store: one JSON file for each benchmark on each stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NUMBERS = ("value", "stderr")
COUNTS = ("rows", "samples")


def read_result(path: Path) -> dict[str, Any] | None:
    """The result in ``path``; None where there is none, or a damaged one, which `run` measures again."""
    result, _ = _read(path)
    return result


def result_fault(path: Path) -> str | None:
    """What is wrong with a result that is there; None for a whole one, and where there is none."""
    _, fault = _read(path)
    return fault


def results_in(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """All whole results of a stage's ``evals`` folder in order of their files, and what is wrong with the others."""
    try:
        paths = sorted(folder.glob("*.json"))
    except OSError as error:
        return [], [f"{folder} cannot be read: {error.strerror}"]
    read = [_read(path) for path in paths]
    return [result for result, _ in read if result is not None], [fault for _, fault in read if fault is not None]


def whole_results(folder: Path) -> list[str]:
    """Names of the files with whole results in a stage's ``evals`` folder."""
    try:
        return [path.name for path in sorted(folder.glob("*.json")) if _read(path)[0] is not None]
    except OSError:
        return []


def _read(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return None, f"{path} is damaged: {error}"
    if wrong := _misfit(result):
        return None, f"{path} is damaged: {wrong}"
    return {"benchmark": path.stem, **result}, None


def _misfit(result: Any) -> str | None:
    """What keeps ``result`` from being one."""
    if not isinstance(result, dict):
        return "it is no JSON object"
    interval = result.get("ci95")
    if not (isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval))):
        return "`ci95` is not two numbers"
    if not isinstance(result.get("benchmark", ""), str):
        return "`benchmark` is no text"
    wrong = [key for key in NUMBERS if not _is_number(result.get(key))]
    wrong += [key for key in COUNTS if type(result.get(key)) is not int]
    return f"`{wrong[0]}` is no number" if wrong else None


def _is_number(value: Any) -> bool:
    """Whether ``value`` is a number that a float can hold; NaN (no row was graded) is one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
