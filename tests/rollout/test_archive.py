"""Stored rollouts: a step can be recomputed from its file."""

import dataclasses
import json

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from cascade_rl.algorithms.advantages import advantages_of_groups
from cascade_rl.cli.rescoring import _groups
from cascade_rl.models import tiny_qwen3
from cascade_rl.rollout.archive import TOKENS, joined, rows_of, write_rollouts
from cascade_rl.store.rollouts import read_rollouts
from cascade_rl.training.packing import pack_row, training_sequence
from cascade_rl.types import CascadeError, Group, Prompt, Rollout, Score, Stop
from tests.training.test_update import make_policy


def group(name, completions, values, logprobs=None, first=0):
    rollouts = [
        Rollout(name, first + index, tuple(ids), tuple(logprobs[index] if logprobs else (-0.5,) * len(ids)), "text",
                Stop.EOS, 3)
        for index, ids in enumerate(completions)
    ]  # fmt: skip
    prompt = Prompt(name, ({"role": "user", "content": "q"},))
    return Group(prompt, (7, 8, len(name)), rollouts, [Score(value) for value in values])


def test_log_probs_and_advantages_of_a_step_come_out_of_its_file(tmp_path):
    """Rollouts drawn by a policy, as far as their log-probs are its own; two ranks; the first has lost a rollout."""
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    policy = make_policy(tmp_path / "model")
    drawn = [[[20, 21, 22], [23], [24, 25]], [[30, 31], [32, 33, 34]]]
    values = [[1.0, 0.0, 0.0], [0.0, 1.0]]

    def scored(prompt, completions):
        row = pack_row([training_sequence(prompt, ids, [0.0] * len(ids), 0.0) for ids in completions])
        return [part.tolist() for part in policy.score(row).logprobs.split([len(ids) for ids in completions])]

    groups = [
        group("a", drawn[0], values[0], scored([7, 8, 1], drawn[0]), first=1),
        group("bb", drawn[1], values[1], scored([7, 8, 2], drawn[1])),
    ]
    path = write_rollouts(tmp_path, 5, joined([rows_of(groups[:1], 5), rows_of(groups[1:], 5)]))

    rows = read_rollouts(path, tokens=True)
    assert [row["group"] for row in rows] == [0, 0, 0, 1, 1]
    assert [row["index"] for row in rows] == [1, 2, 3, 0, 1]
    by_group = [[row for row in rows if row["group"] == number] for number in (0, 1)]
    assert [[row["token_ids"] for row in own] for own in by_group] == drawn
    for own in by_group:
        again = scored(own[0]["prompt_token_ids"], [row["token_ids"] for row in own])
        assert [row["logprobs"] for row in own] == again  # float32, bit for bit
    found = advantages_of_groups([[row["value"] for row in own] for own in by_group])
    assert found[1] == pytest.approx([-(0.5**0.5), 0.5**0.5], abs=1e-5)  # std of 0 and 1: sqrt(1/2)
    assert found[0] == pytest.approx([2 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5], abs=1e-5)  # 2/3, -1/3 over sqrt(1/3)


def test_tokens_lie_in_four_bytes_and_are_read_on_demand(tmp_path):
    path = write_rollouts(tmp_path, 1, rows_of([group("a", [[5, 6], []], [1.0, 0.0])], 1))
    schema = pyarrow.parquet.read_schema(path)
    assert [schema.field(name).type.value_type for name in ("prompt_token_ids", "token_ids", "logprobs")] == [
        pyarrow.int32(), pyarrow.int32(), pyarrow.float32(),
    ]  # fmt: skip
    assert "token_ids" not in read_rollouts(path)[0]
    assert [row["token_ids"] for row in read_rollouts(path, tokens=True)] == [[5, 6], []]


def test_files_without_tokens_are_read_as_they_are(tmp_path):
    old = [
        {key: value for key, value in row.items() if key not in ("group", *TOKENS)}
        for row in rows_of([group("a", [[5]], [1.0])], 1)
    ]
    path = write_rollouts(tmp_path, 1, old)
    assert read_rollouts(path) == read_rollouts(path, tokens=True) == old


def test_a_step_without_rollouts_is_a_file_without_rows(tmp_path):
    assert read_rollouts(write_rollouts(tmp_path, 1, joined([[], []])), tokens=True) == []


def test_what_was_kept_lies_beside_the_tokens(tmp_path):
    made = group("a", [[5, 6]], [1.0])
    (rollout,) = made.rollouts
    kept = numpy.array([[5, 9], [6, -1]], numpy.int32)
    made = dataclasses.replace(made, rollouts=[dataclasses.replace(rollout, kept=kept)])
    (row,) = read_rollouts(write_rollouts(tmp_path, 1, rows_of([made], 1)), tokens=True)
    assert row["kept_token_ids"] == [[5, 9], [6]]


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


def test_a_lost_first_rollout_joins_no_two_groups(tmp_path):
    """Scoring again reads groups back: the second one's rollout 0 never came back."""
    made = [group("a", [[5], [6]], [1.0, 0.0]), group("a", [[7], [8]], [0.0, 1.0], first=1)]
    path = write_rollouts(tmp_path, 1, rows_of(made, 1))
    assert [[r.index for r in found.rollouts] for found in _groups(path)] == [[0, 1], [1, 2]]
    old = [{key: value for key, value in row.items() if key not in ("group", *TOKENS)} for row in rows_of(made[:1], 1)]
    assert [[r.index for r in found.rollouts] for found in _groups(write_rollouts(tmp_path, 2, old))] == [[0, 1]]


def test_any_flipped_byte_of_a_page_is_found(tmp_path):
    path = write_rollouts(tmp_path, 1, rows_of([group("a", [[20, 21], [22]], [1.0, 0.0])], 1))
    rows, content = read_rollouts(path, tokens=True), path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    with pyarrow.parquet.ParquetFile(path) as file:
        assert file.metadata.num_rows == 2
    for at in range(4, footer):
        damaged = bytearray(content)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        try:
            again = read_rollouts(path, tokens=True)
        except CascadeError:
            continue
        assert again == rows, at  # a byte of a page's header that changes nothing, such as a statistic


def test_a_file_without_checksums_of_pages_is_read(tmp_path):
    path = write_rollouts(tmp_path, 1, rows_of([group("a", [[20, 21], [22]], [1.0, 0.0])], 1))
    rows = read_rollouts(path, tokens=True)
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table, path)
    assert read_rollouts(path, tokens=True) == rows


def test_kept_tokens_of_a_later_row_are_stored(tmp_path):
    rows = rows_of([group("a", [[20, 21], [22]], [1.0, 0.0])], 1)
    rows[1]["kept_token_ids"] = [numpy.asarray([22, 23], numpy.int32)]
    path = write_rollouts(tmp_path, 1, rows)
    assert [row["kept_token_ids"] for row in read_rollouts(path, tokens=True)] == [None, [[22, 23]]]
