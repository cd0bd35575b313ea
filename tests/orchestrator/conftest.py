import sys

import pytest


@pytest.fixture(autouse=True)
def no_reward_of_another_test():
    """Recipes here name a reward `mine:score`, each with a module of its own beside it."""
    sys.modules.pop("mine", None)
    yield
    sys.modules.pop("mine", None)
