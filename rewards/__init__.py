"""Rewards, one domain a file. To add one, write a function of ``response`` and the columns of your rows::

    # rewards/my_domain.py
    def score(response: str, *, answer: str) -> float:
        return float(response.strip() == answer)

and name it in a recipe: ``reward: {use: "rewards.my_domain:score"}``. Deadlines, worker processes and batching are
the framework's.
"""
