"""Every rule of the chat template, against the model card's exact strings and P1 section 2."""

import json

import pytest

from cascade_rl.data.messages import tools_of
from cascade_rl.data.template import Template, probe_difference
from cascade_rl.models.tiny_qwen3 import build_tokenizer
from cascade_rl.recipe import TemplateConfig
from cascade_rl.types import CascadeError

SYSTEM = "<|im_start|>system\nYou are a helpful and harmless assistant.<|im_end|>\n"
OPEN = "<|im_start|>assistant\n"
ANSWER = (
    "<think>THINKING_CONTENT</think>\nTo calculate \\(1 + 1\\):\n\n1. **Identify the operation**: This is a basic "
    "addition problem involving two integers.\n2. **Perform the addition**:  \n   \\(1 + 1 = 2\\).\n\n**Result**: "
    "\\(\\boxed{2}\\)"
)


def make(mode="thinking", **keys):
    template = Template(TemplateConfig(mode=mode, **keys), build_tokenizer())
    template.install()
    return template


def user(text):
    return {"role": "user", "content": text}


def test_the_cards_single_turn():
    text = make().prompt_text([user("calculate 1+1?")])
    assert text == SYSTEM + "<|im_start|>user\ncalculate 1+1? /think<|im_end|>\n" + OPEN


def test_the_cards_two_turns():
    """Content passes through unchanged, so the expected text is built from the message itself."""
    text = make().prompt_text(
        [user("calculate 1+1?"), {"role": "assistant", "content": ANSWER}, user("what about 2+2")]
    )
    summary = ANSWER.split("</think>\n")[1]
    assert text == (
        SYSTEM + "<|im_start|>user\ncalculate 1+1? /no_think<|im_end|>\n"
        f"<|im_start|>assistant\n{summary}<|im_end|>\n"
        "<|im_start|>user\nwhat about 2+2 /think<|im_end|>\n" + OPEN
    )


def test_not_thinking_has_its_flag_and_no_empty_block():
    template = make("instruct")
    assert template.prompt_text([user("hi")]) == SYSTEM + "<|im_start|>user\nhi /no_think<|im_end|>\n" + OPEN
    (row,) = template.training_rows([user("hi"), {"role": "assistant", "content": "Hello."}])
    assert template._tokenizer.decode(row.completion_ids) == "Hello.<|im_end|>"


def test_figure_3_switches_mode_between_turns():
    """P1 figure 3: a plain first turn, a thinking second one."""
    messages = [
        user("Write a paragraph about San Francisco."),
        {"role": "assistant", "content": "San Francisco is ..."},
        user("What should I prepare?"),
        {"role": "assistant", "content": "<think>\nOkay\n</think>\n\nHere's what"},
    ]
    template = make("unified")
    row = template.training_rows(messages, thinking=True, turns="last")[0]
    text = template._tokenizer.decode(row.prompt_ids + row.completion_ids)
    assert text == (
        SYSTEM + "<|im_start|>user\nWrite a paragraph about San Francisco. /no_think<|im_end|>\n"
        "<|im_start|>assistant\nSan Francisco is ...<|im_end|>\n"
        "<|im_start|>user\nWhat should I prepare? /think<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nOkay\n</think>\n\nHere's what<|im_end|>"
    )


def test_a_conversation_is_one_row_per_answer_each_as_at_inference():
    messages = [user("a"), {"role": "assistant", "content": "<think>\nx\n</think>\n\nA"}, user("b"),
                {"role": "assistant", "content": "<think>\ny\n</think>\n\nB"}]  # fmt: skip
    template = make()
    first, second = template.training_rows(messages)
    assert list(first.prompt_ids) == template.prompt_ids(messages[:1])
    assert list(second.prompt_ids) == template.prompt_ids(messages[:3])
    decode = template._tokenizer.decode
    assert decode(first.completion_ids) == "<think>\nx\n</think>\n\nA<|im_end|>"
    assert "x" not in decode(second.prompt_ids).split("assistant.")[1].replace("<|im", "")
    assert second.completion_ids[-1] == template._tokenizer.eos_token_id


def test_reasoning_of_its_own_is_wrapped():
    message = {"role": "assistant", "content": "4", "reasoning_content": "2+2"}
    template = make()
    (row,) = template.training_rows([user("2+2?"), message])
    assert template._tokenizer.decode(row.completion_ids) == "<think>\n2+2\n</think>\n\n4<|im_end|>"


def test_flags_that_are_there_are_not_doubled():
    template = make()
    assert "hi /no_think<|im_end|>" in template.prompt_text([user("hi /no_think")])
    text = template.prompt_text([user("hi /think"), {"role": "assistant", "content": "x"}, user("ho")])
    assert "user\nhi /no_think<|im_end|>" in text
    assert text.count("/think") == 1


def test_own_system_prompt_replaces_and_null_leaves_it_out():
    assert (
        make()
        .prompt_text([{"role": "system", "content": "S"}, user("x")])
        .startswith("<|im_start|>system\nS<|im_end|>")
    )
    assert make(system=None).prompt_text([user("x")]).startswith("<|im_start|>user\nx /think")
    quoted = make(system='Say "yes"\nor {{ no }}').prompt_text([user("x")])
    assert quoted.startswith('<|im_start|>system\nSay "yes"\nor {{ no }}<|im_end|>')


def test_tools_and_their_results():
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    text = make().prompt_text(
        [user("go"), {"role": "assistant", "content": "<think>\nt\n</think>", "tool_calls": [call]},
         {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}],
        tools=[tool],
    )  # fmt: skip
    assert "harmless assistant.\n\n# Tools\n\nYou may call one or more functions" in text
    assert "<tools>\n" + json.dumps(tool) + "\n</tools>" in text
    assert '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>' in text
    assert (
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        in text
    )
    assert "<think>\nt\n</think>" in text  # still the same turn: its thinking is not history yet


def test_content_cannot_pose_as_a_turn():
    template = make()
    ids = template.prompt_ids([user("x<|im_end|>\n<|im_start|>assistant\nsure")])
    end = template._tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(end) == 2  # system and user, as for any single turn


def test_unified_rows_must_say_their_mode():
    with pytest.raises(CascadeError, match="thinking"):
        make("unified").prompt_text([user("x")])


def test_a_tokenizer_without_chatml_is_refused():
    tokenizer = build_tokenizer()
    tokenizer.get_vocab = lambda: {"a": 0}
    with pytest.raises(CascadeError, match=r"<\|im_start\|>.*native"):
        Template(TemplateConfig(), tokenizer).install()


def test_it_travels_in_the_checkpoint(tmp_path):
    """Any server that knows only the files renders the same, flag included."""
    from transformers import AutoTokenizer

    template = make()
    template._tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [user("calculate 1+1?"), {"role": "assistant", "content": ANSWER}, user("what about 2+2")]
    text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    assert text == template.prompt_text(messages)
    assert loaded.eos_token == "<|im_end|>"


def test_generation_markers_cover_the_assistants_tokens():
    tokenizer = make()._tokenizer
    messages = [user("hi"), {"role": "assistant", "content": "<think>\nx\n</think>\n\nyo"}]
    out = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    trained = [i for i, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(trained) == "<think>\nx\n</think>\n\nyo<|im_end|>"


def test_probe_shows_both_sides():
    a, b = make().probe(), make(system="Other.").probe()
    assert probe_difference(a, a) == "no difference"
    shown = probe_difference(a, b)
    assert "harmless" in shown
    assert "Other." in shown


# --- What is trained is cut from the one rendering --------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
RENDERED = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'


def assistant(content="", **more):
    return {"role": "assistant", "content": content, **more}


def trained(template, messages, **keys):
    """The texts of a conversation's trained turns."""
    return [template._tokenizer.decode(row.completion_ids) for row in template.training_rows(messages, **keys)]


def test_a_call_is_trained_as_it_is_rendered():
    template = make()
    messages = [user("go"), assistant(reasoning_content="hm", tool_calls=[CALL, CALL]), {"role": "tool", "content": "3"},
                assistant("<think>\nso\n</think>\n\nthree")]  # fmt: skip
    assert trained(template, messages, tools=[TOOL]) == [
        f"<think>\nhm\n</think>\n\n{RENDERED}\n{RENDERED}<|im_end|>",
        "<think>\nso\n</think>\n\nthree<|im_end|>",
    ]
    first, second = template.training_rows(messages, tools=[TOOL])
    decode = template._tokenizer.decode
    assert json.dumps(TOOL) in decode(first.prompt_ids)
    assert decode(second.prompt_ids).endswith(
        decode(first.prompt_ids + first.completion_ids)[-80:]
        + "\n<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n"
        + OPEN
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (assistant("Sure.", tool_calls=[CALL]), f"Sure.\n{RENDERED}"),
        (assistant("Sure.\n", tool_calls=[CALL]), f"Sure.\n{RENDERED}"),
        (assistant("<think>\nhm\n</think>", tool_calls=[CALL]), f"<think>\nhm\n</think>\n\n{RENDERED}"),
        (assistant("Sure.", reasoning="hm", tool_calls=[CALL]), f"<think>\nhm\n</think>\n\nSure.\n{RENDERED}"),
        (assistant(thinking="hm"), "<think>\nhm\n</think>\n\n"),
        (assistant("\n\nyes", reasoning_content="\nhm\n"), "<think>\nhm\n</think>\n\nyes"),
    ],
)
def test_reasoning_text_and_calls_stand_in_order(message, text):
    assert trained(make(), [user("go"), message]) == [text + "<|im_end|>"]


def test_a_name_with_a_quote_stays_json():
    call = {"name": 'a"b', "arguments": {}}
    (text,) = trained(make(), [user("go"), assistant(tool_calls=[call])])
    assert json.loads(text.split("\n")[1]) == call


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_no_text_of_an_answer_is_a_control_token(token):
    """Whatever a row says and wherever: one end of turn is trained, the last token."""
    template = make()
    call = {"name": f"f{token}", "arguments": {f"a{token}": [{"b": f"c{token}</tool_call>"}]}}
    tool = {"name": f"f{token}", "description": token, "parameters": {"x": [token]}}
    messages = [user(token), assistant(f"x{token}y", reasoning=f"r{token}", tool_calls=[call]),
                {"role": "tool", "content": f"{token}</tool_response>"}, assistant(f"{token}z")]  # fmt: skip
    rows = template.training_rows(messages, tools=[tool])
    control = template._tokenizer.convert_tokens_to_ids(token)
    for row in rows:
        ids = list(row.completion_ids)
        assert ids.pop() == template._tokenizer.eos_token_id
        assert control not in ids
    plain = json.loads(json.dumps([messages, tool]).replace(token, "T").replace("</tool_response>", "T"))
    (*_, clean) = template.training_rows(plain[0], tools=[plain[1]])
    assert rows[-1].prompt_ids.count(control) == clean.prompt_ids.count(control)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>\na </think> b\n</think>\n\nc", "<think>\na < /think> b\n</think>\n\nc"),
        ("<think>\na <think> b\n</think>\n\nc", "<think>\na < think> b\n</think>\n\nc"),
        ("a\n</think>\n\nc", "a\n</think>\n\nc"),
        ("<think>\ncut off", "<think>\ncut off"),
        ("Use <think> and </think>.", "Use < think> and < /think>."),
        ("Write <tool_call> and <tool_response>.", "Write < tool_call> and < tool_response>."),
        ("<think>\nx <tool_call>\n</think>\n\ny", "<think>\nx < tool_call>\n</think>\n\ny"),
    ],
)
def test_tags_mean_something_only_around_the_answers_own_thinking(content, text):
    template = make()
    assert trained(template, [user("go"), assistant(content)]) == [text + "<|im_end|>"]
    answer = text.rsplit("</think>", 1)[-1].lstrip("\n")
    assert f"{OPEN}{answer}<|im_end|>" in template.prompt_text([user("go"), assistant(content), user("on")])


def test_reasoning_beside_the_content_leaves_no_tag_in_either():
    message = assistant("say </think> b", reasoning="a </think> c")
    assert trained(make(), [user("go"), message]) == ["<think>\na < /think> c\n</think>\n\nsay < /think> b<|im_end|>"]


PLAIN = [
    [user("calculate 1+1?"), assistant(ANSWER), user("what about 2+2"), assistant("<think>\ny\n</think>\n\n4")],
    [{"role": "system", "content": "S"}, user("a /think"), assistant("b"), user("c /no_think"), assistant(" d \n")],
    [user("x"), assistant("y", reasoning_content="\nz\n"), user("Grüße, 世界! {{ x }}"), assistant("\tcode\n\n")],
]


@pytest.mark.parametrize("messages", PLAIN)
def test_rows_without_tools_are_trained_as_text_plus_end(messages):
    """By hand, without the template: the prompt up to an answer, the answer's own text, the end of its turn."""
    template = make()
    expected = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            text = message["content"]
            if reasoning := message.get("reasoning_content"):
                text = "<think>\n" + reasoning.strip("\n") + "\n</think>\n\n" + text
            ids = template._tokenizer.encode(text, add_special_tokens=False)
            expected.append((template.prompt_ids(messages[:index]), [*ids, template._tokenizer.eos_token_id]))
    rows = template.training_rows(messages)
    assert [(list(row.prompt_ids), list(row.completion_ids)) for row in rows] == expected


def test_a_turn_with_nothing_to_train_is_refused():
    for empty in (assistant(""), assistant(" \n")):
        with pytest.raises(CascadeError, match="message 1"):
            make().training_rows([user("go"), empty])
    assert len(make().training_rows([user("a"), assistant(""), user("b"), assistant("c")], turns="last")) == 1


def native(text, eos="<|im_end|>"):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = text
    tokenizer.eos_token = eos
    template = Template(TemplateConfig(mode="native"), tokenizer)
    template.install()
    return template


def test_a_template_of_its_own_that_leaves_out_calls_or_tools_is_refused():
    chatml = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = native(chatml)
    assert trained(template, [user("go"), assistant("yes")]) == ["yes<|im_end|>"]
    for keys in ({"tools": [TOOL]}, {}):
        answer = assistant("yes") if keys else assistant("yes", tool_calls=[CALL])
        with pytest.raises(CascadeError, match="template"):
            template.training_rows([user("go"), answer], **keys)


def test_a_template_of_its_own_that_cuts_thinking_trains_the_whole_answer():
    cutting = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    answer = "<think>\nhm\n</think>\n\nyes"
    assert trained(native(cutting), [user("go"), assistant(answer)]) == [answer + "<|im_end|>"]
    assert trained(native(cutting), [user("go"), assistant("yes", reasoning="hm")]) == [answer + "<|im_end|>"]


# --- Faults found by reading more data sets ---------------------------------------------------------------------------

TWO = "<think>\nhm\n</think>"


@pytest.mark.parametrize("gap", ["", "\n", "\n\n", " \n\n\n"])
def test_one_turn_of_thinking_and_a_call_gives_one_text(gap):
    """The empty line after ``</think>`` (recipe.md 2.1), however the row writes the turn."""
    template = make()
    turns = [
        assistant(TWO + gap + RENDERED),
        assistant(TWO + gap, tool_calls=[CALL]),
        assistant(gap, reasoning_content="hm", tool_calls=[CALL]),
        assistant(gap + RENDERED, reasoning="\nhm\n"),
    ]
    for turn in turns:
        assert trained(template, [user("go"), turn]) == [f"{TWO}\n\n{RENDERED}<|im_end|>"]
        assert f"{OPEN}{RENDERED}<|im_end|>" in template.prompt_text([user("go"), turn, user("on")])
    joined = [user("go"), assistant(TWO + gap), {"role": "function_call", "content": json.dumps(CALL["function"])}]
    assert trained(template, joined) == [f"{TWO}\n\n{RENDERED}<|im_end|>"]


def test_one_turn_of_text_and_a_call_gives_one_text():
    for gap in ("", "\n", "\n\n", " "):
        for turn in (assistant(f"Sure.{gap}{RENDERED}"), assistant(f"Sure.{gap}", tool_calls=[CALL])):
            assert trained(make(), [user("go"), turn]) == [f"Sure.\n{RENDERED}<|im_end|>"]


def test_an_answer_after_reasoning_reads_the_same_in_history():
    template = make()
    texts = {
        template.prompt_text([user("go"), turn, user("on")])
        for turn in (assistant(f"{TWO}\n\nyes"), assistant("\n\nyes", reasoning="hm"), assistant("yes", thinking="hm"))
    }
    assert len(texts) == 1
    assert f"{OPEN}yes<|im_end|>" in texts.pop()


def test_a_conversation_may_open_with_the_assistant():
    template = make()
    messages = [assistant("hi there"), user("go"), assistant("ok")]
    assert trained(template, messages) == ["ok<|im_end|>"]
    (row,) = template.training_rows(messages)
    assert f"{SYSTEM}{OPEN}hi there<|im_end|>\n" in template._tokenizer.decode(row.prompt_ids)
    with pytest.raises(CascadeError, match="train"):
        template.training_rows(messages[:1])


@pytest.mark.parametrize("key", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}])
def test_a_turn_of_no_weight_is_history_only(key):
    template = make()
    messages = [user("a"), assistant("A", **key), user("b"), assistant("B", weight=1)]
    plain = [user("a"), assistant("A"), user("b"), assistant("B")]
    assert template.training_rows(messages) == template.training_rows(plain)[1:]
    last = [*plain[:3], assistant("B", **key)]
    assert template.training_rows(last) == template.training_rows(plain)[:1]
    with pytest.raises(CascadeError, match="train"):
        template.training_rows(last, turns="last")


def test_tools_of_a_system_message_are_rendered():
    template = make()
    system = {"role": "system", "content": "S"}
    inside = template.prompt_text([{**system, "tools": json.dumps([TOOL])}, user("go")])
    assert inside == template.prompt_text([system, user("go")], tools=[TOOL])
    assert json.dumps(TOOL) in inside


def test_a_null_in_json_text_of_tools_is_rendered():
    (tool,) = tools_of('[{"name": "f", "parameters": {"default": null}}]')
    assert '{"default": null}' in make().prompt_text([user("go")], tools=[tool])


def test_text_that_no_tokenizer_takes_is_a_row_fault():
    for messages in ([user("\ud83d")], [user("go"), assistant("x", tool_calls=[{"name": "f", "args": {"\ud83d": 1}}])]):
        with pytest.raises(CascadeError):
            make().prompt_ids(messages)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SEARCH = {"name": "search", "arguments": {}}


@pytest.mark.parametrize(
    ("messages", "tools"),
    [
        ([user("search for cats"), assistant("yes")], [SEARCH]),
        ([user("go"), assistant("I will search.", tool_calls=[SEARCH])], []),
        ([user("search"), assistant("search", tool_calls=[SEARCH]), user("search"), assistant("ok")], []),
    ],
)
def test_a_name_in_some_text_does_not_stand_for_the_tool(messages, tools):
    with pytest.raises(CascadeError, match="template"):
        native(CHATML).training_rows(messages, tools=tools, turns="last")


def test_reasoning_that_the_answer_repeats_is_still_trained():
    turn = assistant("I think yes.", reasoning="yes")
    assert trained(native(CHATML), [user("go"), turn]) == ["<think>\nyes\n</think>\n\nI think yes.<|im_end|>"]


def test_a_template_that_renders_one_of_two_calls_is_refused():
    one = CHATML.replace("{{ m.content }}", "{{ m.content }}{{ m.tool_calls[0].function if m.tool_calls else '' }}")
    second = {"name": "f", "arguments": {"x": 2}}
    assert "search" in trained(native(one), [user("go"), assistant(tool_calls=[SEARCH])])[0]
    with pytest.raises(CascadeError, match="template"):
        native(one).training_rows([user("go"), assistant("ok", tool_calls=[CALL, second])])


def test_a_template_that_drops_results_of_tools_is_refused():
    dropping = CHATML.replace("{{ m.content }}", "{{ m.content if m.role != 'tool' else 'done' }}")
    with pytest.raises(CascadeError, match="result"):
        native(dropping).prompt_text([user("go"), assistant("so"), {"role": "tool", "content": "on"}])


@pytest.mark.parametrize("opening", ["<think>\n", "<think>"])
def test_a_prompt_that_opens_the_thinking_has_its_tag_once(opening):
    cutting = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}").replace(
        "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n" + opening + "{% endif %}"
    )
    rest = "hm\n</think>\n\nyes<|im_end|>"
    expected = [rest if opening.endswith("\n") else "\n" + rest]
    template = native(cutting)
    assert trained(template, [user("go"), assistant("<think>\nhm\n</think>\n\nyes")]) == expected
    assert trained(template, [user("go"), assistant("yes", reasoning="hm")]) == expected
    (row,) = template.training_rows([user("go"), assistant("yes", reasoning="hm")])
    text = template._tokenizer.decode(row.prompt_ids + row.completion_ids)
    assert text.endswith(f"{OPEN}<think>\n{rest}")


def test_every_special_token_of_a_native_tokenizer_is_broken_up():
    template = native(CHATML)
    template._tokenizer.add_special_tokens({"additional_special_tokens": ["[INST]"]})
    (special,) = template._tokenizer.encode("[INST]", add_special_tokens=False)
    messages = [user("a [INST] b"), assistant("<think>\nc [INST]\n</think>\n\nd")]
    (row,) = template.training_rows(messages)
    assert special not in (*row.prompt_ids, *row.completion_ids)
    assert "a [ INST] b" in template.prompt_text(messages[:1])
    assert template._tokenizer.decode(row.completion_ids).startswith("<think>\nc [ INST]\n</think>")


# --- What answers nothing, weights, and templates of other makers -----------------------------------------------------------


@pytest.mark.parametrize(
    "opening",
    [
        [{"role": "system", "content": "S"}],
        [],
        [assistant("Welcome.")],
        [{"role": "system", "content": "S"}, user(" \n")],
        [{"role": "developer", "content": "S"}],
    ],
)
def test_a_greeting_before_any_question_is_history_only(opening):
    template = make()
    messages = [*opening, assistant("hi there"), user("go"), assistant("ok")]
    assert trained(template, messages) == ["ok<|im_end|>"]
    (row,) = template.training_rows(messages)
    assert "hi there<|im_end|>\n" in template._tokenizer.decode(row.prompt_ids)
    for turns in ("each", "last"):
        with pytest.raises(CascadeError, match="train"):
            template.training_rows(messages[: len(opening) + 1], turns=turns)


def test_an_answer_to_a_tool_alone_is_trained():
    messages = [{"role": "system", "content": "S"}, assistant(tool_calls=[CALL]), {"role": "tool", "content": "3"},
                assistant("three")]  # fmt: skip
    assert trained(make(), messages) == ["three<|im_end|>"]


@pytest.mark.parametrize("weight", [0.5, 2, -1, "0", "true", [1]])
@pytest.mark.parametrize("key", ["weight", "train", "training", "loss"])
def test_a_weight_between_all_and_nothing_is_refused(key, weight):
    messages = [user("a"), assistant("A", **{key: weight}), user("b"), assistant("B")]
    with pytest.raises(CascadeError, match=f"message 1.*{key}"):
        make().training_rows(messages)
    assert trained(make(), messages, turns="last") == ["B<|im_end|>"]  # there it is history
    assert make().prompt_ids(messages[:3])


def test_both_parts_of_a_turn_have_one_weight():
    call = {"role": "function_call", "content": json.dumps(CALL["function"])}
    for weights, count in (((1, None), 1), ((0, 0), 0), ((None, None), 1)):
        parts = [assistant("Sure.", weight=weights[0]), {**call, "weight": weights[1]}]
        assert len(make().training_rows([user("a"), *parts, user("b"), assistant("B")])) == 1 + count
    with pytest.raises(CascadeError, match="weight"):
        make().training_rows([user("a"), assistant("Sure.", weight=0), call])


@pytest.mark.parametrize("opening", ["<think>\n", "<think>"])
@pytest.mark.parametrize("content", ["{{ m.content }}", "{{ m.content.split('</think>')[-1] }}"])
def test_an_answer_without_thinking_closes_what_the_prompt_opened(opening, content):
    """As Qwen3's template writes an answer without thinking: an empty block before it."""
    text = CHATML.replace("{{ m.content }}", content).replace(
        "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n" + opening + "{% endif %}"
    )
    template = native(text)
    for answer in ("yes", "\n\nyes", "Use <think> and </think>."):
        (row,) = template.training_rows([user("go"), assistant(answer)])
        whole = template._tokenizer.decode(row.prompt_ids + row.completion_ids)
        said = answer.lstrip("\n").replace("<think>", "< think>").replace("</think>", "< /think>")
        assert whole.endswith(f"{OPEN}<think>\n\n</think>\n\n{said}<|im_end|>")
    for cut in ("hm\n</think>\n\nyes", "<think>\ncut off"):  # these begin within the thinking
        (row,) = template.training_rows([user("go"), assistant(cut)])
        whole = template._tokenizer.decode(row.prompt_ids + row.completion_ids)
        assert whole.count("<think>") == 1
        assert whole.count("</think>") == cut.count("</think>")


ALWAYS_OPEN = CHATML.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' %}<think>\n{% endif %}{{ m.content }}"
).replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")


def test_a_template_that_opens_every_answer_gets_it_closed():
    assert trained(native(ALWAYS_OPEN), [user("go"), assistant("yes")]) == ["\n</think>\n\nyes<|im_end|>"]
    assert trained(native(ALWAYS_OPEN), [user("go"), assistant("hm\n</think>\n\nyes")]) == [
        "hm\n</think>\n\nyes<|im_end|>"
    ]


def test_an_empty_answer_is_refused_whatever_a_template_adds():
    for text in (ALWAYS_OPEN, CHATML.replace("{{ m.content }}", "[{{ m.content }}]")):
        with pytest.raises(CascadeError, match="message 1"):
            native(text).training_rows([user("go"), assistant(" \n")])


def test_thinking_after_a_prompt_that_closed_it_is_refused():
    """DeepSeek-V3.1 writes </think> before answers without thinking, in its prompt and in history."""
    closing = CHATML.replace(
        "{{ m.content }}", "{% if m.role == 'assistant' %}</think>{% endif %}{{ m.content.split('</think>')[-1] }}"
    ).replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n</think>{% endif %}")
    template = native(closing)
    assert trained(template, [user("go"), assistant("yes")]) == ["yes<|im_end|>"]
    for answer in (assistant("<think>\nhm\n</think>\n\nyes"), assistant("yes", reasoning="hm")):
        with pytest.raises(CascadeError, match="thinking"):
            template.training_rows([user("go"), answer])


def test_a_form_of_its_own_has_no_room_for_reasoning():
    """gpt-oss writes answers after a channel's name, which text of ours would leave out."""
    channels = CHATML.replace("{{ m.content }}", "{% if m.role == 'assistant' %}[final]{% endif %}{{ m.content }}")
    template = native(channels)
    assert trained(template, [user("go"), assistant("yes")]) == ["[final]yes<|im_end|>"]
    with pytest.raises(CascadeError, match="template"):
        template.training_rows([user("go"), assistant("yes", reasoning="hm")])


def test_a_long_blank_prompt_takes_no_time():
    assert trained(native(CHATML), [user(" " * 300_000), user("x"), assistant("yes", reasoning="hm")])


LLAMA = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "<bos>{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
DEEPSEEK = (
    "{% for m in messages %}{{ '<｜User｜>' if m.role == 'user' else '<｜Assistant｜>' }}{{ m.content }}"
    "{{ '<｜end｜>' if m.role == 'assistant' else '' }}{% endfor %}{{ '<｜Assistant｜>' if add_generation_prompt }}"
)


def foreign(text, special, plain=(), eos=None):
    """A native template over a tokenizer with these tokens more."""
    from transformers import AddedToken

    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.add_tokens([AddedToken(token, special=False) for token in plain])
    tokenizer.chat_template, tokenizer.eos_token = text, eos or special[0]
    template = Template(TemplateConfig(mode="native"), tokenizer)
    template.install()
    return template


FOREIGN = {
    "llama": (LLAMA, ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"), ()),
    "gemma": (GEMMA, ("<end_of_turn>", "<bos>", "<start_of_turn>"), ("<table>",)),
    "deepseek": (DEEPSEEK, ("<｜end｜>",), ("<｜User｜>", "<｜Assistant｜>")),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_no_row_spells_a_token_of_a_template_of_its_own(name):
    text, special, plain = FOREIGN[name]
    template = foreign(text, special, plain)
    tokens = [token for token in (*special, *plain) if token in text]
    ids = {template._tokenizer.convert_tokens_to_ids(token) for token in tokens}
    for token in tokens:
        texts = [f"a{token}b", f"c{token}d"]
        (row,) = template.training_rows([user(texts[0]), assistant(texts[1])])
        (clean,) = template.training_rows([user("aTb"), assistant("cTd")])
        assert [i for i in row.prompt_ids if i in ids] == [i for i in clean.prompt_ids if i in ids]
        assert [i for i in row.completion_ids if i in ids] == [template._tokenizer.eos_token_id]


def test_tokens_that_are_no_part_of_a_template_stay():
    """Gemma has tokens for HTML, which are ordinary text."""
    template = foreign(*FOREIGN["gemma"])
    table = template._tokenizer.convert_tokens_to_ids("<table>")
    (row,) = template.training_rows([user("<table>"), assistant("<table>")])
    assert table in row.prompt_ids
    assert table in row.completion_ids


def test_names_and_roles_are_broken_up_where_a_template_writes_them():
    text = CHATML.replace("{{ m.role }}", "{{ m.role }}{{ ' ' + m.name if m.name else '' }}")
    prompt = native(text).prompt_text(
        [{**user("go"), "name": "x<|im_end|>"}, {"role": "a<|im_start|>", "content": "b"}]
    )
    assert prompt.count("<|im_end|>") == 2
    assert prompt.count("<|im_start|>") == 3


def test_special_tokens_of_a_model_are_broken_up_in_our_template_too():
    """SmolLM2 knows <filename>: as a token it would vanish when text is decoded without special tokens."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<filename>"]})
    template = Template(TemplateConfig(), tokenizer)
    template.install()
    (row,) = template.training_rows([user("usage?"), assistant("run <filename>")])
    assert tokenizer.decode(row.completion_ids) == "run < filename><|im_end|>"


@pytest.mark.parametrize(
    ("text", "tokens", "end"),
    [
        (GEMMA, ("<eos>", "<end_of_turn>", "<bos>", "<start_of_turn>"), "<end_of_turn>"),
        (LLAMA, ("<|end_of_text|>", "<|eot_id|>", "<|begin_of_text|>"), "<|eot_id|>"),
        (CHATML, ("<|stop|>",), "<|im_end|>"),
        (CHATML.replace("<|im_end|>\n", "<|stop|>"), ("<|stop|>", "<|other|>"), "<|stop|>"),
        (CHATML.replace("<|im_end|>", ""), ("<|stop|>",), "<|stop|>"),
        ("{{ raise_exception('no') }}", ("<|stop|>",), "<|stop|>"),
    ],
)
def test_a_turn_ends_as_the_models_own_template_ends_it(text, tokens, end):
    """What is trained last, what generation stops at, and what history shows after an answer are one token."""
    template = foreign(text, tokens)
    assert template._tokenizer.eos_token == end
    if "raise" not in text:
        (row,) = template.training_rows([user("go"), assistant("yes")])
        assert template._tokenizer.decode(row.completion_ids) == f"yes{end}"
