"""Benchmarks of a recipe on a stage's weights: as a job of its own after each stage, and live within RL stages."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import load_rows, to_prompts
from cascade_rl.data.template import Template
from cascade_rl.evals.runner import Question, Sample, aggregate, append_sample, measure, read_samples
from cascade_rl.json_lines import line_of
from cascade_rl.recipe import BenchmarkConfig, SamplingConfig
from cascade_rl.rewarding import Scorer
from cascade_rl.rollout.engine import Engine
from cascade_rl.stages.checkpoints.handover import load_tokenizer
from cascade_rl.stages.checkpoints.rope import stretched
from cascade_rl.stages.context import Context
from cascade_rl.stages.fitting import refuse_unbound
from cascade_rl.stages.unchanged import refuse_changes
from cascade_rl.store import PlannedBenchmark
from cascade_rl.store.files import write_json, write_text
from cascade_rl.types import CascadeError, Preempted, Prompt


class Benchmarks:
    """The job's benchmarks, rendered once, with a scorer for each reward. Rows are shared out over ranks."""

    def __init__(self, context: Context, template: Template, search: Sequence[Path], live: bool) -> None:
        self._context = context
        self._template = template
        self._search = search
        self._scorers: dict[str, Scorer] = {}
        self._closing = contextlib.ExitStack()
        wanted = context.job.benchmarks if not live or context.job.evaluate_every else []
        self._questions = {planned.config.name: self._render(planned) for planned in wanted}
        self.planned = list(wanted)

    def __enter__(self) -> Benchmarks:
        """Raises CascadeError where a reward needs a column that none of its benchmark's rows has."""
        for planned in self.planned:
            config = planned.config
            prompts = (question.prompt for question in self._questions[config.name])
            refuse_unbound(f"benchmark {config.name}", config.reward, prompts, self._search)
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and completion together."""
        return max(
            (
                len(question.token_ids) + planned.config.sampling.max_new_tokens
                for planned in self.planned
                for question in self._questions[planned.config.name]
            ),
            default=0,
        )

    def values(self, engine: Engine) -> dict[str, float]:
        """``eval/<benchmark>`` for each, over all ranks, on what the engine serves now. A collective call."""
        values = {}
        for planned in self.planned:
            samples = measure(
                engine,
                self._scorer(planned),
                planned.config,
                self._share(planned),
                seed=self._context.job.seed,
                should_stop=lambda: self._context.stop.is_set,
            )
            everyone = [s for share in self._context.ranks.gather(samples) for s in share]
            values[f"eval/{planned.config.name}"] = aggregate(everyone, planned.config)["value"]
        return values

    def write(self, engine: Engine, planned: PlannedBenchmark) -> dict[str, Any]:
        """Measure one benchmark and publish its JSON; goes on from samples an earlier attempt wrote."""
        context, config = self._context, planned.config
        ranks, started = context.ranks, time.monotonic()
        folder = context.job.stage_folder.evals
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{planned.file_stem}.samples-{ranks.rank}-of-{ranks.world_size}.jsonl"
        whole = f"{planned.file_stem}.samples.jsonl"
        mine = {question.row for question in self._share(planned)}
        # Of all ranks, since there may have been another number of them; and of a result that was damaged later.
        parts = [*sorted(folder.glob(f"{planned.file_stem}.samples-*-of-*.jsonl")), folder / whole]
        before = [sample for part in parts for sample in read_samples(part) if sample.row in mine]
        ranks.barrier()
        write_text(path, "".join(line_of(vars(s)) for s in before))
        with open(path, "a", encoding="utf-8") as file:
            samples = measure(
                engine,
                self._scorer(planned),
                config,
                self._share(planned),
                seed=context.job.seed,
                done=before,
                on_sample=lambda sample: append_sample(file, sample),
                should_stop=lambda: context.stop.is_set,
            )
        context.stop_if_asked(lambda: None)
        everyone = [s for share in ranks.gather(samples) for s in share]
        result = aggregate(everyone, config)
        self._refuse_errors(everyone, planned)
        result |= {"identity": planned.identity, "seconds": round(time.monotonic() - started, 1)}
        if ranks.is_main:
            lines = [line_of(vars(s)) for s in sorted(everyone, key=lambda s: (s.row, s.index))]
            write_text(folder / whole, "".join(lines))
            write_json(folder / f"{planned.file_stem}.json", result)
            for part in folder.glob(f"{planned.file_stem}.samples-*-of-*.jsonl"):
                part.unlink()
        ranks.barrier()
        return result

    def _refuse_errors(self, samples: Sequence[Sample], planned: PlannedBenchmark) -> None:
        errors = [s.error for s in samples if s.error is not None]
        limit = planned.config.reward.max_error_rate
        if samples and len(errors) / len(samples) > limit:
            raise CascadeError(
                f"benchmark {planned.config.name}: its grader failed on {len(errors)} of {len(samples)} samples, "
                f"above max_error_rate {limit:g}. The first one:\n{errors[0]}"
            )

    def _render(self, planned: PlannedBenchmark) -> list[Question]:
        """The benchmark's rows that can be asked; the log names those that cannot. Raises CascadeError for none."""
        config = planned.config
        refusals, questions, number = Refusals(), [], -1
        for source in config.data:
            for index, row in enumerate(load_rows(source, self._context.job.recipe_path)):
                number += 1  # refused rows have a number too, so that the others keep theirs
                for prompt in to_prompts([row], source, [index], refusals):
                    try:
                        questions.append(Question(number, prompt, self._ids(prompt, config)))
                    except CascadeError as fault:
                        refusals.add(CascadeError(f"row {prompt.id}: {fault}"))
        refusals.report(lambda text: self._context.say(f"{config.name}: {text}"), number + 1)
        refusals.refuse_all(number + 1)
        return questions

    def _ids(self, prompt: Prompt, config: BenchmarkConfig) -> tuple[int, ...]:
        thinking = prompt.thinking if config.mode is None else config.mode == "thinking"
        return tuple(self._template.prompt_ids(prompt.messages, thinking, prompt.tools))

    def _share(self, planned: PlannedBenchmark) -> list[Question]:
        ranks = self._context.ranks
        return self._questions[planned.config.name][ranks.rank :: ranks.world_size]

    def _scorer(self, planned: PlannedBenchmark) -> Scorer:
        reward = planned.config.reward
        key = reward.model_dump_json()
        if key not in self._scorers:
            workers = self._context.reward_workers(reward)
            scorer = Scorer(reward, self._search, workers, self._template.thinks_by_default, watched=True)
            self._scorers[key] = self._closing.enter_context(scorer)
        return self._scorers[key]


def run(context: Context) -> None:
    """Measure the checkpoint of ``context.job`` on the benchmarks it names: an engine for each context length."""
    job = context.job
    assert job.checkpoint is not None
    search = [job.recipe_path.resolve().parent, Path.cwd()]
    # Those that take the checkpoint as it is come first, and share an engine.
    scalings = sorted({b.config.rope_scaling for b in job.benchmarks}, key=lambda s: (s is not None, str(s)))
    for number, scaling in enumerate(scalings):
        part = job.model_copy(update={"benchmarks": [b for b in job.benchmarks if b.config.rope_scaling == scaling]})
        if scaling is not None:
            folder = job.folder / f".stretched-{number}"
            if context.ranks.is_main:
                stretched(job.checkpoint, scaling, folder)
            context.ranks.barrier()
            part = part.model_copy(update={"checkpoint": str(folder)})
        _measure_all(dataclasses.replace(context, job=part), search)


def _measure_all(context: Context, search: Sequence[Path]) -> None:
    job = context.job
    assert job.checkpoint is not None
    tokenizer, template = load_tokenizer(job.checkpoint, job.template)
    with Benchmarks(context, template, search, live=False) as benchmarks:
        refuse_changes(job, context.ranks)  # the rows have been read by now
        engine = context.engine(job.checkpoint, tokenizer, job.evaluate_engine, SamplingConfig(), benchmarks.longest)
        for planned in benchmarks.planned:
            if context.stop.is_set:
                raise Preempted
            result = benchmarks.write(engine, planned)
            low, high = result["ci95"]
            context.say(
                f"{planned.config.name}: {100 * result['value']:.1f}% [{100 * low:.1f}, {100 * high:.1f}]  "
                f"({result['rows']} rows x {result['samples']}, {result['seconds']:.0f} s)"
            )
        engine.close()
