"""Rewards that misbehave."""

import os
import time


def raises(response):
    raise KeyError("no such thing")


def hangs(completion):
    if len(completion) % 2:
        time.sleep(3600)
    return 1.0


def dies(completion):
    if len(completion) % 2:
        os._exit(3)
    return 1.0
