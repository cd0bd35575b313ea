import gc
import importlib
import os
import signal
import subprocess
import sys
import time

import pytest

from cascade_rl.processes import collector_paused, guarded

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's word to children is Linux")

# A program whose child survives it, as vLLM's engine does, and one that would go on for ever.
PROGRAM = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '300']); print(p.pid, flush=True); {then}"
OWNER = "import subprocess, sys, time; subprocess.Popen({command}); time.sleep(300)"


def gone(pid):
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":  # dead, and not ours to reap
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def start(then):
    process = subprocess.Popen(guarded([sys.executable, "-c", PROGRAM.format(then=then)]), stdout=subprocess.PIPE)
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_guarded_group_dies_with_the_process_that_started_it(number):
    command = [sys.executable, "-c", PROGRAM.format(then="time.sleep(300)")]
    code = f"from cascade_rl.processes import guarded; {OWNER.format(command=f'guarded({command!r})')}"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    grandchild = int(owner.stdout.readline())
    assert not gone_now(grandchild)
    owner.send_signal(number)
    owner.wait()
    assert gone(grandchild)


def gone_now(pid):
    return not os.path.exists(f"/proc/{pid}")


def test_a_guarded_group_ends_when_asked_and_leaves_nothing():
    process, grandchild = start("time.sleep(300)")
    process.terminate()
    process.wait(20)
    assert gone(grandchild)


def test_what_a_guarded_command_leaves_behind_ends_with_it():
    process, grandchild = start("sys.exit(3)")
    assert process.wait(20) == 3
    assert gone(grandchild)


def test_ctrl_c_is_left_to_the_owner():
    process, grandchild = start("time.sleep(300)")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    process.wait(20)
    assert gone(grandchild)


def test_the_collector_pauses_for_imports_and_goes_on():
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), collector_paused():
        importlib.import_module("no_module_of_this_name")
    assert gc.isenabled()
