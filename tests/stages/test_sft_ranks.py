"""SFT on several ranks, however the model is spread over them: the steps of one process."""

import pytest

from cascade_rl.models import tiny_qwen3
from tests.training.sharded import launch
from tests.training.test_scoring import alike

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("world", [2, 3])
def test_every_strategy_trains_as_one_process_does(tmp_path, world):
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    (alone,) = launch("sft", tmp_path, 1, ways=[{"strategy": "ddp"}])["found"]
    ways = [{"strategy": strategy} for strategy in ("ddp", "zero2", "zero3", "fsdp2")]
    ways.append({"strategy": "fsdp2", "offload_optimizer": True, "offload_parameters": True})
    for how, found in zip(ways, launch("sft", tmp_path, world, ways=ways)["found"], strict=True):
        alike(found["metrics"], alone["metrics"])
        assert found["distance"] < 1e-7, how
        assert found["bitwise"], how
