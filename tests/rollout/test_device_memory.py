import re

from cascade_rl.rollout.device_memory import GIB, DeviceMemory


def test_each_phase_is_recorded_and_said(capsys):
    seen = iter([(30 * GIB, 80 * GIB), (70 * GIB, 80 * GIB), (29 * GIB, 80 * GIB)])
    memory = DeviceMemory(lambda: next(seen))
    for phase in ("load", "sleep", "load"):
        memory.note(phase)
    assert memory.gib == {
        "memory/load_free_gib": 29.0, "memory/load_used_gib": 51.0,
        "memory/sleep_free_gib": 70.0, "memory/sleep_used_gib": 10.0,
    }  # fmt: skip
    assert re.search("sleep.* 70.00 .* 10.00 ", capsys.readouterr().out)


def test_without_a_gpu_there_is_nothing_to_say(capsys):
    memory = DeviceMemory(lambda: None)
    memory.note("load")
    assert memory.gib == {}
    assert capsys.readouterr().out == ""
