"""Rewards that misbehave, but not for the empty response that `run` tries them on before it starts."""

import os
import time


def raises_on_rank_one(completion):
    if is_written_by_a_model(completion) and os.environ.get("RANK") == "1":
        raise KeyError("no such thing")
    return 0.0


def hangs(completion):
    if is_written_by_a_model(completion):
        time.sleep(3600)
    return 1.0


def dies(completion):
    if is_written_by_a_model(completion):
        os._exit(3)
    return 1.0


def is_written_by_a_model(completion):
    return not completion.startswith("<think>\n\n</think>")
