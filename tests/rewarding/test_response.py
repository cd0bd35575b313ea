import pytest

from cascade_rl.rewarding.response import response_text


@pytest.mark.parametrize(
    ("completion", "thinking", "expected"),
    [
        ("<think>\nx\n</think>\n\nA", True, "A"),
        ("never ends", True, ""),
        ("", True, ""),
        ("plain", False, "plain"),
        ("a</think>b</think>c", True, "c"),
        ("<think>x</think>y", False, "y"),
        ("<think>x</think>", True, ""),
    ],
)
def test_response_text(completion, thinking, expected):
    assert response_text(completion, thinking) == expected
