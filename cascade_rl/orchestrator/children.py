"""One fresh process per job and rank, which dies with its supervisor."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cascade_rl.processes import cores
from cascade_rl.recipe.launching import VARIABLE, Launch

# What the launcher's own rendezvous and accelerate set would mislead a child that has its own.
_LAUNCHER_VARIABLES = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_", "GROUP_", "ROLE_", "TORCH_NCCL_ASYNC_ERROR_HANDLING")


def free_port() -> int:
    """A TCP port free on this host right now, for a child group's rendezvous."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def child_environment(rank: int, world_size: int, local_rank: int, address: str, port: int) -> dict[str, str]:
    """The environment of a stage process: ours, with its own rendezvous in place of the launcher's."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER_VARIABLES)}
    environment[VARIABLE] = Launch.from_environment(os.environ).handed_on()  # what the config asked for stays known
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    # torchrun sets 1 thread per process when it starts several; a lone process may use the machine.
    threads = os.environ.get("CASCADE_RL_THREADS") or str(max(1, cores() // max(1, local_world)))
    return environment | {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_world),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": threads,
        # Threads that spin while they wait are ruinous on a machine that does anything else, and those that sleep at
        # once are slow on one that does not. Measured with a tiny model on 2 cores, tokens/s alone and beside one busy
        # process: libgomp's default 16,800 and 250 to 1,600; no spinning 9,200 and 9,000; 5,000 turns 15,500 and 6,000.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000"),
        "CASCADE_RL_PARENT": str(os.getpid()),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def start_child(job: Path, outcome: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start the stage process of this rank; it writes how it ended to ``outcome``."""
    return subprocess.Popen(
        [sys.executable, "-m", "cascade_rl.stages.worker", str(job), str(outcome)],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
    )
