"""What result files say: accuracy with intervals, and what it costs in tokens, one file or several side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rl.errors import UserError
from rl.inference.accuracy import Estimate, bootstrap, majority_at_k, pass_at_k
from rl.inference.result_file import AnswerRecord, EvaluationSettings, Results
from rl.inference.voting import answer_classes

Kind = Literal["one chain", "majority vote", "PaCoRe", "other"]


@dataclass(frozen=True)
class Measure:
    """One number of one file."""

    name: str
    kind: Kind
    """the way of answering; other where the measure is none"""
    estimate: Estimate
    tokens_per_answer: float | None
    """sampled tokens over every trajectory; None where the measure is not a way to answer"""


@dataclass(frozen=True)
class Summary:
    """Everything that is said of one file."""

    results: Results
    num_problems: int
    num_answers: int
    num_ungraded: int
    """answers whose reward failed or did not apply; they are left out of every measure"""
    num_retries: int
    """requests that were tried again, for the answers that there are"""
    measures: Sequence[Measure]
    num_chains: int
    """plain chains per problem that the measures of chains are taken over"""
    completion_tokens: Estimate
    """per answer, as are the next two"""
    prompt_tokens: Estimate
    seconds: Estimate
    """from the first request to the grade, while other answers were under way"""


@dataclass(frozen=True)
class _Chain:
    """A response to the problem alone: an answer of sere, or a trajectory of a first round."""

    response: str
    message: str
    right: bool
    tokens: int


@dataclass(frozen=True)
class _Synthesis:
    """An answer, and the messages of the round before it."""

    right: bool
    answer: str
    read: Sequence[_Chain]
    """those that its prompt shows"""
    unread: int
    """those that it had no room for"""


def summarize(results: Results) -> Summary:
    """The measures of a file.

    Raises:
        UserError: it has no graded answer.
    """
    by_row: dict[int, list[AnswerRecord]] = defaultdict(list)
    for answer in sorted(results.answers, key=lambda one: (one.row, one.sample)):
        if answer.reward is not None:
            by_row[answer.row].append(answer)
    if not by_row:
        raise UserError(f"{results.path}: has no graded answer; {len(results.failures)} failed")
    problems = list(by_row.values())
    chains = [_chains(own, results.settings) for own in problems]
    return Summary(
        results=results,
        num_problems=len(problems),
        num_answers=sum(map(len, problems)),
        num_ungraded=sum(answer.reward is None for answer in results.answers),
        num_retries=sum(n - 1 for answer in results.answers for one in answer.rounds for n in one.attempts),
        measures=[*_measures(problems, chains, results.settings)],
        num_chains=min(map(len, chains)),
        completion_tokens=_mean(problems, lambda answer: answer.completion_tokens),
        prompt_tokens=_mean(problems, lambda answer: answer.prompt_tokens),
        seconds=_mean(problems, lambda answer: answer.seconds),
    )


def label_of(settings: EvaluationSettings) -> str:
    """A short name: the mode and its widths."""
    if settings.mode == "sere":
        return "one chain"
    if settings.mode == "majority":
        return f"majority of {settings.widths[0]}"
    return f"PaCoRe [{', '.join(map(str, settings.widths))}]"


def difference(one: Summary, other: Summary) -> tuple[Estimate, int] | None:
    """Accuracy of `one` minus that of `other` over the problems that both have, and their number; None: no such.

    The interval is of the paired difference: problems that are hard for both widen neither.
    """
    first, second = _accuracy_by_problem(one.results), _accuracy_by_problem(other.results)
    both = [key for key in first if key in second]
    return (bootstrap([first[key] - second[key] for key in both]), len(both)) if both else None


# ---------------------------------------------------------------- measures


def _measures(
    problems: Sequence[Sequence[AnswerRecord]], chains: Sequence[Sequence[_Chain]], settings: EvaluationSettings
) -> Iterator[Measure]:
    kind: Kind = {"sere": "one chain", "majority": "majority vote", "pacore": "PaCoRe"}[settings.mode]  # type: ignore[assignment]
    num_attempts = min(map(len, problems))
    accuracy = _mean(problems, lambda answer: _right(answer.reward, settings))
    tokens = _mean(problems, lambda answer: answer.completion_tokens).value
    yield Measure(f"{label_of(settings)}, avg@{num_attempts}", kind, accuracy, tokens)
    if settings.mode == "pacore":
        yield from _synthesis_measures([[_synthesis(answer, settings) for answer in own] for own in problems], settings)
    yield from _further_measures(problems, settings)
    yield from _chain_measures(chains, settings)


def _further_measures(
    problems: Sequence[Sequence[AnswerRecord]], settings: EvaluationSettings
) -> Iterator[Measure]:
    """The mean of every reward beside the one that decides, over the answers that it graded."""
    for name in settings.further_rewards:
        values = [[answer.further_rewards.get(name) for answer in own] for own in problems]
        graded = [[value for value in own if value is not None] for own in values]
        means = [sum(own) / len(own) for own in graded if own]
        if means:
            yield Measure(f"{name}, mean", "other", bootstrap(means), None)


def _chain_measures(chains: Sequence[Sequence[_Chain]], settings: EvaluationSettings) -> Iterator[Measure]:
    """avg, majority and pass@k of plain chains."""
    most = min(map(len, chains))
    if not most:
        return
    tokens = bootstrap([sum(chain.tokens for chain in own) / len(own) for own in chains]).value
    if settings.mode != "sere":
        average = bootstrap([_share([chain.right for chain in own]) for own in chains])
        yield Measure(f"one chain of the first round, avg@{most}", "one chain", average, tokens)
    classes = [_classes(own, settings) for own in chains]
    rights = [[chain.right for chain in own] for own in chains]
    for k in _ks(most):
        vote = bootstrap([majority_at_k(c, r, k, seed=row) for row, (c, r) in enumerate(zip(classes, rights))])
        yield Measure(f"maj@{k}", "majority vote", vote, k * tokens)
    for k in _ks(most):
        yield Measure(f"pass@{k}", "other", bootstrap([pass_at_k(len(r), sum(r), k) for r in rights]), None)


def _ks(most: int) -> list[int]:
    """2, 4, 8, ... and `most`."""
    powers = [2**power for power in range(1, most.bit_length()) if 2**power <= most]
    return sorted({*powers, most} - {1})


def _synthesis_measures(
    problems: Sequence[Sequence[_Synthesis]], settings: EvaluationSettings
) -> Iterator[Measure]:
    """What the synthesis made of the messages that it read."""

    def over(value: Callable[[_Synthesis], float], among: Callable[[_Synthesis], bool] = bool) -> Estimate | None:
        chosen = [[one for one in own if one.read and among(one)] for own in problems]
        values = [sum(map(value, own)) / len(own) for own in chosen if own]
        return bootstrap(values) if values else None

    def messages_mean(one: _Synthesis) -> float:
        return _share([chain.right for chain in one.read])

    def vote(one: _Synthesis) -> float:
        return majority_at_k(_classes(one.read, settings), [chain.right for chain in one.read], len(one.read))

    def none_right(one: _Synthesis) -> bool:
        return not any(chain.right for chain in one.read)

    if any(one.unread for own in problems for one in own):
        left_out = [sum(one.unread for one in own) / len(own) for own in problems]
        yield Measure("messages left out, no room", "other", bootstrap(left_out), None)
    measures = {
        "messages read, mean": over(messages_mean),
        "messages read, majority": over(vote),
        "gain over the messages' mean": over(lambda one: one.right - messages_mean(one)),
        "gain over their majority": over(lambda one: one.right - vote(one)),
        "no message right": over(lambda one: float(none_right(one))),
        "right where no message is": over(lambda one: float(one.right), among=none_right),
        "repeats a message": over(lambda one: float(one.answer in [chain.message for chain in one.read])),
    }
    for name, estimate in measures.items():
        if estimate is not None:
            yield Measure(name, "other", estimate, None)


def _classes(chains: Sequence[_Chain], settings: EvaluationSettings) -> list[int | None]:
    responses, messages = [chain.response for chain in chains], [chain.message for chain in chains]
    return answer_classes(responses, messages, equality=settings.vote)


def _chains(answers: Sequence[AnswerRecord], settings: EvaluationSettings) -> list[_Chain]:
    return [chain for answer in answers for chain in _chains_of_round(answer, 0, settings)]


def _chains_of_round(
    answer: AnswerRecord, index: int, settings: EvaluationSettings, places: Collection[int] | None = None
) -> list[_Chain]:
    """The graded trajectories of one round; those at the given places, where such are given."""
    one = answer.rounds[index]
    return [
        _Chain(one.responses[place], one.messages[place], _right(reward, settings), one.completion_tokens[place])
        for place, reward in enumerate(one.rewards)
        if reward is not None and (places is None or place in places)
    ]


def _synthesis(answer: AnswerRecord, settings: EvaluationSettings) -> _Synthesis:
    right, last = _right(answer.reward, settings), answer.rounds[-1]
    if len(answer.rounds) == 1:
        return _Synthesis(right, last.messages[0], [], 0)
    worth_reading = [place for place, message in enumerate(answer.rounds[-2].messages) if message]
    shown = last.shown[0] if last.shown else worth_reading
    read = _chains_of_round(answer, -2, settings, shown)
    return _Synthesis(right, last.messages[0], read, len(worth_reading) - len(shown))


def _right(reward: float | None, settings: EvaluationSettings) -> bool:
    return reward is not None and reward >= settings.success


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def _mean(problems: Sequence[Sequence[AnswerRecord]], value: Callable[[AnswerRecord], float]) -> Estimate:
    return bootstrap([sum(map(value, own)) / len(own) for own in problems])


def _accuracy_by_problem(results: Results) -> dict[str, float]:
    hits: dict[str, list[bool]] = defaultdict(list)
    for answer in results.answers:
        if answer.reward is not None:
            hits[answer.prompt_id].append(_right(answer.reward, results.settings))
    return {prompt_id: _share(own) for prompt_id, own in hits.items()}
