"""What can be found wrong with a stage that learns from pairs without a device: in its pairs, benchmarks, parent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade_rl.data.preferences import read_pairs, to_pairs
from cascade_rl.evals.registry import resolve_pairs
from cascade_rl.models import BUILT_IN
from cascade_rl.orchestrator.row_checks import Reader, row_fault
from cascade_rl.recipe import DataSource, LoadedRecipe, Problem, StageConfig
from cascade_rl.recipe.paths import resolve_path
from cascade_rl.recipe.problems import Keys
from cascade_rl.types import CascadeError


def check_pairs(loaded: LoadedRecipe, stage: StageConfig, keys: Keys) -> Iterator[Problem]:
    """Everything that can be told before the stage starts; of hub data sets nothing, since they are not fetched."""
    for index, source in enumerate(stage.data):
        yield from _check_pairs(loaded, source, (*keys, "data", index), to_pairs)
    yield from _check_evaluate(loaded, stage, (*keys, "evaluate"))
    yield from _check_template(loaded, stage, keys)
    folder = _parent_folder(loaded, stage)
    if folder is not None:
        at: Keys = (*keys, "init") if stage.init not in (None, "model") else ("model",)
        for message in (*head_problems(folder), *tokenizer_problems(folder)):
            yield Problem.at(loaded, at, message)
        scaling = stage.rope_scaling
        positions = scaling.positions if scaling else _json(folder / "config.json").get("max_position_embeddings")
        need = stage.longest_tokens()
        if at != ("model",) and positions and need.tokens > positions:  # else `check_context` reports it
            message = f"{need.tokens} is more than the {positions} positions of {stage.init}"
            yield Problem.at(loaded, (*keys, *need.keys), message)


def _check_pairs(loaded: LoadedRecipe, source: DataSource, keys: Keys, read: Reader) -> Iterator[Problem]:
    if fault := row_fault(loaded, source, read):
        yield Problem.at(loaded, keys, fault)


def _check_evaluate(loaded: LoadedRecipe, stage: StageConfig, keys: Keys) -> Iterator[Problem]:
    names: list[str] = []
    for index, entry in enumerate(stage.own_benchmarks):
        try:
            benchmark = resolve_pairs(entry)
        except CascadeError as error:
            yield Problem.at(loaded, (*keys, index), str(error))
            continue
        if benchmark.name in names:
            message = f"another benchmark of this stage is called {benchmark.name}; give this one a `name` of its own"
            yield Problem.at(loaded, (*keys, index), message)
        names.append(benchmark.name)
        for number, source in enumerate(benchmark.data):
            # A published benchmark may have rows without a better answer; they are left out when it is measured.
            yield from _check_pairs(loaded, source, (*keys, index, "data", number), read_pairs)


def _check_template(loaded: LoadedRecipe, stage: StageConfig, keys: Keys) -> Iterator[Problem]:
    """A model that this recipe trained or built keeps the template it was made with."""
    recipe = loaded.recipe
    names = [other.name for other in recipe.stages]
    ours = stage.init in names or (stage.init in (None, "model") and recipe.model in BUILT_IN)
    if ours and stage.own_template is not None and stage.own_template != recipe.template:
        message = "its parent was made with the recipe's template and would be read in another; leave this key out"
        yield Problem.at(loaded, (*keys, "template"), message)


def _parent_folder(loaded: LoadedRecipe, stage: StageConfig) -> Path | None:
    """The parent's checkpoint where that is a folder named in the recipe."""
    if stage.init in [other.name for other in loaded.recipe.stages]:
        return None
    name = loaded.recipe.model if stage.init in (None, "model") else stage.init
    folder = None if name in BUILT_IN else resolve_path(name, loaded.path)
    return folder if folder and (folder / "config.json").is_file() else None


def head_problems(folder: Path) -> Iterator[str]:
    """A parent with a classifier's head must have one label, as a reward model's has."""
    config = _json(folder / "config.json")
    heads = [name for name in config.get("architectures") or () if "SequenceClassification" in name]
    if not heads:
        return
    # transformers writes the labels only where there are not two, its default.
    labels = len(config.get("id2label") or {}) or config.get("num_labels") or 2
    if labels != 1:
        yield (
            f"{folder} is a classifier of {labels} labels ({heads[0]}); a reward model starts from a language model, "
            "or from a classifier of one label"
        )


def tokenizer_problems(folder: Path) -> Iterator[str]:
    """The tokenizer lies beside the weights, fits them, and is the one they were trained with."""
    tokenizer = _json(folder / "tokenizer.json")
    if not tokenizer:
        if not list(folder.glob("tokenizer*")) and not (folder / "vocab.json").is_file():
            yield f"{folder} has no tokenizer; put the model's own tokenizer files beside its weights"
        return
    vocabulary = _vocabulary(tokenizer)
    config = _json(folder / "config.json")
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if size and vocabulary and max(vocabulary.values()) >= size:
        yield (
            f"the tokenizer in {folder} has ids up to {max(vocabulary.values())}, but the model knows {size}: it is "
            "another model's tokenizer"
        )
    contract = _json(folder / "cascade_rl.json")
    if contract.get("vocabulary") not in (None, _vocabulary_hash(vocabulary)):
        yield f"{folder} was trained with another tokenizer than lies beside it; put its own tokenizer files back"


def _vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Token -> id of a ``tokenizer.json``."""
    entries = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(entries, list):  # unigram models list pieces with their scores
        entries = {piece[0]: index for index, piece in enumerate(entries)}
    return {**entries, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}}


def _vocabulary_hash(vocabulary: dict[str, int]) -> str:
    """As ``checkpoints.handover.contract_of`` writes it down."""
    return hashlib.sha256(repr(sorted(vocabulary.items())).encode()).hexdigest()[:16]


def _json(file: Path) -> dict[str, Any]:
    """What a file holds; nothing where it cannot be read, which is told when the model is loaded."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
