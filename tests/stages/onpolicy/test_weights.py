"""What the engine serves: the trainer's weights, from the first token on, or the stage stops."""

import re

import pytest

from cascade_rl.stages.onpolicy.weights import check_engine, sync
from cascade_rl.types import CascadeError
from tests.stages.onpolicy.one_weight import Follower, OneWeight, make_run


def test_the_engine_is_filled_from_the_trainer_before_anything_is_asked(tmp_path):
    run = make_run(tmp_path, OneWeight(1.0), Follower(weight=9.0))
    check_engine(run)
    assert (run.engine.weight, run.engine.version) == (1.0, 0)
    assert "log-prob gap 0.0e+00" in run.out.getvalue()


@pytest.mark.parametrize("weight", [1.1, float("nan")])
def test_an_engine_that_reads_the_checkpoint_differently_is_refused(tmp_path, weight):
    run = make_run(tmp_path, OneWeight(1.0), Follower(weight, deaf=1))
    with pytest.raises(CascadeError, match=r"log-probs .*bound 0\.01"):
        check_engine(run)


def test_weights_that_did_not_arrive_are_sent_again(tmp_path):
    run = make_run(tmp_path, OneWeight(1.0), Follower(weight=2.0, deaf=1))
    sync(run, 3)
    assert (run.engine.weight, run.engine.loads) == (1.0, 2)
    assert run.journal.begun == [3]
    assert re.search("WARNING: .*step 3 .* 1 per token", run.out.getvalue())
    sync(run, 4)
    assert run.engine.loads == 3, "weights that arrive are sent once"


def test_an_engine_that_goes_on_with_stale_weights_stops_the_stage(tmp_path):
    run = make_run(tmp_path, OneWeight(1.0), Follower(weight=2.0, deaf=9))
    with pytest.raises(CascadeError, match=r"twice.* version 3\b.* 3\b"):
        sync(run, 3)
    assert run.journal.begun == [], "nothing is kept of weights that are not served"
