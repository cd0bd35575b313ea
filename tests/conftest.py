"""What the whole suite needs to run on several cores at once (pytest-xdist): one thread a process, long files first.

``launch/test.sh`` starts one pytest process per core and hands out whole files (``--dist loadfile``), so that engines,
servers and runs that a file shares between its tests are made once.
"""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: processes share the cores, threads would fight

from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("untimed")

LONGEST_FIRST = [
    "tests/e2e/faults/test_faults.py",
    "tests/e2e/test_cascade.py",
    "tests/e2e/test_dedicated.py",
    "tests/training/test_sharding.py",
    "tests/e2e/test_sharded.py",
    "tests/e2e/test_distill.py",
    "tests/e2e/test_chain.py",
    "tests/e2e/test_adapters.py",
    "tests/e2e/test_variants.py",
    "tests/e2e/test_reward_model.py",
    "tests/e2e/test_choosy.py",
    "tests/rollout/test_dedicated.py",
    "tests/benchmarks/test_reports.py",
]
"""Files that take minutes. They start first, so that no core is left alone with one of them at the end."""


def pytest_collection_modifyitems(items):
    """Order: the files of ``LONGEST_FIRST``, other files with slow tests, the rest; within a file as written."""
    with_slow = {item.location[0] for item in items if item.get_closest_marker("slow")}

    def rank(item):
        file = item.location[0].replace(os.sep, "/")
        if file in LONGEST_FIRST and item.location[0] in with_slow:
            return LONGEST_FIRST.index(file)
        return len(LONGEST_FIRST) + (item.location[0] not in with_slow)

    items.sort(key=rank)
