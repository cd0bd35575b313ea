import shutil

import pytest
from filelock import FileLock

from tests.e2e import cascade


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, worker_id):
    """The folder of a run that nothing disturbed, to compare with. Made once for all test processes: only read it."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "undisturbed"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            making = root.with_name("undisturbed-in-the-making")
            shutil.rmtree(making, ignore_errors=True)
            process = cascade.start(making)
            output = cascade.finish(process, making)
            assert process.returncode == 0, output
            making.rename(root)
    return root


@pytest.fixture(scope="module")
def own(undisturbed, tmp_path_factory):
    """A copy of the undisturbed run for one file, whose tests may go on from it."""
    root = tmp_path_factory.mktemp("own")
    shutil.copytree(undisturbed, root, dirs_exist_ok=True)
    return root
