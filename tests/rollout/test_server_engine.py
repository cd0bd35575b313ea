"""The engine over HTTP against servers that misbehave; with a real one in test_dedicated.py."""

import re
import threading
import time

import pytest
import torch

from cascade_rl.recipe import SamplingConfig
from cascade_rl.rollout import request_loop, server_engine
from cascade_rl.rollout.engine import Request
from cascade_rl.rollout.request_loop import RequestLoop
from cascade_rl.rollout.server_client import ServerClient
from cascade_rl.rollout.server_engine import ServerEngine
from cascade_rl.rollout.weight_transfer import FileTransfer
from cascade_rl.types import CascadeError, Rollout, Stop
from tests.rollout.fake_server import EOS, FakeServer, tokens_of


class Letters:
    """A tokenizer."""

    eos_token_id = EOS

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(64 + token) for token in ids)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(request_loop, "PAUSE_S", 0.0)


@pytest.fixture
def opened(tmp_path):
    """engine(*servers, ...) -> (engine, what it said)"""
    engines = []

    def engine(*servers, slots=8, timeout_s=30.0, attempts=2, logs=("", "", "")):
        clients = [ServerClient(server.url, log) for server, log in zip(servers, logs, strict=False)]
        said = []
        made = ServerEngine(
            RequestLoop(clients, eos=EOS, slots=slots, first=0, timeout_s=timeout_s, attempts=attempts), clients,
            transfer=FileTransfer(tmp_path / "weights", torch.float32, 64), name="run", tokenizer=Letters(),
            logprob_temperature=1.0, gather=lambda value: [value], say=said.append,
        )  # fmt: skip
        engines.append(made)
        return made, said

    yield engine
    for made in engines:
        made.close()


def request(prompt="p", index=0, seed=3, tokens=4):
    return Request(prompt, index, (5, 6, 7), seed, SamplingConfig(max_new_tokens=tokens))


def expected(prompt="p", index=0, seed=3, tokens=4, version=-1):
    ids = tuple(tokens_of(seed, tokens))
    text = "".join(chr(64 + token) for token in ids)
    return Rollout(prompt, index, ids, tuple(-token / 8 for token in ids), text, Stop.LENGTH, version)


def drain(engine):
    arrived = []
    while engine.in_flight:
        arrived += engine.poll(10.0)
    return arrived


def until(condition):
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_request_goes_out_as_token_ids_and_comes_back_as_a_rollout(opened):
    with FakeServer() as server:
        engine, _ = opened(server)
        sampling = SamplingConfig(max_new_tokens=4, temperature=0.6, top_p=0.95, top_k=20, stop=["\n\n"])
        asked = Request("p", 2, (5, 6, 7), 2**62 + 1, sampling)
        assert list(engine.generate([asked])) == [expected(index=2, seed=2**62 + 1)]
        assert server.asked == [
            {
                "token_ids": [5, 6, 7],
                "sampling_params": {
                    "seed": 2**62 + 1, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 4,
                    "stop_token_ids": [EOS], "ignore_eos": True, "stop": ["\n\n"], "include_stop_str_in_output": True,
                    "detokenize": True, "skip_special_tokens": False, "logprobs": 0,
                },
            }
        ]  # fmt: skip


def test_rollouts_come_out_as_they_finish(opened):
    with FakeServer(lambda number, body: "hang" if body["sampling_params"]["seed"] == 1 else "answer") as server:
        engine, _ = opened(server)
        for index, seed in enumerate((1, 2, 3)):
            engine.submit(request(index=index, seed=seed))
        first = engine.poll(10.0)
        while len(first) < 2:
            first += engine.poll(10.0)
        assert {rollout.index for rollout in first} == {1, 2}
        assert engine.poll(0.0) == []
        assert engine.in_flight == 1
        server.release()
        assert drain(engine) == [expected(index=0, seed=1)]
        assert engine.poll(10.0) == []


def test_what_is_cancelled_never_comes_and_the_server_is_told(opened):
    with FakeServer(lambda number, body: "hang" if number < 2 else "answer") as server:
        engine, _ = opened(server, slots=2)
        for index in range(4):
            engine.submit(request(index=index, seed=index))
        until(lambda: len(server.asked) == 2)
        running = {body["sampling_params"]["seed"] for body in server.asked}
        assert running == {0, 1}
        engine.cancel("p", 0)
        engine.cancel("p", 3)  # still in line
        engine.cancel("p", 9)
        assert engine.in_flight == 2
        until(lambda: server.dropped == 1)
        server.release()
        assert {rollout.index for rollout in drain(engine)} == {1, 2}
        assert {body["sampling_params"]["seed"] for body in server.asked} == {0, 1, 2}
        assert server.dropped == 1
        engine.submit(request(index=0, seed=7))  # the same place again, with another seed: not the old answer
        assert drain(engine) == [expected(index=0, seed=7)]


def test_an_abandoned_generate_leaves_nothing_behind(opened):
    with FakeServer(lambda number, body: "answer" if number == 0 else "hang") as server:
        engine, _ = opened(server, slots=1)
        for _rollout in engine.generate([request(index=index) for index in range(3)]):
            break
        assert engine.in_flight == 0
        server.release()
        assert [r.index for r in engine.generate([request(index=5)])] == [5]


@pytest.mark.parametrize("how", ["drop", "garbage", "abort", "short", 500, 503])
def test_a_rollout_that_fails_is_asked_for_again_with_the_same_seed(opened, how):
    with FakeServer(lambda number, body: how if number == 0 else "answer") as server:
        engine, said = opened(server)
        engine.submit(request(seed=11))
        assert drain(engine) == [expected(seed=11)]
        assert [body["sampling_params"]["seed"] for body in server.asked] == [11, 11]
        assert (engine.asked_again, engine.given_up) == (1, 0)
        assert len(said) == 1
        assert re.search(rf"\b0 .*\bp\b.*{server.url} .*2 of 2.*\b0\b", said[0])  # 0 others are in flight


def test_a_rollout_that_hangs_is_asked_for_again_elsewhere_then_given_up_and_counted(opened):
    with (
        FakeServer(lambda number, body: "hang" if body["sampling_params"]["seed"] == 1 else "answer") as first,
        FakeServer(lambda number, body: "hang" if body["sampling_params"]["seed"] == 1 else "answer") as second,
    ):
        engine, said = opened(first, second, timeout_s=0.5)
        for index, seed in enumerate((1, 2, 3)):
            engine.submit(request(index=index, seed=seed))
        arrived = {rollout.index: rollout for rollout in drain(engine)}
        assert arrived[0] == Rollout("p", 0, (), (), "", Stop.ABORT, -1)
        assert arrived[1] == expected(index=1, seed=2)
        assert (engine.asked_again, engine.given_up) == (1, 1)
        hung = [[b["sampling_params"]["seed"] for b in server.asked].count(1) for server in (first, second)]
        assert hung == [1, 1]
        assert re.search("0.5 s.*2 of 2", said[0])
        assert "given up" in said[1]


def test_standing_in_line_does_not_count_against_a_rollout(opened):
    def slow(number, body):
        time.sleep(0.3)
        return "answer"

    with FakeServer(slow) as server:
        engine, said = opened(server, slots=1, timeout_s=0.9)
        assert len(list(engine.generate([request(index=index) for index in range(5)]))) == 5
        assert said == []
        assert server.most_running == 1


def test_a_dead_server_is_named_and_its_rollouts_go_to_the_others(opened):
    with FakeServer(lambda number, body: "hang") as dying, FakeServer() as living:
        engine, said = opened(dying, living, slots=2, attempts=1, logs=("server-0.log", "server-1.log"))
        for index in range(6):
            engine.submit(request(index=index, seed=index))  # one prompt: all at home on the first
        until(lambda: len(dying.asked) == 2)
        dying.close()
        arrived = sorted(drain(engine), key=lambda rollout: rollout.index)
        assert arrived == [expected(index=index, seed=index) for index in range(6)]
        (text,) = said
        assert re.search(f"{dying.url} .*server-0.log.* died", text)
        assert engine.given_up == 0


def test_a_server_that_dies_costs_no_attempt(opened):
    with (
        FakeServer(lambda number, body: "hang") as dying,
        FakeServer(lambda n, body: "drop" if n == 0 else "answer") as living,
    ):
        engine, _ = opened(dying, living, attempts=2)
        engine.submit(request())
        until(lambda: dying.asked)
        dying.close()
        assert drain(engine) == [expected()]
        assert len(living.asked) == 2


def test_with_no_server_left_the_error_names_the_logs(opened):
    with FakeServer(lambda number, body: "hang") as server:
        engine, _ = opened(server, logs=("server-0.log",))
        engine.submit(request())
        until(lambda: server.asked)
        server.close()
        with pytest.raises(CascadeError, match=rf"left.*{server.url}.*server-0\.log"):
            drain(engine)
        with pytest.raises(CascadeError, match=f"left.*{server.url}"):
            engine.poll()


def test_a_server_whose_engine_died_counts_as_dead(opened):
    def dead(number, body):
        server.healthy = 503
        return 500

    with FakeServer(dead) as server:
        engine, _ = opened(server)
        engine.submit(request())
        with pytest.raises(CascadeError, match=f"left.*{server.url}"):
            drain(engine)


def test_a_refused_request_is_not_repeated(opened):
    with FakeServer(lambda number, body: 400) as server:
        engine, _ = opened(server)
        engine.submit(request())
        with pytest.raises(CascadeError, match=r"400.*as told"):
            drain(engine)
        assert len(server.asked) == 1


def weights(version=1.0):
    yield "a", torch.full((4, 4), version)
    yield "b", torch.full((3,), version)


def test_an_update_pauses_loads_labels_empties_and_resumes_in_this_order(opened):
    with FakeServer() as first, FakeServer() as second:
        engine, _ = opened(first, second)
        engine.load_weights(weights(), version=7)
        for server in (first, second):
            paths = [path for path, _ in server.calls]
            assert paths == [
                "pause?mode=abort", "collective_rpc", "update_weight_version", "reset_prefix_cache", "resume",
            ]  # fmt: skip
            assert server.version == "run/7"
        assert engine.version == 7
        assert list(engine.generate([request()])) == [expected(version=7)]


def test_weights_of_somebody_else_are_noticed(opened):
    with FakeServer() as server:
        engine, _ = opened(server)
        engine.load_weights(weights(), version=7)
        server.version = "another/7"
        with pytest.raises(CascadeError, match=r"another/7.*run/7"):
            list(engine.generate([request()]))


def test_a_server_that_cannot_load_stops_the_stage_with_its_words(opened):
    with FakeServer() as server:
        engine, _ = opened(server)
        server.failing["collective_rpc"] = 500
        with pytest.raises(CascadeError, match=r"/collective_rpc.*500.*as told"):
            engine.load_weights(weights(), version=1)
        assert engine.version == -1
        server.failing = {"pause?mode=abort": 404}
        with pytest.raises(CascadeError, match="VLLM_SERVER_DEV_MODE=1"):
            engine.load_weights(weights(), version=1)


def test_a_server_that_says_nothing_while_it_loads_is_given_up_by_name(opened, monkeypatch):
    monkeypatch.setattr(server_engine, "CONTROL_S", 0.3)
    with FakeServer() as first, FakeServer() as second:
        engine, _ = opened(first, second)
        second.silent.add("collective_rpc")
        with pytest.raises(CascadeError, match=f"{second.url} .*/collective_rpc.* 0 s"):
            engine.load_weights(weights(), version=1)
        assert engine.version == -1


def test_a_server_that_died_unnoticed_is_left_out_of_an_update(opened):
    with FakeServer() as first, FakeServer() as second:
        engine, said = opened(first, second)
        first.close()
        engine.load_weights(weights(), version=3)
        assert re.search(f"{first.url}.* died.* 1 ", said[0])
        assert {r.index for r in engine.generate([request(index=i) for i in range(4)])} == set(range(4))
        assert engine.asked_again == 0


def test_nothing_may_be_in_flight_during_an_update(opened):
    with FakeServer(lambda number, body: "hang") as server:
        engine, _ = opened(server)
        engine.submit(request())
        with pytest.raises(RuntimeError, match="1 rollouts"):
            engine.load_weights(weights(), version=1)


def test_ranks_load_together_and_hear_of_each_others_trouble(opened, tmp_path):
    """Two ranks as two threads: a weight is only there when both have asked for it."""
    together = threading.Barrier(2, timeout=20.0)
    shared: dict[int, object] = {}

    def gather_as(rank):
        def gather(value):
            shared[rank] = value
            together.wait()
            values = [shared[0], shared[1]]
            together.wait()
            return values

        return gather

    def gathered():
        for name, weight in weights():
            together.wait()
            yield name, weight

    def rank(server, number, outcome, busy=False):
        clients = [ServerClient(server.url)]
        engine = ServerEngine(
            RequestLoop(clients, eos=EOS, slots=2, first=0, timeout_s=9.0, attempts=1), clients,
            transfer=FileTransfer(tmp_path / "two", torch.float32, 8) if number == 0 else None, name="run",
            tokenizer=Letters(), logprob_temperature=1.0, gather=gather_as(number), say=print,
        )  # fmt: skip
        try:
            if busy and number == 1:
                engine.submit(request())
            engine.load_weights(gathered(), version=5)
            outcome[number] = engine.version
        except (CascadeError, RuntimeError) as error:
            outcome[number] = str(error)
        finally:
            engine.close()

    with FakeServer() as server:
        for failing, busy in (({}, False), ({"pause?mode=abort": 500}, False), ({}, True)):
            server.failing, outcome = failing, {}
            threads = [threading.Thread(target=rank, args=(server, number, outcome, busy)) for number in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30.0)
            if busy:
                assert all("1 rollouts" in outcome[rank] for rank in range(2))
            elif failing:
                assert outcome[0] == outcome[1]
                assert "failed at /pause" in outcome[0]
            else:
                assert outcome == {0: 5, 1: 5}
