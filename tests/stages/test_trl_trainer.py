"""In which order stages that train through TRL are fed, and that they can stop and go on anywhere."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.recipe import SftStage
from cascade_rl.stages.offline.batches import ordered_rows
from cascade_rl.stages.trl.trainer import train
from cascade_rl.types import CascadeError
from tests.stages.test_rl import make_context


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 20), st.integers(0, 5))
def test_every_batch_is_whole_and_every_epoch_complete(rows, batch, steps, seed):
    order = ordered_rows(rows, batch, steps, seed)
    assert len(order) == batch * steps
    for start in range(0, len(order) - rows + 1, rows):
        assert sorted(order[start : start + rows]) == list(range(rows))


def test_a_longer_run_begins_like_a_shorter_one():
    assert ordered_rows(7, 3, 9, 1)[:12] == ordered_rows(7, 3, 4, 1)


def test_a_trainer_that_ends_short_of_its_steps_is_no_success(tmp_path):
    """As one does that takes a resumed epoch for a finished one."""
    config = SftStage.model_validate(
        {"name": "s", "data": [{"source": "x"}], "learning_rate": 1e-3, "steps": 8, "batch_size": 2}
    )
    context = make_context(tmp_path)
    context.job = context.job.model_copy(update={"stage": config.model_dump(mode="json")})
    idle = SimpleNamespace(
        state=SimpleNamespace(global_step=4), add_callback=lambda _: None, train=lambda resume_from_checkpoint: None
    )
    with pytest.raises(CascadeError, match="step 4 of 8"):
        train(context, config, idle, None, 8, rows=4)
