"""Stored rollouts can be written and read whatever their texts are."""

import json

import pyarrow.parquet

from cascade_rl.rollout.archive import rows_of, write_rollouts
from cascade_rl.types import Group, Prompt, Rollout, Score, Stop


def test_texts_that_are_no_utf_8_are_stored(tmp_path):
    """Half a surrogate pair becomes U+FFFD in plain text, and stays as it is in JSON."""
    half = "a\ud83db"
    prompt = Prompt("p", ({"role": "user", "content": "x"},), {"note": "n"})
    rollout = Rollout("p", 0, (1,), (0.0,), half, Stop.EOS, 0)
    group = Group(prompt, (1,), [rollout], [Score(0.0, {"saw": half}, half)])
    path = write_rollouts(tmp_path, 1, rows_of([group], 1))
    (row,) = pyarrow.parquet.read_table(path).to_pylist()
    assert (row["completion"], row["error"]) == ("a\ufffdb", "a\ufffdb")
    assert json.loads(row["details"]) == {"saw": half}
