"""Whom a student learns from: one teacher for all prompts, or one for each domain; in this process or behind HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from cascade_rl.data.template import Template
from cascade_rl.recipe import DistillStage, TeacherConfig
from cascade_rl.rewarding.scorer import Combines
from cascade_rl.stages.checkpoints.handover import load_tokenizer
from cascade_rl.stages.context import Context
from cascade_rl.stages.frozen.reference import frozen_model
from cascade_rl.stages.frozen.teacher_server import ServerTeacher
from cascade_rl.training.packing import MicroBatch, TrainingSequence
from cascade_rl.training.reference import FrozenModel
from cascade_rl.types import CascadeError, Group, Prompt, Rollout, Score

SINGLE = ""
"""The domain of a stage that has one teacher for all of its rows."""


class Teachers:
    """A ``Reference`` that asks each sequence's own teacher, one teacher after another. A context manager."""

    def __init__(self, by_domain: Mapping[str, FrozenModel | ServerTeacher], names: Mapping[str, str]) -> None:
        """``by_domain``: under ``SINGLE`` the one for all, or one for each domain; ``names``: what each is, to say."""
        self._by_domain, self._names = dict(by_domain), dict(names)

    def __enter__(self) -> Teachers:
        return self

    def __exit__(self, *error: object) -> None:
        for teacher in self._by_domain.values():
            if isinstance(teacher, ServerTeacher):
                teacher.close()

    def of(self, domain: str) -> FrozenModel | ServerTeacher:
        """The teacher of prompts of ``domain``. Raises CascadeError where there is none."""
        if SINGLE in self._by_domain:
            return self._by_domain[SINGLE]
        if domain not in self._by_domain:
            known = ", ".join(self._by_domain)
            raise CascadeError(f"a prompt is of domain {domain!r}; the stage has teachers for: {known}")
        return self._by_domain[domain]

    def fill(self, sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
        """See ``Reference``; a sequence's ``label`` is its domain."""
        result = list(sequences)
        asked = [self.of(sequence.label) for sequence in sequences]
        for sequence, teacher in zip(sequences, asked, strict=True):
            if isinstance(teacher, ServerTeacher):  # answers come while the teachers of this process work
                teacher.begin(sequence.prompt_ids.tolist(), sequence.completion_ids.tolist())
        distinct = dict.fromkeys(self._by_domain.values())
        for teacher in sorted(distinct, key=lambda one: isinstance(one, ServerTeacher)):
            places = [place for place, one in enumerate(asked) if one is teacher]
            answers = teacher.fill([sequences[place] for place in places])
            for place, answer in zip(places, answers, strict=True):
                result[place] = answer
        return result

    def fill_row(self, row: MicroBatch) -> MicroBatch:
        """Its sequences are filled already."""
        return row

    def check(self, context: Context, tokenizer: Any, template: Template, longest: int) -> None:
        """Every teacher reads what a student with this ``tokenizer`` writes, ``longest`` tokens with its prompt. Raises
        CascadeError, both sides shown, on every rank. A collective call."""
        trouble = ""
        try:
            for domain, teacher in self._by_domain.items():
                self._check(domain, teacher, context, tokenizer, template, longest)
        except CascadeError as error:
            trouble = str(error)
        troubles = [trouble for trouble in context.ranks.gather(trouble) if trouble]
        if troubles:
            raise CascadeError(troubles[0])

    def _check(
        self,
        domain: str,
        teacher: FrozenModel | ServerTeacher,
        context: Context,
        tokenizer: Any,
        template: Template,
        longest: int,
    ) -> None:
        probes = {name: part["text"] for name, part in template.probe().items()}
        if isinstance(teacher, ServerTeacher):
            teacher.check(lambda text: _encode(tokenizer, text), list(probes.values()), longest)
            return
        checkpoint = self._names[domain]
        same_vocabulary(tokenizer, load_tokenizer(checkpoint, context.job.template)[0], checkpoint, probes)
        if teacher.vocabulary < len(tokenizer):
            raise CascadeError(
                f"the teacher {checkpoint} has {teacher.vocabulary} token ids, the student's tokenizer {len(tokenizer)}"
            )
        if teacher.positions is not None and longest > teacher.positions:
            raise CascadeError(
                f"the teacher {checkpoint} has {teacher.positions} positions, the longest rollout of this stage with "
                f"its prompt {longest}: lower rollout.max_new_tokens, or take a teacher with more (`rope_scaling`)"
            )


def same_vocabulary(student: Any, teacher: Any, name: str, probes: Mapping[str, str]) -> None:
    """Both tokenizers give each token the same id, and split ``probes`` (name -> text) alike.

    Raises CascadeError with both sides shown.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    different = sorted(token for token in {*ours, *theirs} if ours.get(token) != theirs.get(token))
    if different:
        token = different[0]
        raise CascadeError(
            f"the teacher {name} has another vocabulary than the student: {len(different)} tokens differ, the first "
            f"{token!r}\nstudent: {ours.get(token, 'not there')} (of {len(ours)})\n"
            f"teacher: {theirs.get(token, 'not there')} (of {len(theirs)})\n"
            "Log-probs of other tokens cannot be compared: a teacher must be of the student's family."
        )
    for probe, text in probes.items():
        if _encode(student, text) != _encode(teacher, text):
            raise CascadeError(
                f"the teacher {name} splits text otherwise than the student; conversation {probe!r}\n"
                f"student: {_encode(student, text)}\nteacher: {_encode(teacher, text)}"
            )


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@contextlib.contextmanager
def open_teachers(context: Context, config: DistillStage) -> Iterator[Teachers]:
    """The stage's teachers, loaded; one that several domains name is loaded once."""
    loaded: dict[TeacherConfig, FrozenModel | ServerTeacher] = {}
    with contextlib.ExitStack() as opened:
        for teacher in config.teachers_by_domain.values():
            if teacher not in loaded:
                loaded[teacher] = _load(teacher, context, config)
                if isinstance(one := loaded[teacher], ServerTeacher):
                    opened.callback(one.close)
        domains = config.teachers_by_domain
        yield Teachers(
            {domain: loaded[teacher] for domain, teacher in domains.items()},
            {domain: teacher.model or teacher.url or "" for domain, teacher in domains.items()},
        )


def _load(teacher: TeacherConfig, context: Context, config: DistillStage) -> FrozenModel | ServerTeacher:
    if teacher.url is not None:
        return ServerTeacher(teacher.url)
    assert teacher.model is not None
    return frozen_model(context, config, teacher.model)


class AskAhead:
    """A ``RolloutScorer`` of a stage without rewards: it gives no value, but shows each rollout to its teacher as soon
    as it ends, where the teacher is a server and can read it while others are still being generated."""

    combines: Combines = "never"

    def __init__(self, teachers: Teachers, template: Template) -> None:
        self._teachers, self._template = teachers, template

    def submit_whole(self, prompt: Prompt, rollout: Rollout, overlong: str = "score") -> Future[Score]:
        """A score of 0, at once."""
        teacher = self._teachers.of(prompt.domain)
        if isinstance(teacher, ServerTeacher) and rollout.token_ids:
            teacher.begin(self._template.prompt_ids(prompt.messages, prompt.thinking, prompt.tools), rollout.token_ids)
        settled: Future[Score] = Future()
        settled.set_result(Score(0.0))
        return settled

    def combine(self, groups: Sequence[Group], gather: Callable[[Any], list[Any]]) -> list[Group]:
        """The groups as they are."""
        return list(groups)

    def combine_alone(self, group: Group) -> Group:
        """The group as it is."""
        return group
