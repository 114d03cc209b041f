"""Parallel Coordinated Reasoning: many parallel attempts, compacted into messages, and one synthesis that reads them.

Round r: K_r trajectories see P(x, M), the problem and the messages of round r-1. Compaction keeps the conclusion
of each. The last round has K = 1 and its conclusion is the answer. Round 1 has no messages and sees x unchanged.

Source: PaCoRe, arXiv 2601.05593, sec. 2.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rollouts.rows import DatasetError, Row
from rollouts.trajectory import Message, PromptContent

SYNTHESIS_TEMPLATE = """\
Below are a problem and several independent attempts at it. The attempts may be wrong, incomplete or in conflict.

## Problem
{{ problem }}

{% for message in messages -%}
## Attempt {{ loop.index }}
{{ message }}

{% endfor -%}
Weigh the attempts against each other, check their steps, and write your own complete solution to the problem.
"""


class TemplateError(ValueError):
    """A synthesis template cannot be compiled or filled."""


def compact(text: str, *, conclusion: str | None = None) -> str:
    """The conclusion of a response: what follows the last `</think>`, the whole text where there is none.

    Args:
        text: a response.
        conclusion: a regular expression; its last match is the conclusion instead, the rule above where none matches.
    """
    matches = list(re.finditer(conclusion, text)) if conclusion is not None else []
    if matches:
        return matches[-1].group(0).strip()
    return text.rpartition("</think>")[2].strip()


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise TemplateError(f"the synthesis template does not compile: {error}") from None


def synthesis_prompt(problem: PromptContent, messages: Sequence[str], *, template: str) -> PromptContent:
    """P(x, M). In a conversation only the last user turn is replaced; earlier turns stay.

    Raises:
        TemplateError: the template is wrong or uses a name other than `problem` and `messages`.
    """
    if isinstance(problem, str):
        return _render(template, problem, messages)
    last = max((index for index, turn in enumerate(problem) if turn["role"] == "user"), default=None)
    if last is None:
        raise TemplateError("the conversation has no user turn to replace")
    text = _render(template, problem[last]["content"], messages)
    return [*problem[:last], Message(role="user", content=text), *problem[last + 1 :]]


def _render(template: str, problem: str, messages: Sequence[str]) -> str:
    try:
        return _compiled(template).render(problem=problem, messages=list(messages))
    except jinja2.TemplateError as error:
        raise TemplateError(f"the synthesis template cannot be filled: {error}") from None


@dataclass(frozen=True)
class Round:
    """One round of one problem."""

    prompts: tuple[PromptContent, ...]
    """what each trajectory saw; all equal in round 1"""
    responses: tuple[str, ...]
    messages: tuple[str, ...]
    """their conclusions"""


def coordinate(
    problem: PromptContent,
    generate: Callable[[Sequence[PromptContent]], Sequence[str]],
    widths: Sequence[int],
    *,
    template: str = SYNTHESIS_TEMPLATE,
    conclusion: str | None = None,
    seed: int = 0,
) -> list[Round]:
    """PaCoRe inference on one problem: a round per width, then the implied last round of one.

    Args:
        problem: x.
        generate: prompts to responses, one each, in order.
        widths: K_r of the rounds before the last, for example [16] or [32, 4]; [] is one plain response.
        seed: fixes the shuffles: every trajectory sees the messages in an order of its own.

    Returns:
        The rounds; the answer is `rounds[-1].messages[0]`.
    """
    rng = random.Random(seed)
    rounds: list[Round] = []
    for width in (*widths, 1):
        prompts = [_round_prompt(problem, rounds, rng, template) for _ in range(width)]
        responses = tuple(generate(prompts))
        rounds.append(Round(tuple(prompts), responses, tuple(compact(r, conclusion=conclusion) for r in responses)))
    return rounds


def _round_prompt(
    problem: PromptContent, rounds: Sequence[Round], rng: random.Random, template: str
) -> PromptContent:
    if not rounds:
        return problem
    messages = list(rounds[-1].messages)
    rng.shuffle(messages)
    return synthesis_prompt(problem, messages, template=template)


def majority(messages: Sequence[str]) -> str:
    """The most frequent message; of several, the one that came first."""
    return Counter(messages).most_common(1)[0][0]


# ---------------------------------------------------------------- message cache


@dataclass(frozen=True)
class CachedMessage:
    """One graded answer."""

    conclusion: str
    reward: float
    correct: bool
    num_tokens: int
    """sampled for the whole response, not only the conclusion"""


@dataclass(frozen=True)
class CachedProblem:
    """A problem with its graded answers."""

    prompt_id: str
    content: PromptContent
    columns: Row
    messages: tuple[CachedMessage, ...]

    @property
    def accuracy(self) -> float:
        """Share of right messages."""
        return sum(message.correct for message in self.messages) / len(self.messages)


def write_cache(path: Path, problems: Sequence[CachedProblem]) -> None:
    """One JSON object per line."""
    lines = [json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems]
    path.write_text("".join(lines), encoding="utf-8")


def read_cache(path: Path) -> list[CachedProblem]:
    """What `write_cache` wrote.

    Raises:
        DatasetError: missing or malformed, with file and line.
    """
    return list(_cached_problems(path))


def _cached_problems(path: Path) -> Iterator[CachedProblem]:
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise DatasetError(f"{path}: the message cache cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            messages = tuple(CachedMessage(**message) for message in row["messages"])
            yield CachedProblem(row["prompt_id"], row["content"], row["columns"], messages)
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"{path}:{number}: not a cached problem: {error}") from None


@dataclass(frozen=True)
class PacorePrompts:
    """Synthesis prompts from cached problems: |M| ~ U(low, high) messages of a problem, sampled and shuffled.

    A `RowSource`: the index-th row depends on the seed alone. Rows have the columns of the problem and
    `correct_messages`, the number of right messages in the prompt.

    Source: PaCoRe, arXiv 2601.05593, sec. 3: one synthesis round is one episode, |M| ~ U(16, 24).
    """

    problems: Sequence[CachedProblem]
    low: int
    high: int
    template: str
    seed: int

    def row(self, index: int) -> Row:
        """See `RowSource`."""
        epoch, position = divmod(index, len(self.problems))
        order = list(range(len(self.problems)))
        random.Random(f"{self.seed}:{epoch}").shuffle(order)
        problem = self.problems[order[position]]
        rng = random.Random(f"{self.seed}:messages:{index}")
        count = min(rng.randint(self.low, self.high), len(problem.messages))
        chosen = rng.sample(problem.messages, count)  # sampled without replacement, in random order
        prompt = synthesis_prompt(problem.content, [m.conclusion for m in chosen], template=self.template)
        return {
            **problem.columns,
            "prompt": prompt,
            "problem": problem.content,
            "correct_messages": sum(m.correct for m in chosen),
        }
