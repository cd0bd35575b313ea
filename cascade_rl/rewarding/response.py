"""Which part of a completion is the answer."""

from __future__ import annotations

END_OF_THINKING = "</think>"


def response_text(completion: str, thinking: bool) -> str:
    """The text after the last ``</think>``.

    Without the tag a thinking completion never came to an answer: empty. Without thinking, all of it is the answer.
    """
    if END_OF_THINKING in completion:
        return completion.rsplit(END_OF_THINKING, 1)[1].strip("\n")
    return "" if thinking else completion
