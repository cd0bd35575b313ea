import pytest

from tests.e2e import cascade


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A run that nothing disturbed, to compare with."""
    root = tmp_path_factory.mktemp("undisturbed")
    process = cascade.start(root)
    output = cascade.finish(process, root)
    assert process.returncode == 0, output
    return root
