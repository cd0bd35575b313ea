"""What a row asks is read from messages in any accepted form, also where some of them cannot be rendered."""

from cascade_rl.data.questions import questions
from cascade_rl.recipe import DataSource

SOURCE = DataSource(source="rows.jsonl")


def asked(*messages):
    return questions({"messages": list(messages)}, SOURCE, 0)


def test_roles_with_capitals_ask_as_well():
    said = [{"role": "User", "content": "a"}, {"role": "Assistant", "content": "b"}]
    assert asked(*said) == ["a"]
    picture = {"role": "User", "content": "c", "images": ["x.png"]}
    assert asked(picture, said[1]) == ["c"]


def test_a_greeting_answers_no_question():
    assert asked({"role": "assistant", "content": "hi"}, {"role": "user", "content": "a"},
                 {"role": "assistant", "content": "b"}) == ["a"]  # fmt: skip
