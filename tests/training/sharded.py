"""One rank of a group that trains a tiny policy; what it finds goes to a file. Started by ``launch``."""

from __future__ import annotations

import dataclasses
import errno
import functools
import itertools
import json
import os
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import torch

from cascade_rl.algorithms.losses import policy_gradient
from cascade_rl.recipe import LoraConfig, SftStage, ShardingConfig
from cascade_rl.recipe.launching import Launch
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.stages.offline.method import OfflineMethod
from cascade_rl.stages.pair_method import PairMethod
from cascade_rl.stages.pairs import TokenPair
from cascade_rl.stages.saving import Saver
from cascade_rl.stages.sft import Examples, Sft
from cascade_rl.store.files import read_json
from cascade_rl.training import state as states
from cascade_rl.training.balance import balanced_rows
from cascade_rl.training.lora import adapter_weights, for_checkpoint
from cascade_rl.training.packing import pack, training_sequence
from cascade_rl.training.policy import NonFinite, Policy
from cascade_rl.training.ranks import Ranks, join, leave
from cascade_rl.training.reference import FrozenModel, WithoutAdapters
from cascade_rl.training.scoring import TrainedRewardModel
from cascade_rl.training.startup import check_running
from cascade_rl.training.state import newest_valid, record_of
from cascade_rl.training.trained_model import TrainedModel
from cascade_rl.training.update import Update
from cascade_rl.types import CascadeError
from tests import forked


def launch(task: str, folder: Path, world: int, **arguments) -> dict:
    """Run ``task`` (a function of this module) on ``world`` ranks; returns what the main rank's gave."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = folder / f"{task}-{world}.json"
    order = json.dumps({"task": task, "folder": str(folder), "out": str(out), "arguments": arguments})
    shared = {**os.environ, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    codes, outputs = forked.run(
        "tests.training.sharded", [{**shared, "RANK": str(rank)} for rank in range(world)], [order]
    )
    assert codes == [0] * world, "\n".join(output[-4000:] for output in outputs)
    return json.loads(out.read_text())


def policy_of(
    folder: Path,
    ranks: Ranks,
    dtype: str = "float32",
    checkpointing: bool = False,
    lora: dict | None = None,
    learning_rate: float = 1e-3,
    **sharding,
) -> Policy:
    return Policy(
        folder / "model", OptimizerConfig(learning_rate=learning_rate, grad_clip=0.5, weight_decay=0.1, warmup_steps=2),
        ranks=ranks, dtype=dtype, total_steps=9, gradient_checkpointing=checkpointing, chunk_tokens=16,
        sharding=ShardingConfig(**sharding), lora=None if lora is None else LoraConfig(**lora), seed=4,
    )  # fmt: skip


def sequences(count: int = 8, seed: int = 1) -> list:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        ids = torch.randint(20, 300, (3 + 5 * index + 2,), generator=generator).tolist()
        made.append(training_sequence(ids[:3], ids[3:], (-5.0,) * (len(ids) - 3), (-1) ** index * 0.7))
    return made


def accumulate(policy: Policy, given: list):
    """Each rank hands in some, and trains on its share."""
    update = Update(policy, lambda row, part, logprobs, _: policy_gradient(logprobs, row.advantages[part]),
                    engine_temperature=1.0)  # fmt: skip
    update.add(policy.rows(given[policy.ranks.rank :: policy.ranks.world_size], 60))
    return update.stats()


def train(policy: Policy, steps: int, first: int = 0) -> list[tuple[float, float]]:
    """(loss, norm) of each step."""
    found = []
    for step in range(first, first + steps):
        policy.begin_step(step)
        stats = accumulate(policy, sequences(seed=step))
        found.append((stats.loss, policy.step(stats.denominator)))
    return found


def same_update(folder: Path, ranks: Ranks) -> dict:
    """Three updates on sequences that the ranks share out, then one without any, which moves nothing. The weights go to
    ``folder``."""
    policy = Policy(
        folder / "model", OptimizerConfig(learning_rate=1e-3, grad_clip=0.5), ranks=ranks, dtype="float32",
        total_steps=9, gradient_checkpointing=False, chunk_tokens=16,
    )  # fmt: skip

    def accumulated(mine: list):
        update = Update(policy, lambda row, part, logprobs, _: policy_gradient(logprobs, row.advantages[part]),
                        engine_temperature=1.0)  # fmt: skip
        update.add(pack(mine, 40))
        return update.stats()

    for _ in range(3):
        stats = accumulated(sequences(7)[ranks.rank :: ranks.world_size])
        norm = policy.step(stats.denominator)
    assert len(set(ranks.gather(stats.worst))) == 1  # whichever rank had that token
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    nothing = accumulated([])  # all rollouts filtered out
    assert nothing.trained_tokens == 0
    assert policy.step(nothing.denominator) == 0.0
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.model.state_dict().items())
    if ranks.is_main:
        torch.save(policy.model.state_dict(), folder / f"same-update-{ranks.world_size}.pt")
    return {"loss": stats.loss, "tokens": stats.trained_tokens, "norm": norm}


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.named_weights(bucket_mib=1)}


def distance(a: dict, b: dict) -> float:
    """Largest difference relative to the size of the whole; infinite where names differ."""
    if set(a) != set(b):
        return float("inf")
    a, b = ({name: t.detach().cpu().double() for name, t in those.items()} for those in (a, b))
    size = sum(float(t.pow(2).sum()) for t in a.values()) ** 0.5
    return sum(float((a[n] - b[n]).pow(2).sum()) for n in a) ** 0.5 / size


def against_ddp(folder: Path, ranks: Ranks, how: dict, dtype: str = "float32", checkpointing: bool = False) -> dict:
    """Everything a sharded policy must do as a replicated one does."""
    plain = policy_of(folder, ranks, dtype, checkpointing, how.get("lora"), strategy="ddp")
    policy = policy_of(folder, ranks, dtype, checkpointing, **how)
    found: dict = {"marks": policy.sharding.marks(), "lockstep": policy.needs_lockstep}
    row = dataclasses.replace(pack(sequences(), 1)[3], temperature=0.8)
    gap = plain.score(row).logprobs - policy.score(row).logprobs
    found["score_gap"] = float(gap.abs().max())
    found["start"] = distance(weights(plain), weights(policy))  # after a forward pass that no backward pass follows
    found["ddp"], found["own"] = train(plain, 3), train(policy, 3)
    found["weights"] = distance(weights(plain), weights(policy))
    whole = policy.whole_state_dict(torch.float32)
    if ranks.is_main:
        plainly = dict(for_checkpoint(plain.sharding.weights(1, None), plain.lora))
        found["checkpoint"] = distance(plainly, whole)

    before = weights(policy)
    found["nonfinite"] = refuses_what_is_not_finite(policy)
    kept = weights(policy)
    found["nothing"] = policy.step(1.0)
    found["kept"] = max(distance(before, kept), distance(before, weights(policy)))
    accumulate(policy, sequences(seed=9))
    policy.discard()
    found["ddp_after"], found["own_after"] = train(plain, 1, 3), train(policy, 1, 3)
    found["after"] = distance(weights(plain), weights(policy))
    return found


def refuses_what_is_not_finite(policy: Policy) -> list[bool]:
    """Whether each rank raised, when one rank alone has a gradient that is not a number."""
    bad = float("nan") if policy.ranks.is_main else 0.0
    for row in pack(sequences(2)[policy.ranks.rank :: policy.ranks.world_size], 1):
        policy.backward(row, lambda part, logprobs, entropy, raw: logprobs * bad)
    try:
        policy.step(1.0)
        raised = False
    except NonFinite:
        raised = True
    return policy.ranks.gather(raised)


def save(folder: Path, ranks: Ranks, how: dict) -> dict:
    """A state after two steps; then what one more gives, and what it gives after loading."""
    state = folder / f"state-{how['strategy']}-{ranks.world_size}"
    if ranks.is_main:
        state.mkdir()
    ranks.barrier()
    policy = policy_of(folder, ranks, **how)
    train(policy, 2)
    policy.save(state)
    policy.save_optimizer(state / "optimizer" if ranks.is_main else None)
    ranks.barrier()
    saver, let = Saver(folder / f"background-{state.name}", ranks, print, lambda: 0.0), threading.Event()
    saver.take(2, SlowSource(policy, let))
    whole = train(policy, 2, 2)
    early = list((folder / f"background-{state.name}").glob("step-*"))
    let.set()
    saver.settle()
    found = newest_valid(folder / f"background-{state.name}", read_json, print, ranks)
    assert found is not None
    background = not early and all(ranks.gather(same_states(state, found[1])))
    policy.load(state)  # back again, in a policy that has gathered and trained
    rewound = train(policy, 2, 2)
    again = policy_of(folder, ranks, **how)
    again.load(state)
    resumed = train(again, 2, 2)
    ours, theirs = weights(policy), weights(again)
    same = all(ranks.gather(all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())))
    if ranks.is_main:
        torch.save(ours, folder / f"{state.name}.pt")
    moments = torch.load(state / "optimizer") if ranks.is_main else {}
    size = sum(float(entry["exp_avg"].double().norm()) for entry in moments.values())
    return {
        "whole": whole, "resumed": resumed, "rewound": rewound, "bitwise": same, "state": str(state), "moments": size,
        "background": background,
    }  # fmt: skip


class SlowSource:
    """A policy whose files are written once they are ``let``."""

    def __init__(self, policy: Policy, let: threading.Event) -> None:
        self._policy, self._let, self.state_bytes = policy, let, policy.state_bytes

    def part(self, memory: Any) -> Any:
        write = self._policy.part(memory)

        def later(folder: Path) -> Any:
            assert self._let.wait(60)
            return write(folder)

        return later


def same_states(one: Path, other: Path) -> bool:
    """Whether two folders hold the same numbers of the same parameters, bit for bit."""
    entries: list[dict] = [{}, {}]
    for found, folder in zip(entries, (one, other), strict=True):
        for path in sorted(folder.glob("policy-*.pt")):
            for name, entry in torch.load(path).items():
                for key, value in entry.items():
                    found[path.name, name, key] = value
    ours, theirs = entries
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[key]) if isinstance(value, torch.Tensor) else value == theirs[key]
        for key, value in ours.items()
    )


def load(folder: Path, ranks: Ranks, how: dict, state: str) -> dict:
    """Two more steps from a state that others wrote, and a first one with its moments inherited."""
    policy = policy_of(folder, ranks, **how)
    policy.load(Path(state))
    losses = train(policy, 2, 2)
    expected = torch.load(f"{state}.pt")
    heir = policy_of(folder, ranks, **how)
    heir.inherit_optimizer(Path(state) / "optimizer")
    heir.save_optimizer(folder / "inherited" if ranks.is_main else None)
    moments = torch.load(folder / "inherited") if ranks.is_main else {}
    inherited = {
        "moments": sum(float(entry["exp_avg"].double().norm()) for entry in moments.values()),
        "learning_rate": heir.learning_rate,
    }
    return {"losses": losses, "distance": distance(expected, weights(policy)), "inherited": inherited}


def adapters(folder: Path, ranks: Ranks, how: dict) -> dict:
    """Low-rank adapters, spread out and not: the same steps, weights, reference, and states that go on."""
    state = folder / f"adapters-{how['strategy']}-{how.get('sequence_parallel', 1)}"
    if ranks.is_main:
        state.mkdir()
    ranks.barrier()
    lora = {"rank": 4, "alpha": 8.0}
    plain = policy_of(folder, ranks, lora=lora, strategy="ddp")
    policy = policy_of(folder, ranks, lora=lora, **how)
    start = weights(policy)
    found: dict = {"start": distance(weights(plain), start), "ddp": train(plain, 3), "own": train(policy, 3)}
    found["weights"] = distance(weights(plain), weights(policy))
    found["learned"] = distance(start, weights(policy))
    whole, alone = policy.whole_state_dict(torch.float32), policy.adapter_state_dict()
    found["lost"] = policy.lost_in_rounding(torch.bfloat16)
    if ranks.is_main:
        found["checkpoint"] = distance(plain.whole_state_dict(torch.float32), whole)
        found["adapters"] = distance(dict(adapter_weights(plain.model.named_parameters())), alone)
    else:
        plain.whole_state_dict(torch.float32)
    reference = WithoutAdapters(policy)
    base = policy_of(folder, ranks, strategy="ddp")
    frozen = FrozenModel(folder / "model", device=ranks.device, dtype="float32", chunk_tokens=16, row_tokens=60)
    gap = 0.0
    given = [dataclasses.replace(s, temperature=0.8) for s in sequences()[ranks.rank :: ranks.world_size]]
    mine = frozen.fill(given)
    for row in policy.rows(mine, 60):
        filled = reference.fill_row(row)
        if len(row.targets):
            gap = max(gap, float((filled.reference_logprobs - row.reference_logprobs).abs().max()))
    found["reference"] = ranks.max(gap)
    found["base"] = distance(start, weights(base))
    policy.save(state)
    ranks.barrier()
    again = policy_of(folder, ranks, lora=lora, **how)
    again.load(state)
    ours, theirs = train(policy, 1, 3), train(again, 1, 3)
    kept = weights(again)
    found["resumed"] = ours == theirs and all(torch.equal(w, kept[name]) for name, w in weights(policy).items())
    return found


def start_check(folder: Path, ranks: Ranks) -> dict:
    """What the check at the start says of an FSDP2 policy launched in three ways."""
    how = ShardingConfig(strategy="fsdp2")
    policy = policy_of(folder, ranks, strategy="fsdp2")

    def said(launched: Launch) -> str:
        try:
            check_running(policy, launched, how)
        except CascadeError as error:
            return str(error)
        return ""

    return {
        "fsdp2": said(Launch(strategy="fsdp2", processes=2)),
        "other": said(Launch(strategy="zero3", processes=2)),
        "fewer": said(Launch(strategy="fsdp2", processes=4)),
    }


def refused(folder: Path, ranks: Ranks, how: dict) -> dict:
    try:
        policy_of(folder, ranks, **how)
    except CascadeError as error:
        return {"message": str(error)}
    return {"message": ""}


def shares(folder: Path, ranks: Ranks, count: int) -> dict:
    """What ranks get out of the same sequences, handed in in two ways: every second, and all by the last rank."""
    given = sequences(count)
    dealt = given[ranks.rank :: ranks.world_size]
    at_once = given if ranks.rank == ranks.world_size - 1 else []
    rows = [balanced_rows(ranks, those, lambda length: length**1.5, 60) for those in (dealt, at_once)]
    ids = [[row.input_ids.tolist() for row in those] for those in rows]
    gathered = [ranks.gather([token for row in those for token in row[0]]) for those in ids]
    return {
        "expected": sorted(token for s in given for token in (*s.prompt_ids.tolist(), *s.completion_ids.tolist())),
        "tokens": [sorted(t for part in parts for t in part if t) for parts in gathered],  # 0 is in empty rows alone
        "equal_rows": [len(set(ranks.gather(len(those)))) == 1 for those in rows],
        "independent": all(ranks.gather(ids[0] == ids[1])),
    }


def shares_together(folder: Path, ranks: Ranks, count: int) -> dict:
    given = sequences(count)
    rows = balanced_rows(ranks, given[ranks.rank :: ranks.world_size], lambda length: length, 60, together=2)
    shares = ranks.gather([(row.cu_seq_lens.tolist(), row.input_ids[0].tolist()) for row in rows])
    same_borders = len({str([borders for borders, _ in share]) for share in shares}) == 1
    # Put together again, the parts are rows of whole sequences: all of them, once.
    whole = [list(itertools.chain(*(part for _, part in parts))) for parts in zip(*shares, strict=True)]
    found = sorted(
        ids[start:end]
        for (borders, _), ids in zip(shares[0], whole, strict=True)
        for start, end in itertools.pairwise(borders)
    )
    expected = sorted([*s.prompt_ids.tolist(), *s.completion_ids.tolist()] for s in given)
    return {"same": same_borders and [ids for ids in found if any(ids)] == expected}


def full_disk(folder: Path, ranks: Ranks) -> dict:
    """A state that one rank cannot write its part of, and one that all can."""
    place = folder / "state"
    saver = Saver(place, ranks, lambda text: None, lambda: 0.0)

    def write(folder: Path, full: bool) -> states.Manifest:
        if full and ranks.rank == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        (folder / f"rank-{ranks.rank}.txt").write_text("part")
        return states.manifest_of(folder, [folder / f"rank-{ranks.rank}.txt"])

    full = ranks.gather(saver.save(2, lambda there: write(there, True)))
    left = [path.name for path in place.iterdir()]
    good = ranks.gather(saver.save(2, lambda there: write(there, False)))
    manifest = json.loads((place / "step-000002" / states.MANIFEST).read_text())
    whole = manifest == states.manifest_of(place / "step-000002")
    assert newest_valid(place, read_json, print, ranks) == (2, place / "step-000002")
    if ranks.is_main:
        (place / "step-000002" / "rank-1.txt").write_text("port")  # as long, and for rank 1 to read
    ranks.barrier()
    try:
        newest_valid(place, read_json, print, ranks)
        damaged = "taken"
    except CascadeError:
        damaged = "refused"
    return {
        "full": full, "left": left, "good": good, "manifest": sorted(manifest), "whole": whole,
        "damaged": ranks.gather(damaged),
    }  # fmt: skip


def slow_rank(folder: Path, ranks: Ranks) -> dict:
    """States of which rank 1 writes its part last, does not write it in time, and cannot even leave a note."""
    from cascade_rl.stages import state_writer

    place, said, let = folder / "slow", [], threading.Event()
    saver = Saver(place, ranks, said.append, lambda: 0.0)

    def part(there: Path) -> dict:
        assert ranks.is_main or let.wait(60)
        (there / f"rank-{ranks.rank}.txt").write_text("part")
        return {f"rank-{ranks.rank}.txt": record_of(there / f"rank-{ranks.rank}.txt")}

    def broken(there: Path) -> dict:
        if ranks.is_main:
            return part(there)
        while not (there / "rank-0.txt").exists():
            time.sleep(0.01)
        shutil.rmtree(there)  # nothing can be written there any more, no note either
        raise OSError(errno.ENOSPC, "No space left on device")

    source: Any = SimpleNamespace(state_bytes=0, part=lambda memory: part)
    saver.take(1, source)
    early = ranks.gather(saver.due(1, 1, 1e9))
    let.set()
    saver.settle()
    found: dict = {"early": early, "manifest": sorted(read_json(place / "step-000001" / states.MANIFEST))}
    let.clear()
    state_writer.PATIENCE_S = 0.0
    saver.take(2, source)
    saver.settle()
    saver.take(3, source)  # while rank 1 still writes its part of the one before
    let.set()
    saver.wait()
    state_writer.PATIENCE_S = 1800.0
    ranks.barrier()
    saver.take(4, SimpleNamespace(state_bytes=0, part=lambda memory: broken))  # type: ignore[arg-type]
    saver.settle()
    return found | {"said": said, "left": sorted(path.name for path in place.iterdir())}


def learn(folder: Path, ranks: Ranks, prompts: int, updates: int) -> dict:
    """Two steps of several updates each, from groups that ranks deal out as a run does. Returns where the weights are,
    and what was measured."""
    from cascade_rl.recipe import RlStage
    from cascade_rl.stages.onpolicy.collect import Collected
    from cascade_rl.stages.onpolicy.learner import Learner
    from cascade_rl.stages.rl import Grpo
    from cascade_rl.types import Group, Prompt, Rollout, Score, Stop
    from tests.builders import run_of

    config = RlStage.model_validate(
        {"name": "m", "data": [{"source": "x"}], "reward": {"use": "a:b"}, "learning_rate": 1e-3, "steps": 2,
         "prompts_per_step": prompts, "updates_per_batch": updates, "loss": {"clip_high": 0.2, "clip_low": 0.2}}
    )  # fmt: skip
    policy = policy_of(folder, ranks, strategy="ddp")
    context = SimpleNamespace(ranks=ranks, say=lambda text: None)
    run = run_of(config=config, policy=policy, context=context, max_gap=1e9)

    def group(position: int) -> Group:
        made = sequences(2, seed=position)
        rollouts = [
            Rollout(str(position), index, tuple(s.completion_ids.tolist()), (-5.7,) * len(s.completion_ids), "",
                    Stop.EOS, 0)
            for index, s in enumerate(made)
        ]  # fmt: skip
        scores = [Score(0.0), Score(float(position != 3))]  # the fourth prompt's group is flat
        return Group(Prompt(str(position), ()), tuple(made[0].prompt_ids.tolist()), rollouts, scores)

    found = []
    for step in range(2):
        policy.begin_step(step)
        mine = list(range(prompts))[ranks.rank :: ranks.world_size]
        learned = Learner(run, Grpo(config)).learn(Collected([group(position) for position in mine], mine), step)
        assert learned is not None
        found.append({key: learned.metrics[key] for key in ("loss", "grad_norm", "tokens/trained", "learning_rate")})
    if ranks.is_main:
        torch.save(weights(policy), folder / f"learned-{ranks.world_size}-{prompts}-{updates}.pt")
    return {"metrics": found}


def scored_model(
    folder: Path, ranks: Ranks, dtype: str = "float32", lora: LoraConfig | None = None, gradient_checkpointing: bool = False,
    **sharding: Any,
) -> TrainedRewardModel:  # fmt: skip
    return TrainedRewardModel(
        str(folder / "model"), OptimizerConfig(learning_rate=1e-4, grad_clip=0.5, weight_decay=0.1, warmup_steps=2),
        ranks=ranks, dtype=dtype, pad_token_id=0, total_steps=9, gradient_checkpointing=gradient_checkpointing,
        sharding=ShardingConfig(**sharding), lora=lora, seed=4,
    )  # fmt: skip


def some_pairs(count: int, seed: int = 1) -> list[tuple[list[int], list[int]]]:
    """Pairs of uneven lengths, some of which have most of their tokens in common."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        before, one, other = (
            torch.randint(20, 300, (length,), generator=generator).tolist()
            for length in (2 + 7 * (index % 3), 1 + 3 * index, 12 - index % 5)
        )
        made.append((before + one, before + other))
    return made


def offline_step(model: TrainedModel, method: OfflineMethod, step: int) -> dict[str, float]:
    """One step on all examples of ``method``, as the loop of offline stages makes it; its metrics."""
    model.begin_step(step)
    update = method.update()
    for row in method.rows(range(method.count)):
        update.add(row)
    stats = update.stats()
    found = {**stats.metrics, "loss": stats.loss, "denominator": stats.denominator}
    del found["tokens/total"]  # rows of nothing have a token
    return {**found, "norm": model.step(stats.denominator), **method.evaluate()}


def pair_step(model: TrainedRewardModel, step: int) -> dict[str, float]:
    """One step on seven pairs by the stage's own method; its metrics."""
    pairs = [TokenPair(*sides, "") for sides in some_pairs(7, seed=step)]
    context: Any = SimpleNamespace(ranks=model.ranks, stop=SimpleNamespace(is_set=False))
    return offline_step(model, PairMethod(context, model, pairs, range(7), [0, 6], budget=60, centering=0.05), step)


def sft_step(policy: Policy, step: int) -> dict[str, float]:
    """One step of SFT on nine rows of uneven lengths by the stage's own method; its metrics."""
    made = sequences(9, seed=step)
    table = pyarrow.table(
        {name: [getattr(s, name).tolist() for s in made] for name in ("prompt_ids", "completion_ids")}
    )
    source = {"source": "x", "prompt": "y"}
    config = SftStage.model_validate(
        {"name": "s", "data": [source], "learning_rate": 1e-4, "steps": 4, "tokens_per_micro_batch": 60}
    )
    return offline_step(policy, Sft(policy, config, Examples(table, range(9)), Examples(table, [0, 8])), step)


KINDS: dict[str, tuple[Any, Any]] = {
    "pairs": (scored_model, pair_step),
    "sft": (functools.partial(policy_of, learning_rate=1e-4), sft_step),
}


def offline(folder: Path, ranks: Ranks, kind: str, ways: list[dict]) -> dict:
    """Four steps in each way: their metrics, how far the weights are from those of the first run, whether a state after
    two of them goes on in the same bits."""
    make, take = KINDS[kind]
    found = []
    for number, how in enumerate(ways):
        model = make(folder, ranks, **how)
        state = folder / f"{kind}-{ranks.world_size}-{number}"
        metrics = [take(model, step) for step in range(2)]
        if ranks.is_main:
            state.mkdir()
        ranks.barrier()
        model.save(state)
        model.save_optimizer(state / "optimizer" if ranks.is_main else None)
        ranks.barrier()
        metrics += [take(model, step) for step in range(2, 4)]
        ours = model.whole_state_dict(torch.float32)
        again = make(folder, ranks, **how)
        again.load(state)
        resumed = [take(again, step) for step in range(2, 4)]
        theirs = again.whole_state_dict(torch.float32)
        bitwise, moments, away = resumed == metrics[2:], 0.0, 0.0
        if ranks.is_main:
            assert ours is not None
            assert theirs is not None
            bitwise = bitwise and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
            reference = folder / f"{kind}.pt"
            if not reference.exists():
                torch.save(ours, reference)
            away = distance(torch.load(reference), ours)
            kept = torch.load(state / "optimizer").values()
            moments = sum(float(entry["exp_avg"].double().norm()) for entry in kept)
        found.append(
            {"metrics": metrics, "bitwise": bitwise, "state": str(state), "distance": away, "moments": moments}
        )
    return {"found": found}


def pairs_resumed(folder: Path, ranks: Ranks, how: dict, state: str) -> dict:
    """The last two of the four steps, from a state that others wrote; and its moments, inherited."""
    model = scored_model(folder, ranks, **how)
    model.load(Path(state))
    metrics = [pair_step(model, step) for step in range(2, 4)]
    whole = model.whole_state_dict(torch.float32)
    heir = scored_model(folder, ranks, **how)
    heir.inherit_optimizer(Path(state) / "optimizer")
    heir.save_optimizer(folder / "pairs-inherited" if ranks.is_main else None)
    if not ranks.is_main:
        return {}
    assert whole is not None
    moments = sum(float(entry["exp_avg"].double().norm()) for entry in torch.load(folder / "pairs-inherited").values())
    return {"metrics": metrics, "distance": distance(torch.load(folder / "pairs.pt"), whole), "moments": moments}


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    here = join()
    result = globals()[order["task"]](Path(order["folder"]), here, **order["arguments"])
    if here.is_main:
        Path(order["out"]).write_text(json.dumps(result))
    leave()
    sys.stdout.flush()
    os._exit(0)  # as a stage's process does: threads of the backends may outlive their group and abort a plain exit
