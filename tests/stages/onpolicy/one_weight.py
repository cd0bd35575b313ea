"""A policy of one weight, an engine that follows it, and a run of both."""

from types import SimpleNamespace

import torch

from cascade_rl.training.state import manifest_of
from cascade_rl.types import Rollout, Stop
from tests.builders import run_of, scores_of


class OneWeight:
    """A policy of a single weight, which is minus the log-prob of every token."""

    def __init__(self, weight):
        self.weight = torch.tensor([weight])

    def named_weights(self, bucket_mib):
        yield "w", self.weight

    def score(self, row):
        return scores_of(-self.weight.expand(len(row.targets)))

    state_bytes = 4

    def part(self, memory):
        weight = self.weight.clone()

        def write(folder):
            torch.save(weight, folder / "weight.pt")
            return manifest_of(folder, [folder / "weight.pt"])

        return write

    def load(self, folder):
        self.weight = torch.load(folder / "weight.pt")


class Follower:
    """An engine that serves what it was sent last, but does not hear the first ``deaf`` times."""

    logprob_temperature = 1.0

    def __init__(self, weight=9.0, deaf=0):
        self.weight, self.deaf, self.version, self.loads = weight, deaf, -1, 0

    def load_weights(self, weights, version):
        ((_, sent),) = weights
        self.loads += 1
        if self.loads > self.deaf:
            self.weight = float(sent)
        self.version = version

    def generate(self, requests):
        for request in requests:
            logprobs = (-self.weight, -self.weight)
            yield Rollout(request.prompt_id, request.index, (5, 6), logprobs, "", Stop.EOS, self.version)


def make_run(folder, policy, engine):
    begun = []
    return run_of(
        folder, policy=policy, engine=engine, prompts=SimpleNamespace(probes=lambda count: [(1, 2, 3)] * count),
        journal=SimpleNamespace(begun=begun, begin=lambda step, _: begun.append(step), drop_before=lambda step: None),
    )  # fmt: skip
