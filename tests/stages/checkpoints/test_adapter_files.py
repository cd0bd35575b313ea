"""What is said of adapters whose merged weights are rounded."""

import io

import pytest

from cascade_rl.stages.checkpoints.adapter_files import tell_lost
from tests.stages.test_rl import make_context


@pytest.mark.parametrize(("lost", "warned"), [(0.85, True), (0.02, False)])
def test_a_warning_where_much_is_lost(tmp_path, lost, warned):
    out = io.StringIO()
    tell_lost(make_context(tmp_path, out), lost)
    assert ("WARNING" in out.getvalue()) is warned
    assert f"{100 * lost:.0f}%" in out.getvalue()
    assert str(tmp_path / "adapter") in out.getvalue()
