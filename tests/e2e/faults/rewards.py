"""Rewards like tests.e2e.digits:share, whose surroundings fail."""

import os
import signal
import urllib.request
from pathlib import Path

from tests.e2e.digits import share
from tests.e2e.faulty import is_written_by_a_model


def murdered_once(completion: str) -> float:
    """The first call of all is killed from outside, as by a kernel short of memory."""
    mark = Path(os.environ["CASCADE_TEST_MURDER"])
    if is_written_by_a_model(completion) and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return share(completion)


async def judged(completion: str) -> float:
    """Asks a judge over HTTP."""
    request = urllib.request.Request(f"http://127.0.0.1:{os.environ['CASCADE_TEST_JUDGE']}/", data=completion.encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return float(answer.read())
