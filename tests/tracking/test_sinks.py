import contextlib
import io
import json
import math
import os
import pty
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cascade_rl.recipe import TrackingConfig
from cascade_rl.tracking import Progress, make_tracker
from cascade_rl.tracking.sinks import JsonlSink

ROOT = Path(__file__).parents[2]
FACTS = {"run": "r", "stage": "s", "kind": "rl", "identity": "abc", "config": {"steps": 3}}


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resuming_drops_what_will_be_done_again_and_a_torn_line(tmp_path):
    tracker = make_tracker(TrackingConfig(), tmp_path, resume_step=0, **FACTS)
    for step in (1, 2, 3):
        tracker.log(step, {"loss": step / 2})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    tracker = make_tracker(TrackingConfig(), tmp_path, resume_step=2, **FACTS)
    tracker.log(3, {"loss": math.nan})
    assert [(row["step"], row["loss"]) for row in lines(tmp_path)] == [(1, 0.5), (2, 1.0), (3, None)]


def test_a_full_disk_costs_metrics_not_the_run(tmp_path, monkeypatch, capsys):
    tracker = make_tracker(TrackingConfig(), tmp_path, resume_step=0, **FACTS)
    tracker.log(1, {"loss": 1.0})

    def full(*_args, **_keys):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    tracker.log(2, {"loss": 1.0})
    tracker.log(3, {"loss": 1.0})
    assert capsys.readouterr().err.count("WARNING") == 1
    monkeypatch.undo()
    tracker.log(4, {"loss": 4.0})
    assert lines(tmp_path)[-1]["step"] == 4


def test_wandb_writes_offline_without_a_login(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker = make_tracker(TrackingConfig(wandb={"project": "p"}), tmp_path, resume_step=0, **FACTS)
    tracker.log(1, {"reward/mean": 0.5})
    tracker.close()
    assert list(tmp_path.glob("wandb/offline-run-*-s-abc/run-s-abc.wandb"))
    assert lines(tmp_path)[0]["reward/mean"] == 0.5


def test_trackio_goes_on_in_the_same_run(tmp_path):
    """In a process of its own: trackio reads where its data lies when it is imported."""
    pytest.importorskip("trackio")
    code = f"""
from pathlib import Path
from cascade_rl.recipe import TrackingConfig
from cascade_rl.tracking import make_tracker
for first, last in ((0, 2), (2, 3)):
    tracker = make_tracker(TrackingConfig(trackio={{}}), Path({str(tmp_path)!r}), resume_step=first, **{FACTS!r})
    for step in range(first + 1, last + 1):
        tracker.log(step, {{"reward/mean": step / 4}})
    tracker.close()
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    with sqlite3.connect(tmp_path / "trackio" / "cascade-rl.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(name, step, json.loads(values)) for name, step, values in rows] == [
        ("s-abc", step, {"reward/mean": step / 4}) for step in (1, 2, 3)
    ]


def test_a_sink_that_cannot_start_is_left_out_with_a_warning(tmp_path, monkeypatch, capsys):
    import cascade_rl.tracking.sinks as sinks

    def broken(*_args, **_keys):
        raise RuntimeError("no server")

    monkeypatch.setattr(sinks, "WandbSink", broken)
    tracker = make_tracker(TrackingConfig(wandb={}), tmp_path, resume_step=0, **FACTS)
    tracker.log(1, {"a": 1})
    assert "wandb" in capsys.readouterr().err
    assert len(lines(tmp_path)) == 1


METRICS = {
    "reward/mean": 0.5, "completions/mean_length": 83.6, "completions/truncated": 0.25, "eval/sums": 0.4,
    "sampling/logprob_gap_mean": 3e-6, "time/tokens_per_s": 3100.0,
}  # fmt: skip


def test_plain_progress_lines():
    out = io.StringIO()
    progress = Progress("math-rl", "rl", 40, out)
    progress.begin(0)
    progress.phase("generating 1/8")  # for terminals only
    for step in range(1, 41):
        progress.step(step, METRICS)
    progress.close()
    text = out.getvalue().splitlines()
    assert len(text) == 11  # the first, then every tenth of the way
    for part in ("[math-rl 1/40]", "reward 0.500", " 84 ", " 25%", " 3e-06", " 3.1k", "sums 40.0%"):
        assert part in text[0]
    assert text[-1].startswith("      [math-rl 40/40]")
    assert "left" not in text[-1]


def test_a_stage_without_rewards_tells_its_advantage():
    out = io.StringIO()
    progress = Progress("student", "distill", 40, out)
    progress.begin(0)
    progress.step(1, {**METRICS, "distill/advantage_mean": -0.125})
    for part in ("[student 1/40]", "advantage -0.125", " 84 ", " 25%"):
        assert part in out.getvalue()


def test_a_resumed_stage_says_its_first_step_at_once():
    out = io.StringIO()
    progress = Progress("math-rl", "rl", 40, out)
    progress.begin(33)
    progress.step(34, METRICS)
    assert out.getvalue().startswith("      [math-rl 34/40]")


def drain(screen: int) -> str:
    """Everything written to the terminal so far."""
    os.set_blocking(screen, False)
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(screen, 1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


def test_the_live_line_on_a_terminal(monkeypatch):
    """A bar that moves with the phases of a step, plain lines above it, and a cursor that is back at the end."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    screen, terminal = pty.openpty()
    with open(terminal, "w") as out:
        progress = Progress("math-rl", "rl", 40, out)
        progress.begin(0)
        progress.step(1, METRICS)
        progress.phase("generating 7/8")
        progress.note("a line of its own")
        progress.close()
        out.flush()
        drawn = drain(screen)
    os.close(screen)
    assert "[math-rl 1/40] reward 0.500" in drawn
    assert "━" * 24 in re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert "generating 7/8" in drawn
    assert "a line of its own" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # hidden while it moves, then shown again


def test_metrics_that_cannot_be_read_do_not_end_a_stage(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").mkdir()
    sink = JsonlSink(tmp_path / "metrics.jsonl", 0)
    sink.log(1, {"loss": 1.0})
    assert capsys.readouterr().err.count("metrics.jsonl: ") == 1


def test_held_out_losses_are_no_percentages():
    out = io.StringIO()
    progress = Progress("reward-model", "reward_model", 40, out)
    progress.begin(0)
    measured = {"eval/loss": 0.28, "eval/accuracy": 0.95, "eval/margin": 2.0125}
    progress.step(1, {"loss": 0.5, "time/tokens_per_s": 3100.0, **measured})
    for part in ("held-out loss 0.280", "accuracy 95.0%", "held-out margin 2.013"):
        assert part in out.getvalue()
