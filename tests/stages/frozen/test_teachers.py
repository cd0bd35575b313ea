"""One teacher or one for each domain, and what it must share with its student."""

import dataclasses
from types import SimpleNamespace

import numpy
import pytest

from cascade_rl.recipe import TemplateConfig
from cascade_rl.stages.checkpoints.handover import CONTRACT, install_contract, load_tokenizer
from cascade_rl.stages.frozen.teacher_server import ServerTeacher
from cascade_rl.stages.frozen.teachers import AskAhead, Teachers, open_teachers, same_vocabulary
from cascade_rl.training.packing import training_sequence
from cascade_rl.types import CascadeError, Prompt, Rollout, Stop
from tests.builders import CPU, make_context
from tests.builders import distill_config as config
from tests.stages.test_distill import checkpoints  # noqa: F401


class Constant:
    """A teacher that finds every token equally likely, and notes who was asked."""

    def __init__(self, value, asked=None):
        self.value, self.asked = value, asked if asked is not None else []

    def fill(self, sequences):
        self.asked.append((self.value, len(sequences)))
        return [
            dataclasses.replace(s, reference_logprobs=numpy.full(len(s.completion_ids), self.value)) for s in sequences
        ]


def sequence(label):
    return training_sequence([1], [2, 3], [0.0, 0.0], 0.0, label=label)


def test_each_domain_asks_its_own_teacher_and_order_is_kept():
    asked = []
    teachers = Teachers({"math": Constant(-1.0, asked), "code": Constant(-2.0, asked)}, {})
    found = teachers.fill([sequence(d) for d in ("code", "math", "code")])
    assert [s.reference_logprobs[0] for s in found] == [-2.0, -1.0, -2.0]
    assert asked == [(-1.0, 1), (-2.0, 2)]


def test_one_that_several_domains_name_is_asked_once():
    asked, one = [], None
    one = Constant(-1.0, asked)
    Teachers({"math": one, "code": one}, {}).fill([sequence("math"), sequence("code")])
    assert asked == [(-1.0, 2)]


def test_a_single_teacher_takes_all_domains():
    found = Teachers({"": Constant(-1.0)}, {}).fill([sequence("x"), sequence("")])
    assert all(s.reference_logprobs.tolist() == [-1.0, -1.0] for s in found)


def test_a_domain_without_a_teacher():
    with pytest.raises(CascadeError, match="'swe'.*: math, code"):
        Teachers({"math": Constant(0), "code": Constant(0)}, {}).fill([sequence("swe")])


class Words:
    """A tokenizer of whole words."""

    def __init__(self, *words, split=str.split):
        self.words, self.split = list(words), split

    def get_vocab(self):
        return {word: i for i, word in enumerate(self.words)}

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [self.words.index(word) for word in self.split(text)]


def test_another_vocabulary_is_refused_with_both_sides_shown():
    same_vocabulary(Words("a", "b"), Words("a", "b"), "t", {"probe": "a b"})
    with pytest.raises(CascadeError, match=r"(?s)2 tokens.*'a'.*student: 0 .*2.*teacher: 1 .*2"):
        same_vocabulary(Words("a", "b"), Words("b", "a"), "t", {})
    with pytest.raises(CascadeError, match=r"(?s)1 tokens.*'c'.*student: .*2.*teacher: 2 .*3"):
        same_vocabulary(Words("a", "b"), Words("a", "b", "c"), "t", {})


def test_another_way_to_split_text_is_refused():
    other = Words("a", "b", split=lambda text: text.split()[:1])
    with pytest.raises(CascadeError, match=r"(?s)'probe'.*student: \[0, 1\].*teacher: \[0\]"):
        same_vocabulary(Words("a", "b"), other, "t", {"probe": "a b"})


@pytest.fixture
def opened(checkpoints, tmp_path):  # noqa: F811
    """Opens the teachers of two domains, both with the same model, for a student with that tokenizer."""
    student, teacher = checkpoints
    template = TemplateConfig()
    for folder in (student, teacher):
        install_contract(folder, template)
    context = make_context(tmp_path)
    tokenizer, renderer = load_tokenizer(student, template)

    def check(teachers, longest):
        teachers.check(context, tokenizer, renderer, longest)

    one = {"model": str(teacher)}
    with open_teachers(context, config(teacher=None, teachers={"a": one, "b": one})) as teachers:
        yield teachers, check, tokenizer


def test_a_teacher_named_twice_is_loaded_once_and_passes_its_checks(opened):
    teachers, check, _ = opened
    assert teachers.of("a") is teachers.of("b")
    check(teachers, 30)


def test_a_teacher_with_too_few_positions_is_refused(opened):
    teachers, check, _ = opened
    positions = teachers.of("a").positions
    check(teachers, positions)
    with pytest.raises(CascadeError, match=f"{positions} positions.* {positions + 1}"):
        check(teachers, positions + 1)


def test_a_teacher_with_too_small_a_head_is_refused(opened):
    teachers, check, tokenizer = opened
    model = teachers.of("a")._model
    model.set_output_embeddings(type(model.lm_head)(64, 100, bias=False))
    with pytest.raises(CascadeError, match=f"100 .* {len(tokenizer)}"):
        check(teachers, 30)


def test_a_teacher_trained_with_another_template_is_refused(opened, checkpoints):  # noqa: F811
    teachers, check, _ = opened
    written = checkpoints[1] / CONTRACT
    before = written.read_text()
    written.unlink()
    install_contract(checkpoints[1], TemplateConfig(system="Be brief."))
    with pytest.raises(CascadeError, match="rendering"):
        check(teachers, 30)
    written.write_text(before)


def test_only_servers_are_shown_rollouts_ahead():
    begun = []

    class Server(ServerTeacher):
        def __init__(self):
            pass

        def begin(self, prompt_ids, completion_ids):
            begun.append((prompt_ids, completion_ids))

    template = SimpleNamespace(prompt_ids=lambda messages, thinking, tools: [len(messages), int(thinking)])
    scorer = AskAhead(Teachers({"math": Server(), "code": Constant(0)}, {}), template)
    rollout = Rollout("p", 0, (5, 6), (0.0, 0.0), "t", Stop.EOS, 0)
    for domain in ("math", "code"):
        prompt = Prompt("p", ({"role": "user", "content": "q"},), thinking=True, domain=domain)
        assert scorer.submit_whole(prompt, rollout, "score").result().value == 0.0
    assert begun == [([1, 1], (5, 6))]
    assert scorer.combine([], lambda mine: [mine]) == []


def test_the_device_is_the_ranks(opened):
    assert opened[0].of("a")._device == CPU
