"""Functions named as package.module:name: which names are refused, and how."""

import pytest

from cascade_rl.importing import import_by_path
from cascade_rl.types import CascadeError
from tests.messages import mentions


@pytest.mark.parametrize("module", [".rewards.math", ".", "..", "...math", "rewards..math", "rewards."])
def test_a_module_is_named_in_full(module):
    with pytest.raises(CascadeError) as caught:
        import_by_path(f"{module}:verify", [], "reward")
    assert mentions(str(caught.value), "reward", f"'{module}:verify'", "package.module:function")
    assert "TypeError" not in str(caught.value)


def test_a_full_name_is_found(tmp_path):
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "graders.py").write_text("def verify(): return 7\n")
    assert import_by_path("some_package.graders:verify", [tmp_path], "reward")() == 7
