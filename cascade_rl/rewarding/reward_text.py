"""What a reward model reads: a conversation with its answer, in the model's own chat template, as token ids.

Both ways of asking it (``reward_model`` in this process, a server elsewhere) send these very tokens, so that they
can only differ in arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascade_rl.rewarding.response import END_OF_THINKING
from cascade_rl.rewarding.reward_model_ids import judged_ids
from cascade_rl.types import CascadeError, Message

HEAD = "ForSequenceClassification"
READ_AT = ("end_of_turn", "template_end")
"""Token that the score is read at: the end of the answer's turn, as stages of kind reward_model train it, or whatever
the template writes last, as TRL's RewardTrainer and models trained by it have it (in ChatML a line break more)."""


class RewardModelError(CascadeError):
    """A reward model that cannot be used, or a conversation that it cannot score."""


def answer_of(completion: str) -> str:
    """What a preference is about: the text after the last ``</think>``; all of it where the tag is missing, since an
    unfinished thought is to be judged as what the user was given (recipe.md section 6.1)."""
    if END_OF_THINKING not in completion:
        return completion
    return completion.rsplit(END_OF_THINKING, 1)[1].strip("\n")


class RewardText:
    """Tokenizer, template and limits of the reward model in a folder (or of a hub id)."""

    def __init__(self, model: str, read_at: str = "end_of_turn") -> None:
        """``read_at``: one of ``READ_AT``. Imports transformers.

        Raises RewardModelError when the folder is missing, holds no one-label sequence classifier, or its tokenizer
        has no chat template or padding token.
        """
        from transformers import AutoTokenizer

        self.model = model
        self.config = read_config(model)
        self._read_at = read_at
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model)
        except Exception as error:
            raise RewardModelError(f"the reward model {model} has no tokenizer that can be loaded: {error}") from error
        if not getattr(self._tokenizer, "chat_template", None):
            raise RewardModelError(
                f"the tokenizer of the reward model {model} has no chat template, so nobody knows how it reads a "
                "conversation; put its chat_template.jinja into the folder"
            )
        if self._tokenizer.pad_token_id is None:
            raise RewardModelError(
                f"the tokenizer of the reward model {model} has no pad token, by which a sequence classifier finds "
                "where a conversation ends; set pad_token in its tokenizer_config.json"
            )
        self.pad_token_id: int = self._tokenizer.pad_token_id
        text_config = self.config.get_text_config()
        self.max_length: int | None = getattr(text_config, "max_position_embeddings", None)

    def tokens(self, messages: Sequence[Message], answer: str) -> list[int]:
        """Token ids of the conversation with ``answer`` as its last turn.

        Raises CascadeError for a conversation that cannot be rendered, RewardModelError for one that is longer than
        the model or would be scored at another token than its last.
        """
        turns = [*messages, {"role": "assistant", "content": answer}]
        ids = judged_ids(self._tokenizer, turns)
        if self._read_at == "template_end":
            ids += self._after_turn()
        if self.max_length is not None and len(ids) > self.max_length:
            raise RewardModelError(
                f"a conversation of {len(ids)} tokens is longer than the reward model {self.model} can read "
                f"({self.max_length}, max_position_embeddings); lower max_new_tokens or max_prompt_tokens"
            )
        if not ids or ids[-1] == self.pad_token_id:
            raise RewardModelError(
                f"the reward model's template ends a conversation with its pad token (id {self.pad_token_id}), which "
                "transformers takes for padding; give its tokenizer another pad token"
            )
        return ids

    def _after_turn(self) -> list[int]:
        """Ids of the white space that the template writes after an answer: ChatML's line break."""
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        text: str = self._tokenizer.apply_chat_template(turns, tokenize=False)
        ids: list[int] = self._tokenizer.encode(text[len(text.rstrip()) :], add_special_tokens=False)
        return ids


def check_read_at(read_at: str) -> None:
    """Raises RewardModelError for anything that is not one of ``READ_AT``."""
    if read_at not in READ_AT:
        raise RewardModelError(f"read_at must be {' or '.join(READ_AT)}, not {read_at!r}")


def read_config(model: str) -> Any:
    """The transformers config of a one-label sequence classifier.

    Raises RewardModelError for a missing folder, one without a config, or another kind of model.
    """
    from transformers import AutoConfig

    if "/" in model and not Path(model).is_dir() and (Path(model).is_absolute() or model.count("/") > 1):
        raise RewardModelError(f"there is no reward model in {model}: the folder does not exist")
    try:
        config = AutoConfig.from_pretrained(model)
    except Exception as error:
        if not Path(model).is_dir():
            raise RewardModelError(
                f"there is no reward model {model!r}: neither a folder here nor a model of the hub that can be had "
                f"({str(error).partition(chr(10))[0]})"
            ) from error
        raise RewardModelError(f"{model} holds no model that transformers can read: {error}") from error
    kinds = list(config.architectures or [])
    if not any(kind.endswith(HEAD) for kind in kinds):
        raise RewardModelError(
            f"{model} is no reward model: it is a {', '.join(kinds) or 'model without a named architecture'}, and a "
            f"sequence classifier with one label (...{HEAD}) is needed, as a stage of kind reward_model makes one"
        )
    if config.num_labels != 1:
        raise RewardModelError(f"the classifier {model} has {config.num_labels} labels; a reward model has one")
    return config
