"""Dedicated servers: how they are opened, and a real one against the engine in process and the trainer."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import EngineConfig, SamplingConfig
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.rollout.dedicated import ServedRank, open_server_engine, transfer_of
from cascade_rl.rollout.engine import Request, request_seed
from cascade_rl.rollout.server_process import Served
from cascade_rl.types import CascadeError, Stop
from tests.rollout.fake_server import FakeServer

PROMPT = tuple(range(30, 50))


def place(tmp_path, **changes):
    values = {
        "rank": 0, "world_size": 1, "ranks_here": 1, "gather": lambda value: [value], "say": print,
        "logs": tmp_path / "logs", "shared": tmp_path / "shared",
    }  # fmt: skip
    return ServedRank(**values | changes)


def served(checkpoint, renormalised=True, **config):
    engine = EngineConfig(max_num_seqs=16, placement="dedicated", **config)
    return Served(str(checkpoint), engine, "float32", True, 96, renormalised, "files")


def opened(served, place):
    return open_server_engine(served, place, tokenizer=tiny_qwen3.build_tokenizer(), temperature=0.6)


def test_weights_go_through_files_unless_there_are_gpus():
    assert [transfer_of("auto", cpu=True), transfer_of("auto", cpu=False)] == ["files", "nccl"]
    assert [transfer_of("files", cpu=True), transfer_of("files", cpu=False)] == ["files", "files"]
    assert transfer_of("nccl", cpu=False) == "nccl"
    with pytest.raises(CascadeError, match="nccl.*GPUs"):
        transfer_of("nccl", cpu=True)


def test_ranks_on_several_hosts_need_urls(tmp_path):
    with pytest.raises(CascadeError, match="several.*engine.urls"):
        opened(served(tmp_path), place(tmp_path, world_size=4, ranks_here=2, gather=lambda value: [value] * 4))


def test_servers_that_run_already_must_take_the_longest_sequence(tmp_path):
    with FakeServer() as server, pytest.raises(CascadeError, match=r"64.*96.*--max-model-len 96"):
        opened(served(tmp_path, urls=[server.url]), place(tmp_path))


def test_all_ranks_use_what_the_main_one_found_and_it_alone_sends(tmp_path):
    with FakeServer() as first, FakeServer() as second:
        shared = []

        def gather(value):
            shared.append(value)
            return [shared[0]]

        config = served(tmp_path, urls=[first.url, second.url])
        config = Served(config.checkpoint, config.config, "float32", True, 64, False, "files")
        engines = [
            opened(config, place(tmp_path, rank=rank, world_size=2, ranks_here=2, gather=gather)) for rank in (0, 1)
        ]
        try:
            assert [engine._transfer is not None for engine in engines] == [True, False]
            assert engines[0]._label(3) == engines[1]._label(3)
            assert [engine.logprob_temperature for engine in engines] == [0.6, 0.6]
            for engine in engines:  # each begins at a server of its own
                engine.submit(Request("p", 0, PROMPT, 1, SamplingConfig(max_new_tokens=2)))
                assert engine.poll(10.0)
            assert (len(first.asked), len(second.asked)) == (1, 1)
        finally:
            for engine in engines:
                engine.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    os.environ["OMP_NUM_THREADS"] = "1"
    engine = opened(served(checkpoint), place(tmp_path_factory.mktemp("server")))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def in_process(checkpoint):
    from cascade_rl.rollout.vllm_engine import VllmEngine

    return VllmEngine(
        checkpoint, EngineConfig(max_num_seqs=16), dtype="float32", cpu=True, world_size=1, max_model_len=96,
        renormalised=True, temperature=1.0, tokenizer=tiny_qwen3.build_tokenizer(),
    )  # fmt: skip


@pytest.fixture
def policy(checkpoint):
    from cascade_rl.training.policy import Policy
    from cascade_rl.training.ranks import Ranks

    return Policy(
        checkpoint, OptimizerConfig(learning_rate=1e-3), ranks=Ranks(0, 1, torch.device("cpu")), dtype="float32",
        total_steps=1, gradient_checkpointing=False, chunk_tokens=64,
    )  # fmt: skip


def requests(count, **sampling):
    config = SamplingConfig(**{"max_new_tokens": 24, **sampling})
    return [Request(f"p{i}", 0, (*PROMPT, 60 + i), request_seed("t", i), config) for i in range(count)]


def draw(engine, requests):
    return {rollout.prompt_id: rollout for rollout in engine.generate(requests)}


def drain(engine):
    seen = []
    while engine.in_flight:
        seen += engine.poll(5.0)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.6}, {"temperature": 1.2, "top_p": 0.95, "top_k": 20}, {"stop": ["e", "1"]}]
)
def test_a_server_and_the_engine_in_process_are_one_engine(server, in_process, policy, sampling):
    for engine in (server, in_process):
        engine.load_weights(policy.named_weights(), version=1)
    there, here = draw(server, requests(12, **sampling)), draw(in_process, requests(12, **sampling))
    assert there.keys() == here.keys()
    for prompt, rollout in there.items():
        other = here[prompt]
        assert (rollout.token_ids, rollout.text, rollout.stop, rollout.version) == (
            other.token_ids, other.text, other.stop, other.version,
        )  # fmt: skip
        assert rollout.logprobs == pytest.approx(other.logprobs, abs=1e-6)
    assert {rollout.stop for rollout in there.values()} & {Stop.STRING} == (
        {Stop.STRING} if "stop" in sampling else set()
    )


@pytest.mark.slow
def test_a_server_serves_exactly_the_weights_it_was_sent(server, policy):
    from cascade_rl.stages.checkpoints.handover import probe_logprobs

    def gap():
        prompts = [(*PROMPT, 60 + i) for i in range(4)]
        return probe_logprobs(
            policy, server, prompts, sampling=SamplingConfig(max_new_tokens=8), engine_temperature=1.0
        )

    server.load_weights(policy.named_weights(), version=2)
    assert gap() < 2e-5
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    assert gap() > 1e-2
    headless = ((name, weight) for name, weight in policy.named_weights() if name != "lm_head.weight")
    server.load_weights(headless, version=3)
    assert gap() > 1e-2  # a tied head left out keeps its old values without a word
    server.load_weights(policy.named_weights(), version=4)
    assert gap() < 2e-5
    folder: Path = server._transfer._folder
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_cached_prompts_of_older_weights_are_forgotten(server, policy):
    server.load_weights(policy.named_weights(), version=5)
    before = draw(server, requests(4))
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(1.5)
    server.load_weights(policy.named_weights(), version=6)
    assert draw(server, requests(4)) != before
    again = draw(server, requests(4))
    server.load_weights(policy.named_weights(), version=6)
    assert draw(server, requests(4)) == again


@pytest.mark.slow
def test_requests_are_added_and_cancelled_while_a_server_generates(server):
    expected = draw(server, requests(6))
    for request in requests(6)[:4]:
        server.submit(request)
    server.cancel("p1", 0)
    for request in requests(6)[4:]:
        server.submit(request)
    seen = drain(server)
    assert {rollout.prompt_id: rollout for rollout in seen} == {k: r for k, r in expected.items() if k != "p1"}


RANK = """
import json, sys
from pathlib import Path
import torch
from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import EngineConfig
from cascade_rl.rollout.dedicated import ServedRank, open_server_engine
from cascade_rl.rollout.server_process import Served
from cascade_rl.training import ranks as processes
from tests.rollout.test_dedicated import nudged_policy, requests
ranks = processes.join()
checkpoint, scratch = sys.argv[1], Path(sys.argv[2])
say = lambda text: print(text, file=sys.stderr)
place = ServedRank(ranks.rank, ranks.world_size, 2, ranks.gather, say, scratch / "logs", scratch / "shared")
served = Served(checkpoint, EngineConfig(max_num_seqs=16, placement="dedicated"), "float32", True, 96, True, "files")
engine = open_server_engine(served, place, tokenizer=tiny_qwen3.build_tokenizer(), temperature=1.0)
policy = nudged_policy(checkpoint, ranks)
for version in (1, 2):
    engine.load_weights(policy.named_weights(), version)
    mine = [request for i, request in enumerate(requests(8)) if i % 2 == ranks.rank]
    drawn = {rollout.prompt_id: list(rollout.token_ids) for rollout in engine.generate(mine)}
    ranks.barrier()  # as between steps: weights change when all have what they asked for
engine.close()
print(json.dumps(drawn))
processes.leave()
"""


def nudged_policy(checkpoint, ranks):
    from cascade_rl.training.policy import Policy

    policy = Policy(
        Path(checkpoint), OptimizerConfig(learning_rate=1e-3), ranks=ranks, dtype="float32", total_steps=1,
        gradient_checkpointing=False, chunk_tokens=64,
    )  # fmt: skip
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(1.5)
    return policy


@pytest.mark.slow
def test_two_ranks_share_a_server(checkpoint, in_process, tmp_path):
    from cascade_rl.training.ranks import Ranks

    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    repository = Path(__file__).parents[2]
    base = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(repository)}  # fmt: skip
    command = [sys.executable, "-c", RANK, str(checkpoint), str(tmp_path)]
    processes = [
        subprocess.Popen(command, env={**base, "RANK": rank}, stdout=subprocess.PIPE, text=True, cwd=repository)
        for rank in ("0", "1")
    ]
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    drawn = [json.loads(output.splitlines()[-1]) for output in outputs]
    assert [sorted(each) for each in drawn] == [["p0", "p2", "p4", "p6"], ["p1", "p3", "p5", "p7"]]
    policy = nudged_policy(checkpoint, Ranks(0, 1, torch.device("cpu")))
    in_process.load_weights(policy.named_weights(), version=2)
    expected = {prompt: list(rollout.token_ids) for prompt, rollout in draw(in_process, requests(8)).items()}
    assert drawn[0] | drawn[1] == expected


@pytest.mark.slow
def test_a_killed_server_is_an_error_that_names_its_log(server):
    """Comes last: nothing is left of the server afterwards."""
    for request in requests(16, max_new_tokens=70):
        server.submit(request)
    (process,) = server._processes
    children = Path(f"/proc/{process._process.pid}/task/{process._process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)  # the API server, below its guard
    with pytest.raises(CascadeError, match=r"left.*server-0\.log"):
        drain(server)
    process._process.wait(30)  # and the guard has ended what it left behind
