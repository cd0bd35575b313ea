"""Other projects' rewards in our recipes, against the real packages, and ours in TRL's trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cascade_rl.rewarding import RewardError, Scorer, load_reward
from cascade_rl.rewarding.binding import check_binding
from cascade_rl.rewarding.for_trl import trl_reward
from cascade_rl.rewarding.records import RewardSettings
from cascade_rl.types import Prompt, Rollout, Stop

MODULE = '''
def accuracy(completions, solution, **kwargs):
    """As TRL's own rewards are written: lists of conversations and of columns."""
    return [1.0 if c[0]["content"].strip() == s else 0.0 for c, s in zip(completions, solution, strict=True)]

def length(completions):
    return [float(len(c)) for c in completions]

def prompted(prompts, completions, completion_ids, trainer_state, log_extra, log_metric):
    log_extra("x", [1]); log_metric("y", 2.0)
    return [float(prompts[0][0]["content"] == "say it")]

async def slowly(completions, solution):
    return [float(c[0]["content"] == s) for c, s in zip(completions, solution)]

def not_for_this_row(completions):
    return [None]

def wrong_shape(completions):
    return 1.0
'''


def score(use, completion, columns=None, folder=None, **params):
    settings = RewardSettings(use, params, timeout_s=30, failure=0.0)
    with Scorer(settings, [folder] if folder else [], 1, thinking_default=False) as scorer:
        prompt = Prompt("0", ({"role": "user", "content": "say it"},), columns or {})
        return scorer.submit(prompt, Rollout("0", 0, (), (), completion, Stop.EOS, 0)).result(60)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "their_rewards.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("their_rewards", None)


# --- TRL -------------------------------------------------------------------------------------------------------------


def test_trl_functions_are_rewards_as_they_are(folder):
    assert score("their_rewards:accuracy", "four", {"solution": "four"}, folder).value == 1
    assert score("their_rewards:accuracy", "five", {"solution": "four"}, folder).value == 0
    assert score("their_rewards:prompted", "x", {}, folder).value == 1
    assert score("their_rewards:slowly", "four", {"solution": "four"}, folder).value == 1
    assert score("their_rewards:length", "four", {}, folder, conversational=False).value == 4
    assert score("their_rewards:length", "four", {}, folder).value == 1  # one message


def test_their_columns_are_checked_like_any_reward_s(folder):
    loaded = load_reward(RewardSettings("their_rewards:slowly", {}, 1.0, 0.0), [folder])
    assert loaded.is_async
    assert check_binding(loaded, {"answer"})
    assert "needs `solution`" in check_binding(loaded, {"answer"})[0]
    assert check_binding(loaded, {"solution"}) == []


def test_none_and_no_list_are_errors(folder):
    assert "gave None" in (score("their_rewards:not_for_this_row", "x", {}, folder).error or "")
    assert "one value" in (score("their_rewards:wrong_shape", "x", {}, folder).error or "")


@pytest.mark.slow
def test_trls_own_rewards_run():
    right = "<think>\nadd\n</think>\n\\boxed{4}"
    assert score("trl.rewards:accuracy_reward", right, {"solution": "$4$"}).value == 1
    assert score("trl.rewards:accuracy_reward", "\\boxed{5}", {"solution": "$4$"}).value == 0
    assert score("trl.rewards:think_format_reward", right, {}).value == 1
    assert score("trl.rewards:think_format_reward", "no thoughts", {}).value == 0


# --- verifiers -------------------------------------------------------------------------------------------------------

RUBRICS = """
import verifiers as vf

def exact(completion, answer, **kwargs):
    return float(completion[-1]["content"] == answer)

async def short(completion):
    return float(len(completion[-1]["content"]) < 10)

def parsed(parser, completion, answer):
    return float((parser.parse_answer(completion) or "") == answer)

def broken(completion):
    raise RuntimeError("the rubric is broken")

def best(completions):
    return [0.0 for _ in completions]

def ranked(completion) -> list[float]:
    return [0.0]

def of_a_step(state, level):
    step, = state["trajectory"]
    return float(step["completion"] == state["completion"] and state["input"]["level"] == level == 3)

LOOPS = []

async def same_loop(completion):
    import asyncio
    LOOPS.append(asyncio.get_running_loop())
    return float(all(loop is LOOPS[0] for loop in LOOPS))

stateful = vf.Rubric(funcs=[of_a_step, same_loop, same_loop, ranked], weights=[1.0, 1.0, 1.0, 0.0])
ranking = vf.Rubric(funcs=[ranked])

def maths():
    return vf.MathRubric()

rubric = vf.Rubric(funcs=[exact, short], weights=[1.0, 0.5])
tagged = vf.Rubric(funcs=[parsed], parser=vf.XMLParser(["answer"]))
group = vf.RubricGroup([rubric, tagged])
failing = vf.Rubric(funcs=[broken])
comparing = vf.Rubric(funcs=[best])
nothing = object()

class Environment:
    def __init__(self): self.rubric = rubric

def load_environment(strict=False):
    return Environment()
"""


@pytest.fixture
def rubrics(tmp_path):
    pytest.importorskip("verifiers")
    (tmp_path / "their_rubrics.py").write_text(RUBRICS)
    yield tmp_path
    sys.modules.pop("their_rubrics", None)


RUBRIC = "cascade_rl.rewarding.adapters:VerifiersRubric"


def test_rubrics_of_verifiers(rubrics):
    def value(name, completion, **more):
        return score(RUBRIC, completion, {"answer": "four"}, rubrics, rubric=f"their_rubrics:{name}", **more)

    both = value("rubric", "four")
    assert (both.value, both.details) == (1.5, {"exact": 1.0, "short": 1.0})
    assert value("rubric", "five").value == 0.5
    assert value("tagged", "I say <answer>four</answer>").value == 1
    assert value("group", "four").details.keys() == {"exact", "short", "parsed"}
    assert value("load_environment", "four", arguments={"strict": True}).value == 1.5
    assert "the rubric is broken" in (value("failing", "x").error or "")


def test_functions_that_read_the_state_of_a_rollout(rubrics):
    columns = {"answer": "four", "level": 3}
    scored = score(RUBRIC, "four", columns, rubrics, rubric="their_rubrics:stateful")
    assert (scored.value, len(scored.details)) == (3.0, 3)  # the one that compares rollouts has no weight


def test_the_package_s_own_rubric_for_maths(rubrics):
    for text, value in (("\\boxed{2}", 1), ("\\boxed{1+1}", 1), ("\\boxed{3}", 0)):
        assert score(RUBRIC, text, {"answer": "2"}, rubrics, rubric="their_rubrics:maths").value == value


def test_the_same_scores_as_the_package_s_own(rubrics, monkeypatch):
    import asyncio

    monkeypatch.syspath_prepend(str(rubrics))
    import their_rubrics
    import verifiers as vf

    for text in ("four", "five", "a long wrong answer"):
        state = vf.State(
            input={"prompt": [], "example_id": 0, "task": "default", "answer": "four"}, prompt=[], answer="four", task="default",
            completion=[{"role": "assistant", "content": text}], trajectory=[], timing={}, info={},
        )  # fmt: skip
        theirs = sum(
            weight * asyncio.run(their_rubrics.rubric._call_individual_reward_func(function, state))
            for function, weight in zip(their_rubrics.rubric.funcs, their_rubrics.rubric.weights, strict=True)
        )
        assert score(RUBRIC, text, {"answer": "four"}, rubrics, rubric="their_rubrics:rubric").value == theirs


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("comparing", "compares"),
        ("ranking", "compares"),
        ("nothing", "functions"),
        ("absent", "'absent'"),
    ],
)
def test_rubrics_that_cannot_be_used_say_so_at_the_start(rubrics, name, says):
    with pytest.raises(RewardError, match=says):
        score(RUBRIC, "x", {}, rubrics, rubric=f"their_rubrics:{name}")


# --- reasoning-gym ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chain_sum", "word_sorting", "countdown"])
def test_reasoning_gym_tasks_and_their_verifiers(name):
    pytest.importorskip("reasoning_gym")
    from cascade_rl.data.reasoning_gym import tasks

    rows = list(tasks(split="train", name=name, rows=3, seed=5))
    held_out = list(tasks(split="test", name=name, rows=3, seed=5))
    assert len({row["question"] for row in rows + held_out}) == 6
    for row in rows[:1]:
        columns = {"entry": row["entry"], "dataset": row["dataset"]}
        for text in ("<answer>{}</answer>", "so \\boxed{{{}}}", "{}"):
            assert score("rewards.reasoning_gym:verify", text.format(row["answer"]), columns).value == 1
        assert score("rewards.reasoning_gym:verify", "<answer>no idea</answer>", columns).value < 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "chain_sums", "rows": 3}, r"\bchain_sum\b"),
        ({"name": "chain_sum", "rows": 3, "colour": "red"}, "colour"),
        (
            {"name": "chain_sum", "rows": 500, "min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
            r"only \d+",
        ),
    ],
)
def test_reasoning_gym_slips_are_named(arguments, says):
    pytest.importorskip("reasoning_gym")
    from cascade_rl.data.reasoning_gym import tasks

    with pytest.raises(ValueError, match=says):
        list(tasks(split="train", **arguments))


# --- Ours in TRL -----------------------------------------------------------------------------------------------------


def test_ours_as_a_trl_function():
    reward = trl_reward("rewards.math:verify", workers=1, mode="instruct")
    assert reward.__name__ == "rewards.math.verify"
    prompts = [[{"role": "user", "content": "1+1?"}]] * 3
    said = [[{"role": "assistant", "content": text}] for text in ("\\boxed{2}", "\\boxed{3}", "\\boxed{2}")]
    values = reward(
        prompts=prompts, completions=said, completion_ids=[[]] * 3, answer=["2", "2", ""], trainer_state=None
    )
    assert values == [1.0, 0.0, None]  # a row without an answer is the grader's error, not the model's
    assert reward(["1+1?"], ["\\boxed{2}"], answer=["2"]) == [1.0]
    thinking = trl_reward("rewards.math:verify", workers=1)
    assert thinking(["1+1?"], ["\\boxed{2}"], answer=["2"]) == [0.0]
    assert thinking(["1+1?"], ["<think>\n</think>\\boxed{2}"], answer=["2"]) == [1.0]
    with pytest.raises(RewardError, match="mode.*'loud'"):
        trl_reward("rewards.math:verify", mode="loud")


@pytest.mark.slow
def test_a_real_step_of_trls_grpo_trainer_with_our_reward(tmp_path):
    """In a process of its own: TRL's trainer leaves settings of torch and accelerate behind."""
    script = tmp_path / "step.py"
    script.write_text(
        "import json, sys\n"
        "from datasets import Dataset\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "from trl import GRPOConfig, GRPOTrainer\n"
        "from cascade_rl.rewarding.for_trl import trl_reward\n"
        "folder, out = sys.argv[1:]\n"
        "rows = Dataset.from_list([{'prompt': 'say a', 'letter': c, 'instruction_id_list': ['punctuation:no_comma',\n"
        "    'length_constraints:number_words'], 'kwargs': [{}, {'relation': 'less than', 'num_words': 999}],\n"
        "    'tests': json.dumps({'inputs': ['1'], 'outputs': ['2']})} for c in 'abcdefgh'])\n"
        "config = GRPOConfig(output_dir=out, per_device_train_batch_size=8, num_generations=4, max_completion_length=8,\n"
        "    max_steps=1, logging_steps=1, report_to=[], use_cpu=True, save_strategy='no', learning_rate=1e-2)\n"
        "kept = {'mode': 'instruct', 'workers': 1}\n"
        "rewards = [trl_reward('one_letter:score', **kept), trl_reward('rewards.code:verify', **kept),\n"
        "    trl_reward('rewards.instruction_following:verify', **kept)]\n"
        "program = [[{'role': 'assistant', 'content': text}] for text in\n"
        "    ('```python\\nprint(int(input()) * 2)\\n```', '```python\\nprint(3)\\n```')]\n"
        "row = [rows[0], rows[0]]\n"
        "verdicts = [reward(prompts=['x'] * 2, completions=program, **{key: [r[key] for r in row] for key in row[0]\n"
        "    if key != 'prompt'}) for reward in rewards[1:]]\n"
        "model = AutoModelForCausalLM.from_pretrained(folder)\n"
        "trainer = GRPOTrainer(model=model, processing_class=AutoTokenizer.from_pretrained(folder), args=config,\n"
        "    train_dataset=rows, reward_funcs=rewards)\n"
        "before = {name: weight.detach().clone() for name, weight in model.named_parameters()}\n"
        "trainer.train()\n"
        "moved = sum(not weight.detach().equal(before[name]) for name, weight in trainer.model.named_parameters())\n"
        "print(json.dumps({**trainer.state.log_history[0], 'verdicts': verdicts, 'moved': moved}))\n"
    )
    (tmp_path / "one_letter.py").write_text(
        "def score(response, *, letter):\n    return 0.25 + 0.5 * (sum(map(ord, response)) % 97) / 97\n"
    )
    from cascade_rl.models import build

    model = tmp_path / "model"
    build("tiny-qwen3", model, seed=1, args={"hidden_size": 64, "layers": 1, "intermediate_size": 128, "context": 64})
    done = subprocess.run(
        [sys.executable, str(script), str(model), str(tmp_path / "out")], capture_output=True, text=True, cwd=tmp_path, timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    log = json.loads(done.stdout.strip().splitlines()[-1])
    assert 0.25 <= log["rewards/one_letter.score/mean"] <= 0.75
    assert log["verdicts"] == [[1.0, 0.0], [1.0, 1.0]]  # on rows of the dataset, whose empty kwargs are Nones now
    assert log["rewards/rewards.code.verify/mean"] == 0
    assert 0 <= log["rewards/rewards.instruction_following.verify/mean"] <= 1
    assert log["reward_std"] > 0
    assert log["moved"] > 0  # the model was trained by it
