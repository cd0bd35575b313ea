"""What accelerate's variables, and its config files, ask for."""

import json
from pathlib import Path

import pytest
import yaml

from cascade_rl.recipe import ShardingConfig
from cascade_rl.recipe.launching import VARIABLE, Launch
from cascade_rl.types import CascadeError
from tests.messages import mentions

CONFIGS = Path(__file__).parents[2] / "launch/accelerate"
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_MIXED_PRECISION": "no", "WORLD_SIZE": "2"}
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "false"}


def asked(**environment):
    return Launch.from_environment(environment)


def test_a_plain_launcher_asks_for_nothing():
    assert asked() == Launch()
    assert asked(WORLD_SIZE="8", ACCELERATE_MIXED_PRECISION="no") == Launch(processes=8)


def test_zero_stages():
    assert asked(**ZERO, ACCELERATE_DEEPSPEED_ZERO_STAGE="3") == Launch(strategy="zero3", processes=2)
    assert asked(**ZERO).strategy == "zero2"  # accelerate's own default
    assert asked(**ZERO, ACCELERATE_DEEPSPEED_ZERO_STAGE="0").strategy is None
    offloading = asked(
        **ZERO, ACCELERATE_DEEPSPEED_ZERO_STAGE="3", ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE="cpu",
        ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE="none",
    )  # fmt: skip
    assert (offloading.offload_optimizer, offloading.offload_parameters) == (True, False)


def test_fsdp():
    assert asked(**FSDP).strategy == "fsdp2"
    assert asked(**FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}).offload_parameters
    (refused,) = asked(**FSDP | {"FSDP_VERSION": "1"}).refused
    assert mentions(refused, "FSDP", "1", "fsdp_version: 2")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "ZeRO stage 1"),
        (ZERO | {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"}, "NVMe"),
        (ZERO | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "gradient_accumulation_steps: 4"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "sequence_parallel"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "mixed_precision: fp16"),
    ],
)
def test_what_is_not_offered_is_told(environment, words):
    (message,) = Launch.from_environment(environment).refused
    assert words in message


def test_a_deepspeed_file_counts_instead_of_the_fields(tmp_path):
    file = tmp_path / "zero.json"
    file.write_text(
        json.dumps({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}, "gradient_clipping": 0.3})
    )
    launch = asked(**ZERO, ACCELERATE_DEEPSPEED_CONFIG_FILE=str(file))
    assert (launch.strategy, launch.offload_parameters, launch.gradient_clipping) == ("zero3", True, 0.3)
    with pytest.raises(CascadeError, match=r"deepspeed_config_file .*missing\.json"):
        asked(**ZERO, ACCELERATE_DEEPSPEED_CONFIG_FILE=str(tmp_path / "missing.json"))


def test_it_is_handed_on_whole():
    launch = Launch("zero3", True, True, "bf16", 0.5, 8, ("no", "way"))
    assert asked(**{VARIABLE: launch.handed_on()}, ACCELERATE_USE_FSDP="true") == launch


def test_auto_is_what_the_launcher_asks_for():
    assert Launch().resolve(ShardingConfig()).strategy == "ddp"
    assert Launch().resolve(ShardingConfig(strategy="fsdp2")).strategy == "fsdp2"
    resolved = Launch("zero3", offload_optimizer=True).resolve(ShardingConfig(offload_parameters=True))
    assert (resolved.strategy, resolved.offload_optimizer, resolved.offload_parameters) == ("zero3", True, True)
    with pytest.raises(CascadeError, match=r"ddp.*zero2"):
        Launch("zero2").resolve(ShardingConfig(strategy="ddp"))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_configs_ask_for_what_their_name_says(path):
    config = yaml.safe_load(path.read_text())
    launch = Launch.from_config(config)
    name = path.stem.removeprefix("cpu-2-").removeprefix("cpu-2").split("-")[0]
    assert launch.strategy == (name if name not in ("", "ddp") else None)
    assert launch.offload_optimizer == launch.offload_parameters == ("offload" in path.stem)
    assert not launch.refused
    machines, processes = (1, 2) if path.stem.startswith("cpu") else (4, 32) if "nodes" in path.stem else (1, 8)
    assert (config["num_machines"], config["num_processes"]) == (machines, processes)
    assert config.get("use_cpu", False) == path.stem.startswith("cpu")
    if machines > 1 and config["distributed_type"] == "DEEPSPEED":  # by default it would call pdsh
        assert config["deepspeed_config"]["deepspeed_multinode_launcher"] == "standard"
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert f"launch/accelerate/{path.name}" in path.read_text()
