import asyncio
import json
import threading

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding import RewardError, Scorer
from cascade_rl.types import Group, Prompt, Rollout, Score, Stop
from rewards import chat_server
from rewards.chat_server import ServerDown
from rewards.judge import PairwiseJudge, RubricJudge
from rewards.judging import Unreadable, VerdictCache, last_object
from tests.rewards.fake_server import FakeServer, plan, said

ASKED = ({"role": "user", "content": "Name a colour."},)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(chat_server, "_WAIT_S", (0.01, 0.02))


def graded(server, response="Blue.", row=None, **options):
    async def ask():
        judge = RubricJudge(base_url=f"{server.url}/v1", model="judge", **options)
        return await judge.score(response, messages=ASKED, **(row or {}))

    return asyncio.run(ask())


# --- Grades ----------------------------------------------------------------------------------------------------------


def test_a_grade_becomes_a_value_from_0_to_1():
    with FakeServer(plan(said('<think>{"score": 1}</think>Fine.\n{"score": 4}'))) as server:
        assert graded(server) == Score(0.75, {"grade": 4.0})
        assert graded(server, row={"scale": 10, "rubric": "Is it a warm colour?"}).value == pytest.approx(3 / 9)
        path, body = server.asked[1]
        assert path == "/v1/chat/completions"
        assert body["model"] == "judge"
        question = body["messages"][0]["content"]
        assert "Name a colour." in question
        assert "<answer>\nBlue.\n</answer>" in question
        assert "Is it a warm colour?" in question
        assert "from 1 (worst) to 10 (best)" in question
        assert "reference_answer" not in question
        graded(server, row={"reference": "Red."})
        assert "<reference_answer>\nRed.\n</reference_answer>" in server.asked[2][1]["messages"][0]["content"]


def test_criteria_count_by_weight():
    with FakeServer(plan(said('{"criteria": [true, false, true]}'))) as server:
        weighed = ["short", {"text": "warm", "weight": 2.0}, {"text": "a colour", "weight": 3}]
        assert graded(server, row={"criteria": weighed}).value == pytest.approx(4 / 6)
        assert graded(server, row={"criteria": ["a", "b", "c"]}).value == pytest.approx(2 / 3)
        assert "1. short\n2. warm\n3. a colour" in server.asked[0][1]["messages"][0]["content"]


@pytest.mark.parametrize(
    "row",
    [
        {"criteria": []}, {"criteria": [3]}, {"criteria": [{"text": "a", "weight": 0}]}, {"criteria": [""]},
        {"criteria": [{"text": "a", "weight": float("nan")}]}, {"scale": 1}, {"scale": True}, {"scale": 2.5},
    ],
)  # fmt: skip
def test_rows_that_ask_for_no_verdict_are_errors(row):
    with FakeServer(plan(said("{}"))) as server, pytest.raises(ValueError, match="criteri|scale|weight"):
        graded(server, row=row)


# --- Servers that fail -----------------------------------------------------------------------------------------------

GOOD = said('{"score": 5}')


@pytest.mark.parametrize(
    "before",
    [
        (500, "oh"), (503, "busy"), (429, "slow down"), "no json", said("I like it."), said('{"score": 6}'),
        said('{"score": 0}'), said('{"score": NaN}'), said('{"score": "five"}'), said('{"score": true}'),
        said('{"grade": 5}'), said('{"score": [5]}'), said("[5]"), said('{"score": 5'), said(""),
        said('{"score": 5}</think>'),
    ],
)  # fmt: skip
def test_after_a_bad_answer_the_judge_is_asked_again(before):
    with FakeServer(plan(before, GOOD)) as server:
        assert graded(server).value == 1.0
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answers", "says", "asked"),
    [
        (((500, "oh dear"),), "2 tries.*500: oh dear", 2),
        (("<html>",), "JSON: <html>", 2),
        (((404, "no such model"),), "404: no such model", 1),
        ((said("Nice."),), "3 replies.*JSON.*'Nice.'", 3),
        ((said('{"score": NaN}'),), "3 replies", 3),
        ((said('{"score": 9}'),), "1 to 5.* 9", 3),
        (({"choices": []},), "no message", 1),
        (({"choices": [{"message": {"content": None}}]},), "no message", 1),
        (([1, 2],), "no message", 1),
    ],
)
def test_without_a_verdict_there_is_no_score(answers, says, asked):
    with FakeServer(plan(*answers)) as server:
        with pytest.raises(ServerDown, match=says):
            graded(server, tries=2)
        assert len(server.asked) == asked


def test_another_reply_is_asked_for_with_another_seed_and_some_temperature():
    with FakeServer(plan(said("hm"), GOOD)) as server:
        graded(server)
        sent = [(body["seed"], body["temperature"]) for _, body in server.asked]
        assert sent == [(0, 0.0), (1, 0.5)]


def test_no_server_at_all_and_one_that_hangs():
    with pytest.raises(ServerDown, match="2 tries.*ConnectError"):
        asyncio.run(RubricJudge("http://127.0.0.1:9/v1", "m", tries=2).score("x", messages=ASKED))
    released = threading.Event()
    with FakeServer(lambda path, body: released.wait(60) and GOOD) as server:
        with pytest.raises(ServerDown, match="ReadTimeout"):
            graded(server, tries=2, request_timeout_s=0.1)
        released.set()


def test_keys_and_addresses(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with FakeServer(plan(GOOD)) as server:
        graded(server, api_key_env="JUDGE_KEY")
        assert server.headers_seen[0]["Authorization"] == "Bearer secret"
    with pytest.raises(ServerDown, match="NO_SUCH_KEY"):
        RubricJudge("http://x/v1", "m", api_key_env="NO_SUCH_KEY")
    with pytest.raises(ServerDown, match="http://"):
        RubricJudge("judge:8000/v1", "m")


# --- Asking once -----------------------------------------------------------------------------------------------------


def test_equal_questions_are_asked_once_even_at_the_same_time():
    with FakeServer(plan(GOOD)) as server:

        async def ask():
            judge = RubricJudge(f"{server.url}/v1", "judge")
            together = await asyncio.gather(*(judge.score("Blue.", messages=ASKED) for _ in range(5)))
            later = await judge.score("Blue.", messages=ASKED)
            other = await judge.score("Green.", messages=ASKED)
            return [*together, later, other]

        assert asyncio.run(ask()) == [Score(1.0, {"grade": 5.0})] * 7
        assert len(server.asked) == 2


def test_one_caller_who_gives_up_does_not_take_the_answer_from_the_others():
    arrived, released = threading.Event(), threading.Event()

    def answer(path, body):
        arrived.set()
        released.wait(60)
        return GOOD

    with FakeServer(answer) as server:

        async def ask():
            judge = RubricJudge(f"{server.url}/v1", "judge")
            first = asyncio.ensure_future(judge.score("Blue.", messages=ASKED))
            second = asyncio.ensure_future(judge.score("Blue.", messages=ASKED))
            await asyncio.to_thread(arrived.wait, 60)
            first.cancel()
            released.set()
            return await second

        assert asyncio.run(ask()).value == 1.0
        assert len(server.asked) == 1


def test_a_failure_is_not_remembered():
    with FakeServer(plan((400, "bad day"), GOOD)) as server:

        async def ask():
            judge = RubricJudge(f"{server.url}/v1", "judge")
            with pytest.raises(ServerDown, match="bad day"):
                await judge.score("Blue.", messages=ASKED)
            return await judge.score("Blue.", messages=ASKED)

        assert asyncio.run(ask()).value == 1.0


def test_the_cache_file_survives_restarts_and_a_torn_last_line(tmp_path):
    file = tmp_path / "deep" / "verdicts.jsonl"
    with FakeServer(plan(GOOD)) as server:
        graded(server, cache=str(file))
        graded(server, "Green.", cache=str(file))
        assert len(server.asked) == 2
        graded(server, cache=str(file))
        graded(server, "Green.", cache=str(file))
        assert len(server.asked) == 2
        file.write_bytes(file.read_bytes()[:-9])  # killed while it wrote the last line
        assert graded(server, cache=str(file)).value == 1.0
        assert len(server.asked) == 2
        graded(server, "Green.", cache=str(file))
        assert len(server.asked) == 3
        graded(server, "Green.", cache=str(file))
        assert len(server.asked) == 3
        graded(server, cache=str(file), temperature=0.7)  # another question
        assert len(server.asked) == 4


def test_a_cache_file_with_nonsense_is_no_verdict(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    with FakeServer(plan(GOOD)) as server:
        graded(server, cache=str(file))
        key = json.loads(file.read_text())["key"]
        for verdict in ({"score": 99}, [5], None, "x"):
            file.write_text(f"garbage\n[]\n{json.dumps({'key': key, 'verdict': verdict})}\n")
            assert graded(server, cache=str(file)).value == 1.0
        assert len(server.asked) == 5


def test_the_cache_is_shared_by_lines(tmp_path):
    one, other = VerdictCache(tmp_path / "c"), VerdictCache(tmp_path / "c")
    one.put("a", {"x": 1})
    other.put("b", {"x": "\n"})
    one.put("c", {"x": 3})
    fresh = VerdictCache(tmp_path / "c")
    assert [fresh.get(key) for key in "abcd"] == [
        (True, {"x": 1}), (True, {"x": "\n"}), (True, {"x": 3}), (False, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('first {"a": 1} then ```json\n{"a": {"b": 2}}\n```', {"a": {"b": 2}}),
        ('{"a": 1} {oh', {"a": 1}),
        ('{{"a": 1}}', {"a": 1}),
        ("{" * 5000 + '{"a": 1}', {"a": 1}),
    ],
)
def test_the_last_object_of_a_text(text, found):
    assert last_object(text) == found


@pytest.mark.parametrize("text", ["", "[1]", "{a: 1}", '{"a": Infinity}', "{" * 100_000])
def test_texts_without_an_object(text):
    with pytest.raises(Unreadable):
        last_object(text)


# --- By the framework ------------------------------------------------------------------------------------------------


def rollout(text, index=0, stop=Stop.EOS):
    return Rollout("p", index, (), (), text, stop, 0)


def scored(texts, server, use="RubricJudge", thinking=False, **keys):
    prompt = Prompt("p", ASKED, keys.pop("columns", {}), thinking=thinking)
    rollouts = [rollout(*text) if isinstance(text, tuple) else rollout(text) for text in texts]
    config = RewardConfig(use=f"rewards.judge:{use}", base_url=f"{server.url}/v1", model="judge", timeout_s=60, **keys)
    with Scorer(config, [], 1, thinking) as scorer:
        futures = [scorer.submit_whole(prompt, one) for one in rollouts]
        group = Group(prompt, (), rollouts, [future.result(60) for future in futures])
        return scorer.combine([group])[0].scores


def test_concurrency_is_honoured_and_the_thinking_is_not_judged():
    full, barrier = threading.Event(), threading.Barrier(3)

    def answer(path, body):
        barrier.wait(60)  # all three at once, or nobody goes on
        full.set()
        return GOOD

    with FakeServer(answer) as server:
        scores = scored([f"<think>secret</think>{n}" for n in range(6)], server, thinking=True, concurrency=3)
        assert [score.value for score in scores] == [1.0] * 6
        assert server.most_under_way == 3
        assert "secret" not in json.dumps([body for _, body in server.asked])


def test_a_judge_that_is_down_is_an_error_and_no_zero():
    with FakeServer(plan((500, "down"))) as server:
        (score,) = scored(["x"], server, tries=2)
        assert "ServerDown" in str(score.error)
        assert "status 500" in str(score.error)


# --- Pairs -----------------------------------------------------------------------------------------------------------


def between(body):
    """The two answers of a comparison."""
    question = body["messages"][0]["content"]
    return [question.partition(f"<answer_{x}>\n")[2].partition(f"\n</answer_{x}>")[0] for x in "ab"]


def prefers_longer(path, body):
    one, other = map(len, between(body))
    return said(json.dumps({"better": "A" if one > other else "B" if other > one else "tie"}))


def test_siblings_are_compared_in_both_orders():
    with FakeServer(prefers_longer) as server:
        scores = scored(["aaa", "a", "aa", "aa"], server, "PairwiseJudge")
        # aaa beats three; each aa beats a, and ties with the other without being asked (they are the same)
        assert [score.value for score in scores] == pytest.approx([1.0, 0.0, 0.5, 0.5])
        assert all(score.error is None for score in scores)
        assert all(score.details == {"pairs": 3, "agreed": 1.0} for score in scores)
        assert len(server.asked) == 6  # three texts, each pair in both orders; equal questions once


def test_a_ring_asks_about_neighbours():
    with FakeServer(prefers_longer) as server:
        scores = scored(["a", "aa", "aaa", "aaaa"], server, "PairwiseJudge", pairs="ring")
        assert [score.value for score in scores] == [0.0, 0.5, 0.5, 1.0]
        assert len(server.asked) == 8


def test_a_judge_that_always_names_the_first_says_nothing():
    with FakeServer(plan(said('{"better": "A"}'))) as server:
        scores = scored(["a", "b"], server, "PairwiseJudge")
        assert [(score.value, score.details["agreed"]) for score in scores] == [(0.5, 0.0)] * 2


def test_truncated_siblings_take_no_part_and_thinking_is_left_out():
    with FakeServer(prefers_longer) as server:
        texts = [("<think>" + "long" * 9 + "</think>a", 0), ("<think>x</think>aa", 1), ("<think>aaaa", 2, Stop.LENGTH)]
        scores = scored(texts, server, "PairwiseJudge", thinking=True, failure=-1.0)
        assert [score.value for score in scores] == [0.0, 1.0, -1.0]
        assert len(server.asked) == 2


def test_alone_in_its_group_an_answer_has_half_a_point():
    with FakeServer(prefers_longer) as server:
        assert [score.value for score in scored(["a"], server, "PairwiseJudge")] == [0.5]


def test_a_pair_that_cannot_be_judged_is_an_error_of_both():
    def answer(path, body):
        return (400, "too long") if "b" in "".join(between(body)) else prefers_longer(path, body)

    with FakeServer(answer) as server:
        scores = scored(["a", "aa", "aaaa", "b"], server, "PairwiseJudge", pairs="ring")
        assert [score.error is not None for score in scores] == [True, False, True, True]
        assert scores[1].value == 0.5
        assert "too long" in str(scores[0].error)


def test_against_a_reference():
    with FakeServer(prefers_longer) as server:
        scores = scored(
            ["a", "aaa", "aa"], server, "PairwiseJudge", against="reference", columns={"reference": "aa"}, at_once=2
        )
        assert [score.value for score in scores] == [0.0, 1.0, 0.5]
        assert scores[0].details == {"agreed": True}
        (score,) = scored(["a"], server, "PairwiseJudge", against="reference")
        assert "`reference`" in str(score.error)


@pytest.mark.parametrize("options", [{"against": "all"}, {"pairs": "some"}])
def test_options_that_make_no_sense(options):
    with pytest.raises(RewardError, match="|".join(options)):
        PairwiseJudge("http://x/v1", "m", **options)


def test_a_criterion_with_a_null_weight_has_the_usual_one():
    with FakeServer(plan(said('{"criteria": [true, false]}'))) as server:
        row = {"criteria": [{"text": "a", "weight": None}, {"text": "b", "weight": 3}]}
        assert graded(server, row=row).value == pytest.approx(1 / 4)


def test_a_part_whose_text_is_null_is_not_judged_as_none():
    from rewards.judge import conversation

    parts = [{"type": "text", "text": None}, {"type": "text", "text": "hi"}]
    assert conversation([{"role": "user", "content": parts}]) == "[user]\n\nhi"
