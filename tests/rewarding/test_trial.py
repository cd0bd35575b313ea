"""Rewards tried on sample rows: what is said of blind, broken and sound ones."""

import pytest

from cascade_rl.rewarding.trial import correct_responses, try_reward
from cascade_rl.types import Prompt


def prompts(**columns):
    return [Prompt(f"r{i}", ({"role": "user", "content": "q"},), columns) for i in range(2)]


def trial(project, source, rows, thinking=True, **keys):
    project.write(source)
    return try_reward(project.config(**keys), [project.folder], rows, thinking)


SOUND = [
    "def score(response, answer): return float(response.strip() == answer)",
    "def score(response, answer): return float('boxed{' + answer + '}' in response)",
    "def score(response, answer): return float(f'<answer>{answer}</answer>' in response) - 0.5",
    "def score(response, answer): return float('```python' in response and answer in response)",
    "def score(completion, answer): return float(completion.endswith(answer))",
]


@pytest.mark.parametrize("source", SOUND)
@pytest.mark.parametrize("thinking", [True, False])
def test_a_reward_that_sees_the_reference_in_some_form(project, source, thinking):
    found = trial(project, source, prompts(answer="42"), thinking)
    assert (found.fatal, found.warnings) == ("", ())


@pytest.mark.parametrize("value", ["0.0", "1.0", "len(answer)"])
def test_a_blind_reward_is_warned_of(project, value):
    found = trial(project, f"def score(response, answer): return {value}", prompts(answer="42"))
    assert not found.fatal
    (warning,) = found.warnings
    assert "alike" in warning
    assert project.module in warning


def test_a_reward_with_its_sign_turned_round(project):
    found = trial(project, "def score(response, answer): return -float(answer in response)", prompts(answer="42"))
    assert "gives more" in found.warnings[0]


def test_rows_without_a_reference_say_nothing_of_blindness(project):
    assert trial(project, "def score(response, words): return 0.0", prompts(words=["a"])).warnings == ()


def test_a_whole_response_of_the_row_is_taken_as_it_is(project):
    rows = prompts(response="<think>\nso\n</think>\n\nblue")
    assert trial(project, "def score(response): return float(response == 'blue')", rows).warnings == ()
    assert correct_responses(rows[0]) == [("<think>\nso\n</think>\n\nblue", True)]


def test_a_grader_that_always_raises_is_fatal(project):
    found = trial(project, "def score(response, answer): return 1 / 0", prompts(answer="42"))
    assert "ZeroDivisionError" in found.fatal
    assert "all of 2" in found.fatal


def test_a_grader_that_raises_on_some_rows_is_warned_of(project):
    rows = [*prompts(answer="42"), Prompt("bad", (), {"answer": "none"})]
    found = trial(project, "def score(response, answer): return float(response.strip() == str(int(answer)))", rows)
    assert not found.fatal
    assert "1 of 3" in found.warnings[0]
    assert "invalid literal for int()" in found.warnings[0]


def test_a_grader_that_cannot_start_is_fatal(project):
    source = (
        "class score:\n    def __init__(self): raise OSError('no such judge')\n    def score(self, response): return 0"
    )
    assert "no such judge" in trial(project, source, prompts()).fatal


def test_a_grader_that_hangs_on_nothing(project):
    source = "import time\ndef score(response):\n    if not response: time.sleep(60)\n    return 1.0"
    assert "hangs" in trial(project, source, prompts(), timeout_s=0.3).warnings[0]


def test_judges_are_not_asked(project):
    assert trial(project, "async def score(response): raise OSError('down')", prompts()).fatal == ""


def test_values_that_siblings_decide_are_not_compared(project):
    source = "class score:\n    def score(self, response): return 0.0\n    def combine(self, groups): return []"
    assert trial(project, source, prompts(answer="42")).warnings == ()
