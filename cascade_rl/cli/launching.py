"""`cascade-rl run` on one machine: hand over to `accelerate launch` where several processes are wanted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from cascade_rl.orchestrator.launch_checks import accelerate_config
from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.recipe import LoadedRecipe

LAUNCHED = "CASCADE_RL_LAUNCHED"


def launch_if_wanted(loaded: LoadedRecipe, processes: int | None) -> None:
    """Replace this process by `accelerate launch` of the same command; returns when one process will do.

    Raises CascadeError when the recipe names an accelerate config that does not exist, and what ``preflight`` raises.
    """
    if os.environ.get(LAUNCHED) or "RANK" in os.environ:
        return
    config = accelerate_config(loaded)
    arguments = [] if config is None else ["--config_file", str(config)]
    count = processes or (gpus() if config is None else None)
    if config is None and (count is None or count <= 1):
        return
    preflight(loaded, count or 1)  # here its message stands alone; under a launcher, above the launcher's own
    if count:
        arguments += ["--num_processes", str(count)]
        if config is None:
            # accelerate starts only one process for a plain CPU setting, so torchrun does it there.
            arguments += ["--multi_gpu"] if gpus() else []
    os.environ[LAUNCHED] = "1"
    if config is None and not gpus():
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    else:
        launcher = ["-m", "accelerate.commands.launch", *arguments]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", "cascade_rl", *sys.argv[1:]])


def gpus() -> int:
    """NVIDIA GPUs this process may use, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
