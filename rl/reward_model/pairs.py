"""Pairs of responses for a reward model, from TRL's preference formats, and their split by prompt.

The formats: text or messages; the prompt in a column of its own (explicit) or as what both sides begin with
(implicit).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rl.errors import RunFailed
from rl.recipe import PreferenceModelStage
from rollouts.prompts import RowSource
from rollouts.rows import DatasetError, Row
from rollouts.trajectory import Message, PromptContent, prompt_id_of

Side = str | list[Message]

# Rows looked at for each pair wanted: some repeat a held-out prompt.
_ROWS_PER_PAIR = 3


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt. All three are text, or all three are messages."""

    prompt: PromptContent
    """empty text where an implicit text prompt has nothing in common"""
    chosen: Side
    rejected: Side
    margin: float | None = None
    """how much better `chosen` is, in units of the score; None in data without that column"""

    @property
    def prompt_id(self) -> str:
        """Identity of the prompt, or of the pair where both sides have nothing in common."""
        return prompt_id_of(self.prompt or self.chosen)


@dataclass(frozen=True)
class PairSplit:
    """Pairs by their use; no two of the parts share a prompt."""

    training: Sequence[Pair]
    validation: Sequence[Pair]
    """decide about stopping early; empty where nothing does"""
    held_out: Sequence[Pair]


def read_pair(row: Row, label: str) -> Pair:
    """The pair of a row, its prompt made explicit.

    Raises:
        DatasetError: a side is missing, empty or of another form than the other; or a margin that is no number.
    """
    chosen, rejected = (_side(row, column, label) for column in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise DatasetError(f"{label}: one of 'chosen' and 'rejected' is text, the other messages: {_short(row)}")
    prompt = row.get("prompt")
    if prompt is None:
        return _implicit(chosen, rejected, _margin(row, label), label)
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return Pair(prompt, chosen, rejected, _margin(row, label))
    turns = _messages(prompt)
    if turns is None:
        raise DatasetError(
            f"{label}: 'prompt' is {str(prompt)[:80]!r}; text beside text sides, or messages, are expected"
        )
    return Pair(turns, _as_messages(chosen), _as_messages(rejected), _margin(row, label))


def split_pairs(rows: RowSource, stage: PreferenceModelStage, held_out: frozenset[str], label: str) -> PairSplit:
    """Training, validation and held-out pairs of the first rows; the latter two have one pair per prompt.

    Args:
        held_out: prompts that no training may see, by identity.

    Raises:
        DatasetError: a row is not a pair, or only some rows have a margin.
        RunFailed: no training pair is left.
    """
    num_validation = stage.early_stop.num_pairs if stage.early_stop else 0
    tested: dict[str, Pair] = {}
    validation: dict[str, Pair] = {}
    training: list[Pair] = []
    for pair in _pairs(rows, _ROWS_PER_PAIR * (stage.num_pairs + stage.num_held_out + num_validation), label):
        key = pair.prompt_id
        if key in tested or key in validation:
            continue
        if len(tested) < stage.num_held_out:
            tested[key] = pair
        elif key in held_out:
            continue
        elif len(validation) < num_validation:
            validation[key] = pair
        else:
            training.append(pair)
        if len(training) == stage.num_pairs:
            break
    if not training:
        raise RunFailed(f"{label}: the held-out pairs use up every prompt; lower num_held_out or early_stop.num_pairs")
    return PairSplit(training, list(validation.values()), list(tested.values()))


def _pairs(rows: RowSource, count: int, label: str) -> Iterator[Pair]:
    """The first `count` rows as pairs of one form."""
    forms: set[tuple[bool, bool]] = set()
    for index in range(count):
        pair = read_pair(rows.row(index), label)
        forms.add((isinstance(pair.chosen, str), pair.margin is None))
        if len({is_text for is_text, _ in forms}) > 1:
            raise DatasetError(f"{label}: some rows are text and some are messages; one form is expected")
        if len(forms) > 1:
            raise DatasetError(f"{label}: some rows have a margin and some have none; all or none are expected")
        yield pair


def _implicit(chosen: Side, rejected: Side, margin: float | None, label: str) -> Pair:
    """The pair with what both sides begin with as its prompt; of messages at least the last turn is a response."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        length = len(os.path.commonprefix([chosen, rejected]))
        return Pair(chosen[:length], chosen[length:], rejected[length:], margin)
    turns, others = _as_messages(chosen), _as_messages(rejected)
    length = 0
    while length < min(len(turns), len(others)) - 1 and turns[length] == others[length]:
        length += 1
    if length == 0:
        told = "the conversations have no turn in common, and there is no column 'prompt'"
        raise DatasetError(f"{label}: {told}: {str(turns)[:80]}")
    return Pair(turns[:length], turns[length:], others[length:], margin)


def _side(row: Row, column: str, label: str) -> Side:
    value = row.get(column)
    if isinstance(value, str) and value:
        return value
    if turns := _messages(value):
        return turns
    shown = "is missing" if column not in row else f"is {str(value)[:80]!r}"
    raise DatasetError(f"{label}: column {column!r} {shown}; text or a list of {{role, content}} with text is expected")


def _messages(value: object) -> list[Message] | None:
    """The messages in `value`, without keys that no chat template here reads; None where it is something else."""
    if not isinstance(value, list) or not value:
        return None
    for turn in value:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            return None
    return [Message(role=turn["role"], content=turn["content"]) for turn in value]


def _as_messages(side: Side) -> list[Message]:
    return [Message(role="assistant", content=side)] if isinstance(side, str) else side


def _margin(row: Row, label: str) -> float | None:
    value = row.get("margin")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DatasetError(f"{label}: column 'margin' is {str(value)[:80]!r}; a finite number is expected")
    return float(value)


def _short(row: Row) -> str:
    return str({name: row.get(name) for name in ("chosen", "rejected")})[:160]
