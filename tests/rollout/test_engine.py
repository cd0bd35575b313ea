from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.rollout.engine import request_seed

keys = st.lists(st.one_of(st.integers(), st.text(max_size=5)), min_size=1, max_size=5)


@given(keys)
def test_seeds_are_functions_of_their_key(key):
    assert request_seed(*key) == request_seed(*key)
    assert 0 <= request_seed(*key) < 2**63


def test_neighbours_and_borders_differ():
    seeds = {request_seed(1, "math", step, prompt, index) for step in range(5) for prompt in "ab" for index in range(8)}
    assert len(seeds) == 80
    assert request_seed("ab", "c") != request_seed("a", "bc")
