import sys

import pytest

from cascade_rl.recipe import EngineConfig
from cascade_rl.rollout import server_process
from cascade_rl.rollout.server_process import (
    Served,
    ServerProcess,
    server_command,
    server_environment,
    spare_devices,
    start_servers,
    tail,
)
from cascade_rl.types import CascadeError


def served(cpu=True, transfer="files", renormalised=False, **config):
    return Served("some/model", EngineConfig(**config), "float32", cpu, 96, renormalised, transfer)


def option(command, name):
    return command[command.index(name) + 1]


def test_a_server_on_cpu_is_set_up_as_the_engine_in_process_is():
    command = server_command(served(max_num_seqs=16, max_batched_tokens=64), 8123)
    assert command[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    values = {
        "--model": "some/model", "--host": "127.0.0.1", "--port": "8123", "--dtype": "float32", "--max-num-seqs": "16",
        "--max-model-len": "96", "--max-num-batched-tokens": "96", "--logprobs-mode": "processed_logprobs",
        "--generation-config": "vllm",
    }  # fmt: skip
    assert {name: option(command, name) for name in values} == values
    assert {"--enforce-eager", "--no-enable-chunked-prefill", "--enable-scale-out"} <= set(command)
    assert option(server_command(served(renormalised=True), 1), "--logprobs-mode") == "raw_logprobs"


def test_a_server_on_a_gpu_has_the_device_to_itself_and_a_way_for_weights():
    command = server_command(served(cpu=False, transfer="nccl"), 1)
    assert option(command, "--gpu-memory-utilization") == "0.9"
    assert option(command, "--weight-transfer-config") == '{"backend": "nccl"}'
    assert not {"--enforce-eager", "--no-enable-chunked-prefill"} & set(command)
    told = server_command(served(cpu=False, gpu_memory_utilization=0.7, enforce_eager=True), 1)
    assert option(told, "--gpu-memory-utilization") == "0.7"
    assert "--enforce-eager" in told
    assert "--weight-transfer-config" not in told


def test_a_server_is_no_rank_and_sees_its_device_alone():
    ours = {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HOME": "/h",
        "TORCH_COMPILE_DISABLE": "0",
    }
    environment = server_environment(served(), None, ours)
    assert environment == {
        "HOME": "/h", "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }  # fmt: skip
    assert server_environment(served(cpu=False), "5", {})["CUDA_VISIBLE_DEVICES"] == "5"


def test_servers_take_the_devices_after_the_ranks():
    assert spare_devices(2, 6, None, 8) == ["6", "7"]
    assert spare_devices(1, 2, "4,5, 7", 3) == ["7"]
    assert spare_devices(1, 1, "GPU-a,GPU-b", 2) == ["GPU-b"]
    with pytest.raises(CascadeError, match="engine.servers: 2.* 3 .* 4 "):
        spare_devices(2, 3, None, 4)


def python(code):
    return [sys.executable, "-c", code]


def test_a_server_that_ends_while_it_starts_is_reported_with_the_end_of_its_log(tmp_path, monkeypatch):
    code = "import sys; print('\\n'.join(f'line {i}' for i in range(100))); sys.exit('no such model')"
    monkeypatch.setattr(server_process, "server_command", lambda served, port: python(code))
    with pytest.raises(CascadeError, match=r"(?s)ended.*server-0\.log.*no such model") as caught:
        start_servers(served(), [None], tmp_path / "logs", print)
    assert "line 99" in str(caught.value)
    assert "line 50" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up_and_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(server_process, "server_command", lambda served, port: python("import time; time.sleep(300)"))
    started = []
    real = ServerProcess.__init__
    monkeypatch.setattr(ServerProcess, "__init__", lambda self, *a: (started.append(self), real(self, *a))[1])
    with pytest.raises(CascadeError, match="answer.* 1 s"):
        start_servers(served(), [None, None], tmp_path, print, timeout_s=1.0)
    assert [server.alive for server in started] == [False, False]


def test_a_server_answers_until_it_is_closed(tmp_path, monkeypatch):
    code = (
        "import http.server as h, sys\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200 if self.path == '/health' else 404); self.end_headers()\n"
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()"
    )
    monkeypatch.setattr(server_process, "server_command", lambda served, port: [*python(code), str(port)])
    (server,) = start_servers(served(), [None], tmp_path, print)
    assert server.alive
    assert server_process._answers(server.url)
    server.close()
    assert not server.alive
    assert not server_process._answers(server.url)
    assert '"GET /health' in tail(server.log)
