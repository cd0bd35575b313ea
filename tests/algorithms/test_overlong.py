import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.algorithms.overlong import soft_overlong_penalty


@pytest.mark.parametrize(
    ("length", "penalty"), [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (120, -1.0)]
)
def test_by_hand(length, penalty):
    """At most 100 tokens, the last 20 of them penalised: token 81 costs a twentieth."""
    assert soft_overlong_penalty(length, longest=100, buffer=20) == pytest.approx(penalty, abs=1e-12)


@given(st.integers(1, 500), st.integers(1, 200), st.integers(0, 300))
def test_never_rises_with_length_and_stays_within_one(length, buffer, more):
    longest = buffer + more
    here, next_one = (soft_overlong_penalty(n, longest, buffer) for n in (length, length + 1))
    assert -1 <= next_one <= here <= 0


@pytest.mark.parametrize("buffer", [0, 101])
def test_the_buffer_must_fit(buffer):
    with pytest.raises(ValueError, match="buffer"):
        soft_overlong_penalty(5, longest=100, buffer=buffer)
