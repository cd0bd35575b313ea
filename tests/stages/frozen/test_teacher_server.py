"""A teacher behind HTTP: what is asked, what is made of the answers, what happens when there are none."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.processes import guarded
from cascade_rl.stages.frozen.teacher_server import ServerTeacher
from cascade_rl.training.packing import training_sequence
from cascade_rl.training.reference import FrozenModel
from cascade_rl.types import CascadeError
from tests.rewards.fake_server import FakeServer

MODELS = {"data": [{"id": "the-teacher", "max_model_len": 64}]}


def sequence(prompt, completion, temperature=1.0):
    return training_sequence(prompt, completion, [0.0] * len(completion), 0.0, temperature=temperature)


def logprob(token):
    """What the fake teacher says of a token."""
    return -token / 100


def answers(path, body):
    if path == "/v1/models":
        return MODELS
    if path == "/tokenize":
        return {"tokens": [ord(c) for c in body["prompt"]]}
    entries = [{str(token): {"logprob": logprob(token), "rank": 3}, "7": {"logprob": -0.1}} for token in body["prompt"]]
    return {"choices": [{"text": "x", "prompt_logprobs": [None, *entries[1:]]}]}


@pytest.fixture
def teacher():
    with FakeServer(answers) as server:
        one = ServerTeacher(f"{server.url}/v1/", sleep=lambda _: None)
        one.server = server
        yield one
        one.close()


def test_each_sequence_gets_the_log_probs_of_its_own_tokens(teacher):
    given = [sequence([1, 2], [30, 40, 50]), sequence([3], [60]), sequence([1, 2], [40])]
    found = teacher.fill(given)
    assert [s.reference_logprobs.tolist() for s in found] == [
        pytest.approx([-0.3, -0.4, -0.5]), pytest.approx([-0.6]), pytest.approx([-0.4])
    ]  # fmt: skip
    bodies = [body for path, body in teacher.server.asked if path == "/v1/completions"]
    assert sorted(body["prompt"] for body in bodies) == [[1, 2, 30, 40, 50], [1, 2, 40], [3, 60]]
    assert {(body["model"], body["prompt_logprobs"], body["max_tokens"]) for body in bodies} == {("the-teacher", 0, 1)}


def test_what_was_begun_is_not_asked_again(teacher):
    teacher.begin((1, 2), (30, 40, 50))
    teacher.begin([1, 2], [30, 40, 50])
    teacher.fill([sequence([1, 2], [30, 40, 50])])
    assert len([path for path, _ in teacher.server.asked if path == "/v1/completions"]) == 1


def test_a_new_step_asks_anew(teacher):
    """The same rollout in another step: the answer is not kept, nor are those that nobody took."""
    teacher.begin((9,), (90,))
    teacher.fill([sequence([1], [30])])
    assert teacher._begun == {}
    teacher.fill([sequence([1], [30])])
    assert len([body for _, body in teacher.server.asked if body and body.get("prompt") == [1, 30]]) == 2


@pytest.mark.parametrize("fault", [(500, "no"), (429, "later"), (200, "<html>")])
def test_faults_that_pass_are_asked_again(fault):
    left = [fault, fault]

    def flaky(path, body):
        return left.pop() if path == "/v1/completions" and left else answers(path, body)

    waits = []
    with FakeServer(flaky) as server:
        teacher = ServerTeacher(f"{server.url}/v1", sleep=waits.append)
        (found,) = teacher.fill([sequence([1], [30])])
        teacher.close()
    assert found.reference_logprobs.tolist() == pytest.approx([-0.3])
    assert waits == [0.5, 1.0]


def test_a_server_that_stays_down_is_named_after_the_last_try():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    waits = []
    teacher = ServerTeacher(url, tries=4, sleep=waits.append)
    with pytest.raises(CascadeError, match=rf"{url}/models .*4 tries.*ConnectError"):
        teacher.fill([sequence([1], [30])])
    teacher.close()
    assert waits == [0.5, 1.0, 2.0]


def test_a_refusal_is_final():
    def refuses(path, body):
        return MODELS if path == "/v1/models" else (400, "prompt_logprobs is not allowed")

    with FakeServer(refuses) as server:
        teacher = ServerTeacher(f"{server.url}/v1", sleep=lambda _: pytest.fail("asked again"))
        with pytest.raises(CascadeError, match=r"400: prompt_logprobs is not allowed"):
            teacher.fill([sequence([1], [30])])
        teacher.close()


@pytest.mark.parametrize(
    "entries",
    [
        None,
        [None, {"31": {"logprob": -1.0}}],  # another token than the one that was shown
        [None],
        [None, {"30": {"logprob": -1.0}}, {"30": {"logprob": -1.0}}],
        [None, None],
    ],
)
def test_an_answer_about_other_tokens_is_no_answer(entries):
    def says(path, body):
        return MODELS if path == "/v1/models" else {"choices": [{"prompt_logprobs": entries}]}

    with FakeServer(says) as server:
        teacher = ServerTeacher(f"{server.url}/v1")
        with pytest.raises(CascadeError, match=f"{server.url}.*log-prob.* 1 tokens"):
            teacher.fill([sequence([1], [30])])
        teacher.close()


def test_a_server_speaks_of_temperature_1_only(teacher):
    with pytest.raises(CascadeError, match=r"rollout\.temperature"):
        teacher.fill([sequence([1], [30], temperature=0.6)])


def test_start_checks_show_both_sides(teacher):
    def encode(text):
        return [ord(c) for c in text]

    teacher.check(encode, ["ab", "c"], longest=63)
    with pytest.raises(CascadeError, match=r"64.*--max-model-len 65"):
        teacher.check(encode, ["ab"], longest=64)
    with pytest.raises(CascadeError, match=r"(?s)tokenizer.*'c'.*student: \[5\].*teacher: \[99\]"):
        teacher.check(lambda text: [5] if text == "c" else encode(text), ["ab", "c"], longest=10)


def test_many_are_asked_at_once_but_not_more_than_the_bound():
    together = threading.Barrier(4)

    def answer(path, body):
        if path == "/v1/completions":
            together.wait(30)  # only passes when four are under way at the same time
        return answers(path, body)

    with FakeServer(answer) as server:
        teacher = ServerTeacher(f"{server.url}/v1", concurrency=4)
        teacher.fill([sequence([i + 1], [30]) for i in range(8)])
        teacher.close()
        assert server.most_under_way <= 4


def test_no_address():
    with pytest.raises(CascadeError, match="http"):
        ServerTeacher("localhost:8000")


@pytest.mark.slow
def test_a_real_vllm_server_says_what_the_same_model_says_here(tmp_path):
    folder = tmp_path / "teacher"
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "1",
        "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    log = open(tmp_path / "log", "w")  # noqa: SIM115
    process = subprocess.Popen(
        guarded([sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--dtype",
                 "float32", "--port", str(port), "--host", "127.0.0.1", "--max-model-len", "128", "--enforce-eager"]),
        env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    given = []
    for prompt, completion in ((5, 9), (3, 20), (12, 1), (4, 60)):
        ids = torch.randint(20, 300, (prompt + completion,), generator=generator).tolist()
        given.append(sequence(ids[:prompt], ids[prompt:]))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    waits = []

    def wait(seconds):
        assert process.poll() is None, (tmp_path / "log").read_text()
        waits.append(seconds)
        time.sleep(1)

    try:
        teacher = ServerTeacher(f"http://127.0.0.1:{port}/v1", tries=240, sleep=wait)
        teacher.check(lambda text: tokenizer.encode(text, add_special_tokens=False), ["1 + 1?", "Grüße\n\n世界"], 127)
        found = teacher.fill(given)
    finally:
        process.terminate()  # the guard, which ends the engine, too
        process.wait(60)
    here = FrozenModel(folder, device=torch.device("cpu"), dtype="float32", chunk_tokens=64, row_tokens=200)
    for a, b in zip(found, here.fill(given), strict=True):
        assert a.reference_logprobs == pytest.approx(b.reference_logprobs, abs=1e-4)
