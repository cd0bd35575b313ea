import pytest

from cascade_rl.data.procedural import addition, preferences, programs, repairs, word_lists
from rewards import instruction_following, swe, variety


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
    with pytest.raises(ValueError, match="digits"):
        list(addition(split="test", rows=50, digits=(1, 1)))


GENERATORS = [
    (word_lists, {"rows": 500}), (programs, {"rows": 500}), (repairs, {"rows": 500}), (preferences, {"rows": 500})
]  # fmt: skip


@pytest.mark.parametrize(("generate", "args"), GENERATORS)
def test_every_generator_keeps_its_sides_apart_and_repeats_itself(generate, args):
    def asked(**more):
        return [row.get("problem") or row["prompt"] for row in generate(**args, **more)]

    train = asked(split="train")
    assert train == asked(split="train")
    assert len(set(train)) == len(train)
    assert not set(train) & set(asked(split="test", **({} if generate is repairs else {"seed": 1})))


def test_worked_answers_are_right_by_the_rewards_that_will_judge_them():
    for row in word_lists(split="train", rows=50, solved=True):
        answer = row["response"].rpartition("</think>")[2].strip()
        judged = instruction_following.verify(
            answer, instruction_id_list=row["instruction_id_list"], kwargs=row["kwargs"]
        )
        assert judged.value == 1
        assert variety.beats(answer, baseline=row["baseline"], vocabulary=row["vocabulary"]).value == 0.5
    for row in repairs(split="train", rows=50, solved=True):
        columns = {key: row[key] for key in ("relevant_file_contents", "golden_patch")}
        assert swe.similarity(row["response"].rpartition("</think>")[2], **columns).value == 1
    with_slips = list(word_lists(split="train", rows=300, solved=True, slip_rate=0.3))
    exact = sum(row["response"].endswith(f"\n{row['baseline']}") for row in with_slips)
    assert 0 < exact < 150


def test_a_program_by_hand():
    row = next(r for r in programs(split="train", rows=400, solved=True) if r["problem"].count(",") == 1)
    source = row["response"].split("```python\n")[1].split("\n```")[0]
    for given, wanted in zip(row["tests"]["inputs"], row["tests"]["outputs"], strict=True):
        x = int(given)
        for step in row["problem"].split(", "):
            name, number = step.split()
            x = {"add": x + int(number), "take": x - int(number), "times": x * int(number)}[name]
        assert wanted == str(x)
        names = {"input": lambda given=given: given, "print": lambda value, wanted=wanted: check(str(value), wanted)}
        exec(source, names)


def check(got, wanted):
    assert got == wanted


def test_people_prefer_more_different_words_whatever_the_length():
    rows = list(preferences(split="train", rows=500))
    longer = 0
    for row in rows:
        chosen, rejected = row["chosen"].split(), row["rejected"].split()
        assert len(set(chosen)) > len(set(rejected))
        longer += len(chosen) > len(rejected)
    assert longer < 450  # not in nearly all: length alone must not tell


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("red sun fox", 1.0),
        ("red sun", 0.5),
        ("red red red", 0.0),
        ("red sun zebra", 0.5),
        ("zebra yak gnu", 0.0),
        ("", 0.0),
    ],
)
def test_variety_by_hand(response, value):
    row = {"baseline": "red fox fox", "vocabulary": ["red", "sun", "fox"]}
    assert variety.beats(response, **row).value == value
