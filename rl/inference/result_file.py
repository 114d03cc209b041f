"""The file of an evaluation: its settings in the first line, then one line per answer as soon as it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from rl.errors import UserError
from rl.inference.voting import Equality
from rollouts.pacore import Overflow, Shuffle
from rollouts.trajectory import PromptContent

Mode = Literal["sere", "majority", "pacore"]


@dataclass(frozen=True)
class EvaluationSettings:
    """Everything that an answer depends on; a file holds answers of one configuration."""

    mode: Mode
    model: str
    model_fingerprint: str
    """of the weights of a local model; "" for an endpoint"""
    data: str
    data_fingerprint: str
    """of the problems and their references, in order"""
    reward: str
    reward_args: Mapping[str, object]
    success: float
    """an answer is right when its reward is at least this"""
    vote: Equality
    widths: tuple[int, ...]
    """of pacore: see RoundSettings; of majority: the one number of votes; of sere: none"""
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...]
    template: str
    conclusion: str | None
    shuffle: Shuffle
    overflow: Overflow
    seed: int
    further_rewards: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """rewards of the answers beside `reward`, which alone decides what is right: name -> arguments"""


@dataclass(frozen=True)
class RoundRecord:
    """One round of one answer. Lists are by trajectory."""

    prompts: Sequence[PromptContent]
    """what the trajectories saw; one where all saw the same, none where that is the problem itself"""
    responses: Sequence[str]
    messages: Sequence[str]
    prompt_tokens: Sequence[int]
    completion_tokens: Sequence[int]
    finish_reasons: Sequence[str]
    rewards: Sequence[float | None]
    """of each response; None: the reward failed or did not apply"""
    seconds: float
    shown: Sequence[Sequence[int]] = ()
    """which messages of the round before a trajectory saw, by their positions there; one where all saw the same.
    Older files have none: every message that was not empty is taken to have been seen"""
    attempts: Sequence[int] = ()
    """requests that each response took; older files have none"""


@dataclass(frozen=True)
class AnswerRecord:
    """One answer to one problem."""

    row: int
    """of the data file, from 0"""
    prompt_id: str
    sample: int
    """number of this attempt, from 0"""
    rounds: Sequence[RoundRecord]
    answer: str
    """the whole final response; of a vote, the first response of the winning class"""
    reward: float | None
    reward_status: str
    seconds: float
    further_rewards: Mapping[str, float | None] = field(default_factory=dict)
    """of the answer, by name; None: the reward failed or did not apply"""

    @property
    def completion_tokens(self) -> int:
        """Tokens sampled for this answer, over every trajectory of every round."""
        return sum(sum(one.completion_tokens) for one in self.rounds)

    @property
    def prompt_tokens(self) -> int:
        """Tokens read for this answer, over every trajectory of every round."""
        return sum(sum(one.prompt_tokens) for one in self.rounds)


@dataclass(frozen=True)
class FailureRecord:
    """An answer that could not be had; it is tried again when the evaluation is continued."""

    row: int
    sample: int
    error: str


@dataclass(frozen=True)
class Results:
    """What a result file holds."""

    path: Path
    settings: EvaluationSettings
    answers: Sequence[AnswerRecord]
    failures: Sequence[FailureRecord]
    """without those that a later try made good"""


def read_results(path: Path) -> Results:
    """What `ResultWriter` wrote. A last line that was cut in the middle is left out.

    Raises:
        UserError: missing, empty, or not such a file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    records = list(_records(path, text))
    if not records or not isinstance(records[0], EvaluationSettings):
        raise UserError(f"{path}: not a result file of `stepladder evaluate`: its first line has no settings")
    answers = {(one.row, one.sample): one for one in records if isinstance(one, AnswerRecord)}
    failures = {(one.row, one.sample): one for one in records if isinstance(one, FailureRecord)}
    open_failures = [failure for key, failure in failures.items() if key not in answers]
    return Results(path, records[0], list(answers.values()), open_failures)


_KINDS: Mapping[str, type] = {"settings": EvaluationSettings, "answer": AnswerRecord, "failure": FailureRecord}


def _records(path: Path, text: str) -> Iterator[EvaluationSettings | AnswerRecord | FailureRecord]:
    whole, _, _ = text.rpartition("\n")
    for number, line in enumerate(whole.split("\n") if whole else [], start=1):
        try:
            values = json.loads(line)
            kind = _KINDS[values.pop("record")]
            if kind is AnswerRecord:
                values["rounds"] = [RoundRecord(**one) for one in values["rounds"]]
            if kind is EvaluationSettings:
                values |= {"widths": tuple(values["widths"]), "stop": tuple(values["stop"])}
            yield kind(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}:{number}: not a line of a result file: {error!r}") from None


class ResultWriter:
    """Appends to a result file, new or one of the same settings. Every line is on disk before the next is written."""

    def __init__(self, path: Path, settings: EvaluationSettings) -> None:
        """
        Raises:
            UserError: the file holds answers of another configuration, or is no result file.
        """
        self.done: frozenset[tuple[int, int]] = frozenset()
        """(row, sample) of the answers that the file has"""
        if path.exists() and path.stat().st_size:
            found = read_results(path)
            _refuse_other(path, found.settings, settings)
            self.done = frozenset((one.row, one.sample) for one in found.answers)
            _cut_torn_line(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", encoding="utf-8")
        if not path.stat().st_size:
            self._write("settings", settings)

    def add(self, record: AnswerRecord | FailureRecord) -> None:
        """Writes one line."""
        self._write("answer" if isinstance(record, AnswerRecord) else "failure", record)

    def _write(self, kind: str, record: EvaluationSettings | AnswerRecord | FailureRecord) -> None:
        self._file.write(json.dumps({"record": kind, **asdict(record)}, ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()


def _refuse_other(path: Path, found: EvaluationSettings, wanted: EvaluationSettings) -> None:
    same_content = {  # whatever its path is now
        name
        for name in ("model", "data")
        if getattr(found, f"{name}_fingerprint") == getattr(wanted, f"{name}_fingerprint") != ""
    }
    differences = [
        f"  {one.name}: {_shown(getattr(found, one.name))} in the file, {_shown(getattr(wanted, one.name))} now"
        for one in fields(EvaluationSettings)
        if one.name not in same_content and getattr(found, one.name) != getattr(wanted, one.name)
    ]
    if differences:
        told = "\n".join(differences)
        raise UserError(f"{path} holds answers of another configuration; name another file with --out:\n{told}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _cut_torn_line(path: Path) -> None:
    """Removes what follows the last end of line: an interrupted process may have left half a record."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
