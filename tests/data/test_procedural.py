import pytest

from cascade_rl.data.procedural import addition


def test_train_and_test_never_overlap_whatever_the_seed():
    train = {r["problem"] for seed in (0, 1) for r in addition(split="train", rows=2000, seed=seed)}
    test = {r["problem"] for seed in (2, 3) for r in addition(split="test", rows=500, seed=seed)}
    assert not train & test
    assert len(train) > 2000


def test_the_written_work_by_hand():
    row = next(r for r in addition(split="train", rows=3000, solved=True) if len(r["problem"]) == 5)
    a, b = row["problem"].split("+")
    ones = int(a[1]) + int(b[1])
    tens = int(a[0]) + int(b[0]) + ones // 10
    work = f"{a[1]}+{b[1]}+0={ones}\n{a[0]}+{b[0]}+{ones // 10}={tens}"
    assert row["response"] == f"<think>\n{work}\n</think>\n\n\\boxed{{{int(a) + int(b)}}}"
    assert row["answer"] == str(int(a) + int(b))


def test_a_careless_teacher_slips_at_the_stated_rate():
    rows = list(addition(split="train", rows=3000, digits=(1, 2), slip_rate=0.3, solved=True))
    wrong = sum(f"{{{r['answer']}}}" not in r["response"] for r in rows) / len(rows)
    # one or two lines a row, about 0.3 to 0.51 of rows; a slip of -1 at 0+0 changes nothing
    assert 0.35 < wrong < 0.52
    careful = addition(split="train", rows=300, solved=True)
    assert all(f"{{{r['answer']}}}" in r["response"] for r in careful)


def test_more_rows_than_there_are():
    with pytest.raises(ValueError, match="allow more digits"):
        list(addition(split="test", rows=50, digits=(1, 1)))
