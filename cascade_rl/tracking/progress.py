"""What a person sees while a stage trains: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TextIO

from cascade_rl.recipe import find_kind

LINE_EVERY_S = 15.0


class Progress:
    """Progress of one stage. ``step`` numbers are 1-based. ``begin`` before the first, ``close`` after the last."""

    def __init__(self, stage: str, kind: str, total_steps: int, out: TextIO) -> None:
        self._stage, self._kind, self._total, self._out = stage, kind, total_steps, out
        self._first = self._done = 0
        self._started = 0.0
        self._last_line = float("-inf")
        self._summary = ""
        self._live: Any = None

    def begin(self, done: int) -> None:
        """Steps start now, ``done`` of them having been taken by an earlier process."""
        self._first = self._done = done
        self._started = time.monotonic()
        if self._out.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._out), refresh_per_second=8, transient=True)
            self._live.start()

    def phase(self, text: str) -> None:
        """What is going on within the step, e.g. "generating 37/256"."""
        if self._live:
            self._live.update(self._bar(text))

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """A step has ended."""
        self._done = step
        self._summary = summary(self._kind, metrics)
        if self._live:
            self._live.update(self._bar(""))
        now = time.monotonic()
        tenth = max(1, self._total // 10)
        due = step % tenth == 0 or step == self._first + 1 or now - self._last_line > LINE_EVERY_S
        if due or step == self._total:
            self._last_line = now
            self._print(f"[{self._stage} {step}/{self._total}] {self._summary}{self._left()}")

    def note(self, text: str) -> None:
        """A line of its own."""
        self._print(text)

    def close(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def _print(self, text: str) -> None:
        if self._live:
            self._live.console.print(f"      {text}", markup=False, highlight=False)
        else:
            print(f"      {text}", file=self._out, flush=True)

    def _left(self) -> str:
        done = self._done - self._first
        if done < 1 or self._done >= self._total:
            return ""
        seconds = (time.monotonic() - self._started) / done * (self._total - self._done)
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"  {hours}:{minutes:02d}:{rest:02d} left" if hours else f"  {minutes}:{rest:02d} left"

    def _bar(self, phase: str) -> Any:
        from rich.text import Text

        width = 24
        filled = round(width * self._done / max(1, self._total))
        text = Text("      ")
        text.append(f"{self._stage} ", style="bold")
        text.append("━" * filled, style="green")
        text.append("━" * (width - filled), style="dim")
        text.append(f" {self._done}/{self._total}  {self._summary}{self._left()}  ")
        text.append(phase, style="dim")
        return text


def summary(kind: str, metrics: Mapping[str, Any]) -> str:
    """The few numbers worth a line."""
    schema = find_kind(kind)
    parts = schema.live_line(metrics) if schema else []
    rate = metrics["time/tokens_per_s"]
    parts.append(f"{rate / 1000:.1f}k tok/s" if rate >= 1000 else f"{rate:.0f} tok/s")
    parts += [_measured(key.removeprefix("eval/"), value) for key, value in metrics.items() if key.startswith("eval/")]
    return "  ".join(parts)


def _measured(name: str, value: float) -> str:
    """Benchmarks and accuracies are shares; a held-out loss, margin or score is not."""
    return f"held-out {name} {value:.3f}" if name in ("loss", "margin", "score/mean") else f"{name} {100 * value:.1f}%"
