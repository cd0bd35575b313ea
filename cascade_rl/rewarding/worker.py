"""A worker process: ``python -m cascade_rl.rewarding.worker``, spoken to over two private pipes.

Messages are pickles with an 8-byte length before them. The reward's own prints go to standard error, so that nothing
it does to standard output can be taken for a verdict.
"""

from __future__ import annotations

import os
import pickle
import sys

from cascade_rl.processes import die_with_parent
from cascade_rl.rewarding.wire import receive, send, short_trace


def main() -> None:
    parent = os.environ.get("CASCADE_RL_PARENT")
    die_with_parent(int(parent) if parent else None)
    commands = os.fdopen(os.dup(0), "rb")
    verdicts = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    from cascade_rl.rewarding.loading import as_score, load_reward
    from cascade_rl.types import Score

    config, search, memory_mib = receive(commands)
    if memory_mib:
        import resource

        limit = memory_mib << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        reward = load_reward(config, search)
    except BaseException as error:
        send(verdicts, ("failed", f"{error}"))
        return
    send(verdicts, ("ready", None))
    while True:
        try:
            call = receive(commands)
        except EOFError:
            return
        try:
            score = as_score(reward.function(**reward.arguments(call)), config.use)
        except Exception as error:
            score = Score(config.failure, {}, error=f"reward {config.use} raised {short_trace(error)}")
        try:
            send(verdicts, ("score", score))
        except (pickle.PicklingError, TypeError, AttributeError):
            details = {key: repr(value) for key, value in score.details.items()}
            send(verdicts, ("score", Score(score.value, details, score.error)))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
