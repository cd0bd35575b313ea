"""A side that reports what it is told; told to break, it breaks."""

import json
import sys
from pathlib import Path

from benchmarks.grpo.turns import Turns

turns = Turns()
settings = json.loads(Path(sys.argv[1]).read_text())
while True:
    order = turns.wait()
    if order.get("break"):
        raise SystemExit("broken as told")
    turns.report({"told": order, "colour": settings["colour"]})
