import pytest

from cascade_rl.models import argument_problems


@pytest.mark.parametrize(
    ("arguments", "number"),
    [({"hidden_size": 999999936}, "4096"), ({"layers": 10**9}, "128"), ({"context": 10**12}, "1048576"),
     ({"intermediate_size": 10**6}, "16384"), ({"hidden_size": 100}, "64")],
)  # fmt: skip
def test_a_size_that_cannot_be_meant_is_refused(arguments, number):
    ((key, message),) = argument_problems("tiny-qwen3", arguments)
    assert key in arguments
    assert number in message


def test_sizes_that_somebody_builds_pass():
    sizes = {"hidden_size": 2048, "layers": 28, "intermediate_size": 6144, "context": 32768}
    assert list(argument_problems("tiny-qwen3", sizes)) == []
