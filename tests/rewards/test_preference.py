"""Preference rewards. Values of the language rule and of the combined reward are worked out by hand."""

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding import RewardError, Scorer, load_reward
from cascade_rl.rewarding.binding import check_binding
from cascade_rl.rewarding.loading import fingerprint
from cascade_rl.rewarding.reward_model import RewardModel, RewardModelError
from cascade_rl.rewarding.reward_text import RewardText
from cascade_rl.rewarding.trial import try_reward
from cascade_rl.types import CascadeError, Group, Prompt, Rollout, Score, Stop
from rewards import chat_server
from rewards.chat_server import ServerDown
from rewards.preference import PreferenceReward, VerifiedPreference, standardised
from rewards.preference_server import ServedRewardModel
from tests.rewarding import tiny_reward_model
from tests.rewarding.tiny_reward_model import CONVERSATIONS
from tests.rewards.fake_server import FakeServer, plan

ASKED = ({"role": "user", "content": "Name a colour."},)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(chat_server, "_WAIT_S", (0.01, 0.02))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_reward_model.build(tmp_path_factory.mktemp("rm") / "rm")


def group_of(texts, prompt=None, scores=None):
    prompt = prompt or Prompt("p", ASKED, thinking=True)
    rollouts = [
        text if isinstance(text, Rollout) else Rollout(prompt.id, i, (), (), text, Stop.EOS, 0)
        for i, text in enumerate(texts)
    ]
    return Group(prompt, (), rollouts, scores or [Score(0.0)] * len(rollouts))


def alone(value):
    return [value]


class Told(RewardModel):
    """Scores an answer by a table."""

    def __init__(self, table):
        self.table, self.seen = table, []

    def score(self, conversations, gather=alone):
        self.seen += conversations
        return [self.table[answer] for _, answer in conversations]


def told(reward, table):
    reward._backend = Told(table)
    return reward


# --- RLHF: the raw score and the language rule -----------------------------------------------------------------------


def combined(groups, table, gather=alone, **options):
    return told(PreferenceReward("stage:rm", **options), table).combine(groups, gather)


def test_the_raw_score_of_what_follows_the_thinking():
    reward = told(PreferenceReward("stage:rm"), {"blue": 2.5, "<think>endless": -7.0, "red": 1.0})
    texts = ["<think>a</think>\n\nblue", "<think>endless", "<think>x</think>y</think>red"]
    scores = reward.combine([group_of(texts)], alone)
    assert scores == [
        [Score(2.5, {"parts": {"rm": 2.5}}), Score(-7.0, {"parts": {"rm": -7.0}}), Score(1.0, {"parts": {"rm": 1.0}})]
    ]
    assert reward._backend.seen == [(ASKED, "blue"), (ASKED, "<think>endless"), (ASKED, "red")]


def test_another_language_gets_the_lowest_raw_score_of_the_step_less_10():
    groups = [
        group_of(["<think>hm</think>blue", "<think>嗯</think>red"]),  # in the thinking alone
        group_of(["蓝色", "green"]),
    ]
    (one, mixed), (chinese, green) = combined(groups, {"blue": 3.0, "red": 9.0, "蓝色": -2.0, "green": 1.0})
    # The lowest raw score is -2.0, of a rollout that is penalised itself: -2 - 10 = -12, for both alike.
    assert (one.value, mixed.value, chinese.value, green.value) == (3.0, -12.0, -12.0, 1.0)
    assert mixed.details["parts"] == {"rm": 9.0}
    assert "Han" in mixed.details["foreign"]
    assert "foreign" not in one.details


def test_the_lowest_score_is_that_of_all_ranks():
    handed = []

    def gather(value):
        handed.append(value)
        return [4.0, value, -30.0]

    ((score, _),) = combined([group_of(["蓝色", "green"])], {"蓝色": -2.0, "green": 1.0}, gather)
    assert score.value == -40.0
    assert handed == [-2.0]
    assert combined([], {}, gather) == []
    assert handed == [-2.0, math.inf]  # a rank without rollouts takes part, and lowers nothing


@pytest.mark.parametrize(
    "messages",
    [
        ({"role": "user", "content": "用一个词回答"},),
        ({"role": "user", "content": "What does 你好 mean?"},),  # not purely English
        (
            {"role": "user", "content": "你好"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "more"},
        ),
        ({"role": "user", "content": [{"type": "text", "text": "你好"}]},),
    ],
)
def test_the_rule_is_for_purely_latin_prompts(messages):
    ((score,),) = combined([group_of(["Привет"], Prompt("p", messages))], {"Привет": 1.0})
    assert score.value == 1.0


def test_what_is_no_language_is_not_foreign_and_the_rule_can_be_switched_off():
    texts = ["π ≈ 3.14 🙂", "```\n# 注释\n```", "Привет"]
    table = dict.fromkeys(texts, 1.0)
    assert [s.value for s in combined([group_of(texts)], table)[0]] == [1.0, 1.0, -9.0]
    assert [s.value for s in combined([group_of(texts)], table, mixed_language="ignore")[0]] == [1.0, 1.0, 1.0]


def test_what_has_no_score_is_an_error_and_does_not_count_as_lowest():
    table = {"a": RewardModelError("too long"), "Привет": 1.0, "b": 2.0}
    ((failed, mixed, fine),) = combined([group_of(list(table))], table)
    assert (failed.error, mixed.value, fine.value) == ("too long", -9.0, 2.0)


def test_what_was_settled_as_a_failure_stays_so_and_is_not_scored():
    settled = [Score(-1.0, {"truncated": True}), Score(0.0), Score(0.0)]
    reward = told(PreferenceReward("stage:rm"), {"Привет": 1.0, "b": 2.0})
    ((cut, mixed, fine),) = reward.combine([group_of([CUT, "Привет", "b"], scores=settled)], alone)
    assert (cut, mixed.value, fine.value) == (settled[0], -9.0, 2.0)
    assert [answer for _, answer in reward._backend.seen] == ["Привет", "b"]


def test_another_language_of_the_same_script_counts_too():
    texts = ["<think>Il faut que nous trouvions une couleur qui est dans le ciel</think>blue", "blue"]
    table, prompt = {"blue": 1.0}, Prompt("p", ({"role": "user", "content": "What is the colour of the sky?"},))
    assert [s.value for s in combined([group_of(texts, prompt)], table)[0]] == [-9.0, 1.0]
    assert [s.value for s in combined([group_of(texts, prompt)], table, detector="script")[0]] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mixed_language": "forbid"}, "mixed_language"),
        ({"detector": "fasttext"}, "detector"),
        ({"dtype": "int8"}, "dtype"),
        ({"read_at": "start"}, "read_at"),
        ({"read_at": "start", "url": "http://x"}, "read_at"),
        ({"url": "localhost:8000"}, "http"),
    ],
)
def test_options_that_make_no_sense(options, says):
    with pytest.raises(CascadeError, match=says):
        PreferenceReward("stage:rm", **options)


# --- By the framework ------------------------------------------------------------------------------------------------


def scored(config, groups, thinking=True, overlong="score"):
    with Scorer(config, [], 1, thinking) as scorer:
        waiting = [[scorer.submit_whole(group.prompt, one, overlong) for one in group.rollouts] for group in groups]
        before = [
            Group(group.prompt, (), group.rollouts, [future.result(120) for future in futures])
            for group, futures in zip(groups, waiting, strict=True)
        ]
        return before, scorer.combine(before)


def config(name="PreferenceReward", **keys):
    return RewardConfig(use=f"rewards.preference:{name}", timeout_s=120, **keys)


CUT = Rollout("p", 1, (), (), "<think>never", Stop.LENGTH, 0)


def test_a_stage_scores_with_the_model_in_its_own_process_truncated_ones_too(folder):
    group = group_of(["<think>a</think>blue", CUT, "красный"])
    before, (after,) = scored(config(model=folder), [group])
    # Nobody who asks for single scores takes the wait for zeros.
    assert all("groups" in score.error for score in before[0].scores)
    blue, cut, red = RewardModel(folder).score([(ASKED, "blue"), (ASKED, "<think>never"), (ASKED, "красный")])
    assert [score.error for score in after.scores] == [None] * 3
    assert [score.value for score in after.scores] == [blue, cut, min(blue, cut, red) - 10]
    assert [score.details["parts"]["rm"] for score in after.scores] == [blue, cut, red]


def test_a_missing_model_stops_the_stage_with_its_name(tmp_path):
    with pytest.raises(RewardModelError, match="/none"):
        scored(config(model=str(tmp_path / "none")), [group_of(["a"])])


def test_before_the_stage_nothing_is_looked_at():
    loaded = load_reward(config(model="stage:reward-model"), [])
    assert check_binding(loaded, set()) == []
    assert "offload" in check_binding(load_reward(config(model="x", ofload=True), []), set())[0]
    assert "`model`" in check_binding(load_reward(config(), []), set())[0]
    assert try_reward(config(model="stage:reward-model"), [], [Prompt("p", ASKED)], True).fatal == ""


# --- IF-RL: preference among what is verified ------------------------------------------------------------------------


def test_z_by_hand():
    # mean 2, squared deviations 1 + 0 + 1, sample variance 2 / 2 = 1
    assert standardised([1.0, 2.0, 3.0]) == pytest.approx([-1.0, 0.0, 1.0], abs=2e-6)
    assert standardised([5.0, 5.0]) == [0.0, 0.0]
    assert standardised([0.1] * 3) == [0.0] * 3
    assert standardised([7.0]) == [0.0]
    assert standardised([]) == []


def lifted(values, raws, **changes):
    texts = [str(index) for index in range(len(values))]
    scores = [value if isinstance(value, Score) else Score(value) for value in values]
    table = dict(zip(texts, raws, strict=True))
    (row,) = told(VerifiedPreference("stage:rm"), table).combine([group_of(texts, scores=scores)], alone)
    return row


def test_a_group_alone_has_the_values_that_it_has_among_others(folder):
    groups = [
        group_of(["a", "b", "cc"], scores=[Score(1.0), Score(0.0), Score(1.0)]),
        group_of(["ddd", "e"], scores=[Score(1.0), Score(1.0)]),
    ]
    reward = VerifiedPreference(str(folder))
    assert reward.combines_groups_alone
    together = reward.combine(groups, alone)
    for group, row in zip(groups, together, strict=True):
        (by_itself,) = VerifiedPreference(str(folder)).combine([group], alone)
        assert [score.value for score in by_itself] == pytest.approx([score.value for score in row], abs=1e-6)


def test_a_reward_model_shared_out_over_ranks_cannot_score_a_group_alone():
    assert not VerifiedPreference("stage:rm", shard=True).combines_groups_alone


def test_a_passing_answer_has_one_and_the_sigmoid_of_its_z():
    row = lifted([1.0, 0.0, 1.0], [1.0, 2.0, 3.0])
    # z = -1, 0, 1; sigmoid(1) = 0.731059, sigmoid(-1) = 0.268941
    assert [score.value for score in row] == pytest.approx([1.268941, 0.0, 1.731059], abs=1e-5)
    assert [score.details["parts"] for score in row] == [
        {"verified": 1.0, "rm": 1.0}, {"verified": 0.0, "rm": 2.0}, {"verified": 1.0, "rm": 3.0},
    ]  # fmt: skip


def test_two_scores_are_always_as_far_apart():
    # std of two values is |difference| / sqrt(2), so z = -0.707, 0.707: sigmoid(0.7071068) = 0.669762
    assert [s.value for s in lifted([1.0, 1.0], [-40.0, 2.0])] == pytest.approx([1.330238, 1.669762], abs=1e-5)


def test_equal_scores_say_nothing():
    assert [s.value for s in lifted([1.0, 0.0, 1.0], [0.3, 0.3, 0.3])] == [1.5, 0.0, 1.5]


def test_part_of_a_pass_is_no_pass_and_extremes_stay_finite():
    assert lifted([0.9, 1.0], [1.0, 1.0])[0].value == 0.0
    row = lifted([1.0] * 5, [-1e30, 0.0, 0.0, 0.0, 1e30])
    assert all(1.0 <= score.value <= 2.0 for score in row)


def test_failed_verifiers_and_reward_models_are_errors():
    row = lifted([Score(0.0, {}, "verifier broke"), 1.0, 1.0, 1.0], [5.0, RewardModelError("too long"), 1.0, 3.0])
    # The first one's preference still counts for the group: mean 3, std 2, z = (1 - 3) / 2 and (3 - 3) / 2.
    assert row[1].error == "too long"
    assert [row[2].value, row[3].value] == pytest.approx([1 + 1 / (1 + math.e), 1.5], abs=1e-5)
    assert row[0].value == 0.0  # the Scorer keeps the error there was


def test_what_hung_its_verifier_or_was_cut_off_has_the_failure_value():
    row = lifted([Score(-1.0, {"timeout": True}), 1.0], [1.0, 1.0])
    assert row[0].value == -1.0
    cut = group_of([CUT, "b", "c"], scores=[Score(1.0, {"truncated": True}), Score(1.0), Score(0.0)])
    table = {"<think>never": 0.0, "b": 3.0, "c": 0.0}
    ((first, second, _),) = told(VerifiedPreference("stage:rm"), table).combine([cut], alone)
    assert (first.value, first.details["parts"]["verified"]) == (1.0, 0.0)  # a failure of 1 is no pass all the same
    # mean 1, deviations -1, 2, -1, std sqrt(3), z = 2 / sqrt(3): what was cut off counts for the mean
    assert second.value == pytest.approx(1 + 1 / (1 + math.exp(-2 / math.sqrt(3))), abs=1e-5)


ROW = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def test_a_stage_verifies_in_workers_and_prefers_in_its_own_process(folder):
    texts = ["<think>a, b</think>blue", "<think>a</think>blue, red", "<think>a</think>red", "<think>no answer", CUT]
    group = group_of(texts, Prompt("p", ASKED, ROW, thinking=True))
    before, (after,) = scored(config("VerifiedPreference", model=folder), [group])
    assert [score.value for score in before[0].scores] == [1.0, 0.0, 1.0, 0.0, 0.0]
    answers = ["blue", "blue, red", "red", "<think>no answer", "<think>never"]
    raws = RewardModel(folder).score([(ASKED, answer) for answer in answers])
    z = standardised(raws)
    expected = [1 + 1 / (1 + math.exp(-z[0])), 0.0, 1 + 1 / (1 + math.exp(-z[2])), 0.0, 0.0]
    assert [score.value for score in after.scores] == pytest.approx(expected)
    assert after.scores[0].details["followed"] == [True]
    assert after.scores[0].details["parts"] == {"verified": 1.0, "rm": raws[0]}


def test_columns_and_options_reach_the_verifier(tmp_path):
    (tmp_path / "own_checks.py").write_text(
        "def check(response, *, word, needs=1, prompt=''):\n"
        "    return {'value': 0} if prompt == 'x' else float(response.count(word) >= needs)\n"
        "def slow(response): ...\n"
        "async def later(response): return 1.0\n"
    )
    keys = {"model": "stage:rm", "verifier": "own_checks:check"}
    with Scorer(config("VerifiedPreference", **keys, needs=2), [tmp_path], 1, True) as scorer:

        def value(text, columns, messages=ASKED):
            rollout = Rollout("p", 0, (), (), text, Stop.EOS, 0)
            return scorer.submit(Prompt("p", messages, columns), rollout).result(60)

        assert value("<think>x x</think>x", {"word": "x"}).value == 0.0
        assert value("<think></think>x x", {"word": "x", "other": 1}).value == 1.0
        assert value("x x", {"word": "x"}).value == 0.0  # no answer in thinking mode
        assert "needs `word`" in value("</think>x", {}).error
        assert "returned dict" in value("</think>x", {"word": "x"}, ({"role": "user", "content": "x"},)).error
    with pytest.raises(RewardError, match="`neds`.*needs"):
        load_reward(config("VerifiedPreference", **keys, neds=2), [tmp_path]).get_ready()
    with pytest.raises(RewardError, match="async"):
        load_reward(config("VerifiedPreference", model="m", verifier="own_checks:later"), [tmp_path]).get_ready()
    with pytest.raises(RewardError, match="offload.*url"):
        load_reward(config("VerifiedPreference", **keys, url="http://x", offload=True), [tmp_path]).get_ready()


def test_check_tries_the_verifier_on_sample_rows_and_the_identity_follows_its_code(tmp_path):
    prompts = [Prompt("p", ASKED, {"word": "x"})]
    trial = try_reward(config("VerifiedPreference", model="stage:rm"), [], prompts, True)
    assert "needs `instruction_id_list`" in trial.fatal
    assert try_reward(config("VerifiedPreference", model="stage:rm"), [], [Prompt("p", ASKED, ROW)], True).fatal == ""
    (tmp_path / "own_rule.py").write_text("def check(response): return 1.0\n")
    own = config("VerifiedPreference", model="stage:rm", verifier="own_rule:check")
    before = fingerprint(load_reward(own, [tmp_path]))
    (tmp_path / "own_rule.py").write_text("def check(response): return 0.0\n")
    assert fingerprint(load_reward(own, [tmp_path])) != before


# --- A reward model behind a server ----------------------------------------------------------------------------------


def reply(value):
    return {"data": [{"index": 0, "label": "LABEL_0", "probs": [value], "num_classes": 1}]}


def raw_of(ids):
    return sum(ids) % 97 / 10 - 5


def raw_or_probability(path, body):
    raw = raw_of(body["input"])
    return reply(1 / (1 + math.exp(-raw)) if body["use_activation"] else raw)


def ask(folder, server, answer="blue", times=1, **options):
    async def all_of_them():
        model = ServedRewardModel(folder, server.url, tries=2, **options)
        return [await model.ask(ASKED, answer) for _ in range(times)]

    return asyncio.run(all_of_them())


def test_the_server_gets_token_ids_and_is_asked_for_raw_scores(folder):
    ids = RewardText(folder).tokens(ASKED, "blue")
    with FakeServer(raw_or_probability) as server:
        assert ask(folder, server, times=3, served_model="rm") == [raw_of(ids)] * 3
        path, body = server.asked[0]
        assert path == "/classify"
        assert body == {"model": "rm", "input": ids, "use_activation": False}
        assert [body["use_activation"] for _, body in server.asked] == [False, True, False, False]


def test_a_server_that_gives_probabilities_whatever_it_is_asked_is_refused(folder):
    with FakeServer(plan(reply(0.7))) as server, pytest.raises(ServerDown, match="use_activation"):
        ask(folder, server)
    with FakeServer(plan(reply(-3.5))) as server:  # started without any activation: raw all the same
        assert ask(folder, server) == [-3.5]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((500, "no luck"), "2 tries.*500: no luck"),
        ((400, "This model's maximum context length is 8"), "400: .*maximum context length"),
        ("<html>", "JSON"),
        (json.dumps(reply(float("nan"))), r"\bnan\b"),
        (json.dumps(reply(float("inf"))), r"\binf\b"),
        ({"data": [{"probs": [0.1, 0.9]}]}, "single score"),
        ({"data": []}, "single score"),
        ({"data": [{"embedding": [0.1]}]}, "single score"),
        ([], "single score"),
        (reply("high"), "single score"),
    ],
)
def test_a_server_that_gives_no_score_is_an_error(folder, answer, says):
    with FakeServer(plan(answer)) as server, pytest.raises(ServerDown, match=says):
        ask(folder, server)


def test_a_stage_asks_the_server_while_others_generate(folder):
    group = group_of(["<think>a</think>blue", CUT, "красный", "0" * 400])
    ids = [RewardText(folder).tokens(ASKED, answer) for answer in ("blue", "<think>never", "красный")]
    with FakeServer(raw_or_probability) as server:
        before, (after,) = scored(config(model=folder, url=f"{server.url}/v1"), [group])
        raws = [raw_of(one) for one in ids]
        assert [score.value for score in before[0].scores[:3]] == raws
        assert [score.value for score in after.scores[:3]] == [raws[0], raws[1], min(raws) - 10]
        assert after.scores[2].details["parts"] == {"rm": raws[2]}
        assert "longer" in after.scores[3].error


def test_no_more_requests_at_once_than_asked_for(folder):
    barrier = threading.Barrier(2)
    first = threading.Lock()
    seen = []

    def answer(path, body):
        with first:
            seen.append(body)
            warm = len(seen) > 2  # the first two settle what the server gives
        if warm:
            barrier.wait(60)
        return raw_or_probability(path, body)

    group = group_of([f"<think></think>{'x' * n}" for n in range(1, 8)])
    with FakeServer(answer) as server:
        before, _ = scored(config(model=folder, url=server.url, concurrency=2), [group])
        assert all(score.error is None for score in before[0].scores)
        assert server.most_under_way == 2


def test_under_penalise_the_server_is_not_asked_about_what_was_cut_off(folder):
    with FakeServer(raw_or_probability) as server:
        reward = config(model=folder, url=server.url, failure=-3.0)
        _, (after,) = scored(reward, [group_of(["<think></think>blue", CUT])], overlong="penalise")
        assert after.scores[1] == Score(-3.0, {"truncated": True})
        assert after.scores[0].value == raw_of(server.asked[0][1]["input"])
        assert len(server.asked) == 2  # once with, once without activation


def test_a_server_that_is_down_is_an_error_and_no_zero(folder):
    with FakeServer(plan((503, "loading"))) as server:
        _, (after,) = scored(config(model=folder, url=server.url, tries=2), [group_of(["a", "b"])])
        assert all("status 503: loading" in score.error for score in after.scores)


def test_verified_preference_asks_the_server_when_all_are_there(folder):
    texts = ["<think></think>blue", "<think></think>red"]
    group = group_of(texts, Prompt("p", ASKED, ROW, thinking=True))
    ids = [RewardText(folder).tokens(ASKED, answer) for answer in ("blue", "red")]
    with FakeServer(raw_or_probability) as server:
        reward = config("VerifiedPreference", model=folder, url=server.url, at_once=2)
        with Scorer(reward, [], 1, True) as scorer:
            for _ in range(2):  # one loop and its connections serve every step
                scores = [scorer.submit(group.prompt, one).result(60) for one in group.rollouts]
                (after,) = scorer.combine([Group(group.prompt, (), group.rollouts, scores)])
                z = standardised([raw_of(one) for one in ids])
                assert [score.value for score in after.scores] == pytest.approx([1 + 1 / (1 + math.exp(-x)) for x in z])
    with FakeServer(plan((500, "down"))) as server:
        reward = config("VerifiedPreference", model=folder, url=server.url, tries=1, api_key_env="PATH")
        _, (after,) = scored(reward, [group])
        assert all("status 500: down" in score.error for score in after.scores)


# --- A real server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pooling_server(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    log = Path(folder).parent / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--runner", "pooling",
                "--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port),
                "--served-model-name", "rm",
            ],
            env=environment, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 600
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_vllm_server_gives_the_scores_of_the_stages_own_process(folder, pooling_server):
    here = RewardModel(folder).score(CONVERSATIONS)

    async def ask_all():
        model = ServedRewardModel(folder, pooling_server, served_model="rm")
        return await asyncio.gather(*(model.ask(*conversation) for conversation in CONVERSATIONS))

    there = asyncio.run(ask_all())
    print(f"largest difference {max(abs(a - b) for a, b in zip(here, there, strict=True)):.2e} of scores {here}")
    assert there == pytest.approx(here, abs=1e-4)
    assert any(not 0.0 <= score <= 1.0 for score in there)

    groups = [group_of(["<think>a</think>blue", CUT, "красный"])]
    _, (local,) = scored(config(model=folder), groups)
    _, (remote,) = scored(config(model=folder, url=pooling_server), groups)
    assert [s.value for s in remote.scores] == pytest.approx([s.value for s in local.scores], abs=1e-4)
