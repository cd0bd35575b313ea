"""Metric sinks and the progress display."""

from cascade_rl.tracking.progress import Progress
from cascade_rl.tracking.sinks import Tracker, make_tracker

__all__ = ["Progress", "Tracker", "make_tracker"]
