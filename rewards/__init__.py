"""Rewards, one domain a file. To add one, write a function of ``response`` and the columns of your rows::

    # rewards/my_domain.py
    def score(response: str, *, answer: str) -> float:
        return float(response.strip() == answer)

and name it in a recipe: ``reward: {use: "rewards.my_domain:score"}``. Deadlines, worker processes and batching are
the framework's; ``cascade-rl check`` says which parameter finds no column.

- Parameters bind by name: ``response`` (the text after ``</think>``), ``completion`` (all of it), ``prompt``,
  ``messages``, ``truncated``, then columns of the row, then keys of the recipe's ``reward:`` section.
- Return a number, or ``cascade_rl.rewarding.Score(value, details)``; the details are kept with the rollout.
- A wrong answer is a low score. An exception says that the *grader* is broken: that rollout is left out and counted.
- ``async def`` for judges and servers; a class with ``score`` for what should be set up once per worker process, and
  with ``combine(groups)`` for values that depend on a rollout's siblings.

A folder ``rewards/`` of your own, beside the recipe or where you start, joins this package when it has no
``__init__.py``.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
