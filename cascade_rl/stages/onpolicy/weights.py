"""The trainer's weights in the engine, and the proof that the engine serves them."""

from __future__ import annotations

from cascade_rl.stages.checkpoints.handover import probe_logprobs
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.training.fingerprint import Fingerprint
from cascade_rl.types import CascadeError


def check_engine(run: RolloutRun) -> None:
    """Fill the engine from the trainer before the first step, and compare their log-probs of what it samples.

    Raises CascadeError where they differ. A collective call.
    """
    run.engine.load_weights(run.policy.named_weights(run.config.engine.sync_bucket_mib), version=0)
    gap = probe(run, prompts=4, tokens=8)
    if not gap <= 10 * run.max_gap:
        raise CascadeError(
            f"transformers and vLLM give different log-probs for checkpoint {run.context.job.checkpoint}: up to "
            f"{gap:.3g} per token on a probe (bound {10 * run.max_gap:g}). Its files do not mean the same to both; "
            "training on it would learn noise."
        )
    run.context.say(f"trainer and engine agree on the inherited weights (largest log-prob gap {gap:.1e})")


def sync(run: RolloutRun, version: int) -> None:
    """Load the trainer's weights into the engine as ``version``, and probe that it serves them.

    Engines of other frameworks have gone on with stale weights in silence (docs/pitfalls.md, 15). Raises CascadeError
    when the probe fails twice. A collective call.
    """
    for attempt in (1, 2):
        with run.trace.span("sync"):
            run.reporter.finished(f"weights of step {version} to the engine")
            sent = Fingerprint()
            weights = run.policy.named_weights(run.config.engine.sync_bucket_mib)
            run.engine.load_weights(sent.of(weights), version=version)
            gap = probe(run, prompts=1, tokens=2)
        if gap <= 10 * run.max_gap:
            run.journal.begin(version, sent.value)
            return
        what = f"after the weights of step {version} were loaded, engine and trainer differ by {gap:.3g} per token"
        run.context.say(f"WARNING: {what} on a probe (bound {10 * run.max_gap:g}); attempt {attempt} of 2")
    raise CascadeError(
        f"{what} on a probe, twice in a row (bound {10 * run.max_gap:g}). The engine says that it serves version "
        f"{run.engine.version}, the trainer is at {version}: it does not serve the weights that it was given. The last "
        "saved state is intact."
    )


def probe(run: RolloutRun, prompts: int, tokens: int) -> float:
    """The largest log-prob gap over all ranks on a few fresh tokens. A collective call."""
    gap = probe_logprobs(
        run.policy,
        run.engine,
        run.prompts.probes(prompts),
        tokens=tokens,
        sampling=run.config.rollout,
        engine_temperature=run.engine.logprob_temperature,
    )
    return run.context.ranks.max(gap)
