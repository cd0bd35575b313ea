"""SFT on several ranks, however the model is spread over them: the steps of one process."""

import pytest

from tests.training.test_scoring import STRATEGIES, train_as_one_process_does


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_every_strategy_trains_as_one_process_does(tmp_path, world):
    train_as_one_process_does(tmp_path, "sft", world, STRATEGIES, 1e-7)
