"""The reward-model stage: Bradley-Terry on pairs of answers (P1 section 5).

loss = - mean log sigmoid(r(x, chosen) - r(x, rejected)); r is one number, a linear head on the last hidden state of the
end-of-turn token of (question, answer), thinking left out.
"""

from __future__ import annotations

from cascade_rl.evals.registry import pairs_identity, resolve_pairs
from cascade_rl.recipe import RewardModelStage
from cascade_rl.stages.context import Context
from cascade_rl.stages.handover import load_tokenizer
from cascade_rl.stages.offline.batches import seed_of
from cascade_rl.stages.pairs import measure
from cascade_rl.stages.trl import reward_model as by_trl
from cascade_rl.store.results import read_result
from cascade_rl.training.reward_model import load_reward_model


def run(context: Context) -> None:
    """Train the stage of ``context.job``, measure its held-out pairs, publish its checkpoint."""
    config = context.job.stage_config()
    assert isinstance(config, RewardModelStage)
    by_trl.run(context, config)


def measure_missing(context: Context) -> None:
    """Measure the checkpoint of ``context.job`` on what its ``evaluate`` names and ``evals`` does not have yet."""
    job = context.job
    config = job.stage_config()
    assert isinstance(config, RewardModelStage)
    assert job.checkpoint is not None
    tokenizer, _ = load_tokenizer(job.checkpoint, job.template)
    model = load_reward_model(job.checkpoint, context.ranks.device, seed_of(context, config), tokenizer.pad_token_id)
    for benchmark in map(resolve_pairs, config.evaluate):
        result = read_result(job.place.evals / f"{benchmark.name}.json") or {}
        is_done = result.get("identity") == pairs_identity(benchmark, job.recipe_path)
        if not context.ranks.gather(is_done)[0]:  # the main rank's word, so that all agree
            measure(context, model, tokenizer, benchmark, by_trl.sequences_at_once(context, config))
