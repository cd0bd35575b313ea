"""Several rewards in one stage."""

import pytest

from cascade_rl.rewarding import DomainScorer, RewardError, Score, Scorer
from cascade_rl.rewarding.domains import SINGLE
from cascade_rl.types import Group, Prompt, Rollout, Stop

ONE = "def score(response): return 1.0\ndef two(response): return 2.0\n"
COMBINING = """
from cascade_rl.rewarding import Score
class Share:
    def score(self, response): return Score(float(response), {"own": True})
    def combine(self, groups, gather):
        values = [s.value for g in groups for s in g.scores]
        lowest = min(v for share in gather(values) for v in share)
        return [[Score(s.value - lowest, {"lowest": lowest}) for s in g.scores] for g in groups]
"""


def prompt(domain, name="p"):
    return Prompt(name, ({"role": "user", "content": "q"},), {}, domain=domain)


def rollout(text="x"):
    return Rollout("p", 0, (1,), (0.0,), text, Stop.EOS, 0)


def scorer(project, name="score"):
    return Scorer(project.config(name), [project.folder], 1, False)


BY_GROUP = (
    COMBINING
    + """
class Ranked:
    combines_groups_alone = True
    def score(self, response): return float(response)
    def combine(self, groups):
        assert len(groups) == 1, "another domain was asked, or all groups at once"
        return [[s.value - groups[0].scores[0].value for s in groups[0].scores]]

class Depends(Ranked):
    def __init__(self, alone=True): self.combines_groups_alone = alone
"""
)


def test_a_stage_knows_when_its_values_are_final(project):
    project.write(ONE + BY_GROUP)
    cases = [
        ({"a": "score", "b": "two"}, "never"),
        ({"a": "score", "b": "Ranked"}, "group"),
        ({"a": "Ranked", "b": "Share"}, "step"),
    ]
    for names, expected in cases:
        with DomainScorer({domain: scorer(project, name) for domain, name in names.items()}) as scorers:
            assert scorers.combines == expected


def test_one_group_is_combined_by_the_reward_of_its_domain(project):
    project.write(ONE + BY_GROUP)
    group = Group(prompt("b"), (1,), [rollout(), rollout()], [Score(2.0), Score(5.0)])
    with DomainScorer({"a": scorer(project, "Ranked"), "b": scorer(project, "Ranked")}) as scorers:
        assert [score.value for score in scorers.combine_alone(group).scores] == [0.0, 3.0]


def test_the_instance_has_the_last_word_on_when_its_values_are_final(project):
    project.write(BY_GROUP)
    for alone, expected in ((True, "group"), (False, "step")):
        with Scorer(project.config("Depends", alone=alone), [project.folder], 1, False) as one:
            assert one.combines == expected


def test_the_domain_selects_the_reward(project):
    project.write(ONE)
    with DomainScorer({"a": scorer(project), "b": scorer(project, "two")}) as scorers:
        values = [scorers.submit_whole(prompt(domain), rollout()).result(30).value for domain in "abba"]
        assert values == [1.0, 2.0, 2.0, 1.0]
        with pytest.raises(RewardError, match="'c'.*: a, b"):
            scorers.submit_whole(prompt("c"), rollout())


def test_a_single_reward_is_for_all_domains(project):
    project.write(ONE)
    with DomainScorer({SINGLE: scorer(project)}) as scorers:
        assert scorers.submit_whole(prompt("whatever"), rollout()).result(30).value == 1.0


def test_siblings_are_compared_within_their_domain_and_over_ranks(project):
    project.write(COMBINING)
    with DomainScorer({"a": scorer(project, "Share"), "b": scorer(project, "Share")}) as scorers:
        groups = [
            Group(prompt(domain), (1,), [rollout()], [Score(value, {"own": True})])
            for domain, value in (("a", 5.0), ("b", 1.0), ("a", 7.0))
        ]
        combined = scorers.combine(groups)
        assert [group.scores[0].value for group in combined] == [0.0, 0.0, 2.0]
        assert combined[2].scores[0].details == {"own": True, "lowest": 5.0}
        # Another rank has a lower value in a: the two domains ask in one order, even where a rank has no group.
        asked = []

        def gather(mine):
            asked.append(mine)
            return [mine, [3.0]]

        assert [group.scores[0].value for group in scorers.combine(groups[:1], gather)] == [2.0]
        assert asked == [[5.0], []]
