"""The prompts of an RL stage: rendered once in each mode they may be asked in, drawn step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from cascade_rl.data.exclusion import load_stage_rows
from cascade_rl.data.mixing import MixedSampler, Sampler, Share
from cascade_rl.data.order import EpochFilter, PromptSampler
from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import dataset_fingerprint, to_prompts
from cascade_rl.data.template import Template
from cascade_rl.recipe import DataSource, RolloutStage
from cascade_rl.stages.context import Context
from cascade_rl.types import CascadeError, Prompt

TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """One prompt of a step, with its position in the step's list over all ranks (so seeds do not depend on ranks)."""

    position: int
    index: int
    """Of the prompt among the stage's prompts."""
    prompt: Prompt
    prompt_token_ids: TokenIds


@dataclass(frozen=True)
class Prompts:
    """All prompts of a stage. ``ids``: token ids of each, by mode (thinking or not)."""

    prompts: Sequence[Prompt]
    ids: dict[bool, Sequence[TokenIds]]
    modes: str
    sources: Sequence[tuple[DataSource, Sequence[int]]]
    """Each source of the stage with the places of its prompts in ``prompts``."""

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt, in any mode it may be asked in."""
        return max(len(ids) for rendered in self.ids.values() for ids in rendered)

    @property
    def fingerprint(self) -> str:
        return dataset_fingerprint(self.prompts)

    def probes(self, count: int = 4) -> list[TokenIds]:
        """A few prompts to compare trainer and engine on."""
        return [ids for rendered in self.ids.values() for ids in rendered[:count]][:count]

    def slots(self, indices: Sequence[int], rank: int, world_size: int) -> list[Slot]:
        """This rank's share of a step that asks the prompts of ``indices``, each in its mode."""
        return [
            self.slot(position, index, len(indices))
            for position, index in enumerate(indices)
            if position % world_size == rank
        ]

    def slot(self, position: int, index: int, per_step: int) -> Slot:
        """The prompt of ``index`` in the mode of its place. Places from ``per_step`` on stand in for others of a step
        (``dynamic_sampling``): each block of so many is like a step."""
        prompt = self.prompts[index]
        if self.modes == "half":
            prompt = dataclasses.replace(prompt, thinking=self.mode_of(position, per_step))
        assert prompt.thinking is not None
        return Slot(position, index, prompt, self.ids[prompt.thinking][index])

    def mode_of(self, position: int, per_step: int) -> bool:
        """Whether a place is for an answer with thinking, under ``half``; elsewhere all places are alike."""
        # The order is shuffled, so the first half is any half; and every rank has its share of both modes.
        return self.modes != "half" or position % per_step < per_step // 2


def load_prompts(context: Context, config: RolloutStage, template: Template) -> Prompts:
    """The stage's prompts; those that are too long or cannot be rendered are left out, and the log says how many.

    Raises CascadeError when none is left.
    """
    parts = list(load_stage_rows(config, context.job.recipe_path, context.job.stages_data, context.say))
    refusals = Refusals()
    prompts: list[Prompt] = []
    rendered: list[dict[bool, TokenIds]] = []
    source_of: list[int] = []
    for number, part in enumerate(parts):
        for prompt in to_prompts(part.rows, part.source, part.numbers, refusals):
            try:
                settled = _in_mode(prompt, config.modes, template)
                rendered.append(_in_all_modes(settled, config.modes, template))
            except CascadeError as fault:
                refusals.add(CascadeError(f"row {prompt.id}: {fault}"))
                continue
            prompts.append(settled)
            source_of.append(number)
    total = sum(len(part.rows) for part in parts)
    refusals.report(context.say, total)
    refusals.refuse_all(total)
    limit = config.max_prompt_tokens
    kept = [i for i, ids in enumerate(rendered) if limit is None or max(map(len, ids.values())) <= limit]
    if len(kept) < len(prompts):
        context.say(f"{len(prompts) - len(kept)} of {len(prompts)} prompts are longer than {limit} tokens and left out")
    if not kept:
        raise CascadeError(f"stage {config.name} has no prompts left; raise max_prompt_tokens or check its data")
    modes = {mode for i in kept for mode in rendered[i]}
    return Prompts(
        [prompts[i] for i in kept],
        {mode: [rendered[i].get(mode, ()) for i in kept] for mode in sorted(modes, reverse=True)},
        config.modes,
        [
            (source, [place for place, i in enumerate(kept) if source_of[i] == number])
            for number, source in enumerate(config.data)
        ],
    )


def _in_all_modes(prompt: Prompt, modes: str, template: Template) -> dict[bool, TokenIds]:
    """Token ids of a prompt in each mode that it may be asked in."""
    asked = (True, False) if modes == "half" else (bool(prompt.thinking),)
    return {mode: tuple(template.prompt_ids(prompt.messages, mode, prompt.tools)) for mode in asked}


def _in_mode(prompt: Prompt, modes: str, template: Template) -> Prompt:
    """With its mode settled; under ``half`` each step settles it anew."""
    if modes == "rows":
        return dataclasses.replace(prompt, thinking=template.thinks(prompt.thinking))
    return dataclasses.replace(prompt, thinking=modes != "instruct")


def make_sampler(prompts: Prompts, seed: int, leaving_out: EpochFilter | None = None) -> Sampler:
    """Draws the stage's prompts in the order of ``seed``; from sources with weights, by their weights.

    Raises CascadeError for a source with a weight of which no prompt is left.
    """
    if all(source.weight is None for source, _ in prompts.sources):
        return PromptSampler(prompts.fingerprint, len(prompts.prompts), seed, leaving_out)
    shares = [Share(source.source, source.weight or 0.0, places) for source, places in prompts.sources]
    return MixedSampler(prompts.fingerprint, shares, seed, leaving_out)
