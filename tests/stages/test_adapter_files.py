"""What is said of adapters whose merged weights are rounded."""

import io

import pytest

from cascade_rl.stages.adapter_files import tell_lost
from tests.stages.test_rl import make_context


@pytest.mark.parametrize(("lost", "begins"), [(0.85, "      WARNING: the adapters"), (0.02, "      the adapters are")])
def test_a_warning_where_much_is_lost(tmp_path, lost, begins):
    out = io.StringIO()
    tell_lost(make_context(tmp_path, out), lost)
    assert out.getvalue().startswith(begins)
    assert f"by {100 * lost:.0f}% of what was learned. Unrounded they are in {tmp_path / 'adapter'}" in out.getvalue()
