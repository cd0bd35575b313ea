"""Strikes a stage process at a place and step of our choice. Python imports this by itself from PYTHONPATH.

``CASCADE_TEST_FAULTS`` is a JSON list of ``{"place", "step", "action", "rank"?}``; each strikes once, in the order of
the list, which a marker file per fault keeps over restarts (``CASCADE_TEST_MARKS`` is their folder). Nothing in the
product knows of this: functions are wrapped when their module is imported.
"""

import errno
import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time

PLACES = {
    # place: (module, owner or None, function, when it strikes)
    "sync": ("cascade_rl.rollout.vllm_engine", "VllmEngine", "load_weights", "half way"),
    "generate": ("vllm.v1.engine.llm_engine", "LLMEngine", "step", "after 4 calls"),  # each decodes a token
    "reward": ("cascade_rl.rewarding.scorer", "Scorer", "submit_whole", "after 5 calls"),
    "pack": ("cascade_rl.stages.learning", None, "training_rows", "before"),
    "forward": ("cascade_rl.training.policy", "Policy", "backward", "before"),
    "step": ("cascade_rl.training.policy", "Policy", "step", "after"),
    "save": ("cascade_rl.stages.rollout_run", None, "save_together", "within"),
    "record": ("cascade_rl.stages.rollout_run", None, "archive", "after"),
    "engine": ("vllm.v1.engine.llm_engine", "LLMEngine", "step", "after 4 calls"),
}
STRUCK = {"cascade_rl.rollout.vllm_engine", *(module for module, *_ in PLACES.values())}
FAULTS = json.loads(os.environ.get("CASCADE_TEST_FAULTS", "[]"))
MARKS = os.environ.get("CASCADE_TEST_MARKS", "")
now = {"step": -1}


def pending():
    """The next fault of the list, if this rank is meant."""
    for number, fault in enumerate(FAULTS):
        mark = os.path.join(MARKS, str(number))
        if not os.path.exists(mark):
            mine = fault.get("rank", 0) == int(os.environ.get("RANK", "0"))
            return (fault, mark) if mine else (None, None)
    return None, None


def strike(place):
    """Do what the pending fault says, if it is for this place and step. Returns True where that is over."""
    fault, mark = pending()
    if not fault or fault["place"] != place or fault["step"] != now["step"]:
        return False
    with open(mark, "x") as file:
        os.fsync(file.fileno())
    print(f"===== fault: {fault}", file=sys.stderr, flush=True)
    if fault["action"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault["action"] == "term":
        os.kill(supervisor(), signal.SIGTERM)
        time.sleep(0.5)  # the supervisor passes it on
    elif fault["action"] == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    elif fault["action"] == "raise":
        raise RuntimeError("EngineCore died")
    return True


def wrapped(place, function, when):
    calls = {"count": 0, "step": None}

    def due():
        if not when.endswith("calls"):
            return True
        if calls["step"] != now["step"]:
            calls.update(count=0, step=now["step"])
        calls["count"] += 1
        return calls["count"] == int(when.split()[1])

    @functools.wraps(function)
    def call(*args, **kwargs):
        if when == "half way":
            args, kwargs = half_way(place, args, kwargs)
        elif when == "within":
            args = within(place, args)
        elif when != "after" and due():
            strike(place)
        result = function(*args, **kwargs)
        if when == "after":
            strike(place)
        return result

    return call


def half_way(place, args, kwargs):
    """An iterator of weights that strikes after its third one."""
    engine, weights = args

    def few():
        for number, named in enumerate(weights):
            if number == 3:
                strike(place)
            yield named

    return (engine, few()), kwargs


def within(place, args):
    """A state that strikes once its files are half written."""
    context, step, write = args

    def torn(folder):
        (folder / "half").write_bytes(b"x" * 1000)
        strike(place)
        (folder / "half").unlink()
        return write(folder)

    return (context, step, torn)


def patch(module):
    for place, (name, owner, function, when) in PLACES.items():
        if name == module.__name__ and any(fault["place"] == place for fault in FAULTS):
            holder = getattr(module, owner) if owner else module
            setattr(holder, function, wrapped(place, getattr(holder, function), when))
    if module.__name__ == "cascade_rl.rollout.vllm_engine":
        follow_steps(module.VllmEngine)


def follow_steps(engine):
    """The step in progress is the one whose weights were sent last."""
    load_weights = engine.load_weights

    @functools.wraps(load_weights)
    def load(self, weights, version):
        now["step"] = version
        return load_weights(self, weights, version=version)

    engine.load_weights = load


def supervisor():
    """The process that started this one, or the warm process that this one was forked from."""
    parent = os.getppid()
    with open(f"/proc/{parent}/cmdline", "rb") as file:
        if b"cascade_rl.stages.warm" not in file.read():
            return parent
    with open(f"/proc/{parent}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in STRUCK:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec and spec.loader and hasattr(spec.loader, "exec_module"):
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                patch(module)

            spec.loader.exec_module = exec_module
        return spec


if FAULTS and "-m cascade_rl.stages.w" in " ".join(sys.orig_argv):  # worker, or warm
    sys.meta_path.insert(0, Finder())
