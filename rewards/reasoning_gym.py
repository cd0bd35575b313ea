"""Tasks of the package reasoning-gym, scored by its own verifiers. Their rows: ``cascade_rl.data.reasoning_gym``."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from cascade_rl.types import Score
from rewards.math_boxes import last_boxed

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def verify(response: str, *, entry: str | Mapping[str, Any], dataset: str) -> Score:
    """The data set's own score, from 0 to 1, of what stands in the last ``<answer>`` tags; without them in the last
    ``\\boxed{}``; without one, of all the response.

    Raises what the data set's verifier raises, and ValueError for a name it does not know.
    """
    row = json.loads(entry) if isinstance(entry, str) else dict(entry)
    answer = answer_of(response)
    return Score(float(_scorer(dataset)(answer=answer, entry=row)), {"answer": answer[:200]})


def answer_of(response: str) -> str:
    tagged = _ANSWER.findall(response)
    if tagged:
        return str(tagged[-1]).strip()
    boxed = last_boxed(response)
    return response.strip() if boxed is None else boxed


@functools.cache
def _scorer(dataset: str) -> Any:
    from reasoning_gym import get_score_answer_fn

    return get_score_answer_fn(dataset)
