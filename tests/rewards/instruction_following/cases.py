"""Responses that follow an instruction and responses that do not, by kind: ``tests/rewards/cases/instructions_*.yaml``."""

from __future__ import annotations

from tests.rewards.case_files import table

IFEVAL, IFBENCH_TRAIN, IFBENCH_WORDS, IFBENCH_FORMATS = (
    table(f"instructions_{name}") for name in ("ifeval", "ifbench_train", "ifbench_words", "ifbench_formats")
)
IFEVAL["detectable_format:json_format"].append([{}, "[" * 100_000, False])  # too deep for a parser
CASES = {**IFEVAL, **IFBENCH_TRAIN, **IFBENCH_WORDS, **IFBENCH_FORMATS}
