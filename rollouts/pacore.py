"""Parallel Coordinated Reasoning: many parallel attempts, compacted into messages, and one synthesis that reads them.

Round r: K_r trajectories see P(x, M), the problem and the messages of round r-1. Compaction keeps the conclusion
of each. The last round has K = 1 and its conclusion is the answer. Round 1 has no messages and sees x unchanged.

Source: PaCoRe, arXiv 2601.05593, sec. 2.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Literal

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rollouts.epoch_order import EpochOrder
from rollouts.message_cache import CachedProblem
from rollouts.rows import Row
from rollouts.trajectory import PromptContent, text_of, with_text

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

# Widths of the rounds before the last, which has one trajectory. low, medium and high are the paper's.
PRESETS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"light-2": (2,), "light-3": (3,), "light-4": (4,), "low": (4,), "medium": (16,), "high": (32, 4)}
)

Shuffle = Literal["round", "trajectory"]
Overflow = Literal["drop", "shorten"]


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
    """P(x, M). In a conversation only the text of the last user turn is replaced; its images and earlier turns stay.

    Raises:
        TemplateError: the template is wrong or uses a name other than `problem` and `messages`.
    """
    if isinstance(problem, str):
        return _render(template, problem, messages)
    last = max((index for index, turn in enumerate(problem) if turn["role"] == "user"), default=None)
    if last is None:
        raise TemplateError("the conversation has no user turn to replace")
    text = _render(template, text_of(problem[last]), messages)
    return [*problem[:last], with_text(problem[last], text), *problem[last + 1 :]]


def _render(template: str, problem: str, messages: Sequence[str]) -> str:
    try:
        return _compiled(template).render(problem=problem, messages=list(messages))
    except jinja2.TemplateError as error:
        raise TemplateError(f"the synthesis template cannot be filled: {error}") from None


@dataclass(frozen=True)
class RoundPrompt:
    """What one trajectory of a round sees."""

    content: PromptContent
    shown: tuple[int, ...]
    """positions, among the messages of the round before, of those in the prompt, in their order; () of x alone"""


@dataclass(frozen=True)
class Round:
    """One round of one problem."""

    prompts: tuple[PromptContent, ...]
    """what each trajectory saw; all equal unless every trajectory has an order of its own"""
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
    shuffle: Shuffle = "round",
    seed: int = 0,
) -> list[Round]:
    """PaCoRe inference on one problem: a round per width, then the implied last round of one.

    rollouts/rounds.py does the same for many problems that share an engine.

    Args:
        problem: x.
        generate: prompts to responses, one each, in order.
        widths: K_r of the rounds before the last, for example [16] or [32, 4]; [] is one plain response.
        shuffle: see `round_prompts`.
        seed: fixes the shuffles.

    Returns:
        The rounds; the answer is `rounds[-1].messages[0]`.
    """
    rounds: list[Round] = []
    for index, width in enumerate((*widths, 1)):
        messages = rounds[-1].messages if rounds else ()
        rng = round_rng(seed, index)
        asked = round_prompts(problem, messages, width, rng, template=template, shuffle=shuffle)
        prompts = tuple(one.content for one in asked)
        responses = tuple(generate(prompts))
        rounds.append(Round(prompts, responses, tuple(compact(r, conclusion=conclusion) for r in responses)))
    return rounds


def round_rng(seed: int, index: int) -> random.Random:
    """What shuffles the messages before the index-th round."""
    return random.Random(f"{seed}:round:{index}")


def round_prompts(
    problem: PromptContent,
    messages: Sequence[str],
    width: int,
    rng: random.Random,
    *,
    template: str,
    shuffle: Shuffle = "round",
    fit: Callable[[list[str]], list[str]] = list,
) -> list[RoundPrompt]:
    """What the `width` trajectories of a round see: x in the first round, else P(x, M) with M shuffled.

    An empty message says nothing and is left out; where all are empty, the round sees x.

    Args:
        messages: conclusions of the round before; none in the first round.
        shuffle: one order for all trajectories of the round, as published, so that an engine computes the shared
            prompt once; or an order of its own for each.
        fit: what is left of the shuffled messages where the prompt would be too long: the first ones, each whole or
            shortened; see `fitting_messages`.
    """

    def prompt() -> RoundPrompt:
        order = rng.sample(nonempty, len(nonempty))
        told = fit([messages[place] for place in order])
        content = synthesis_prompt(problem, told, template=template) if told else problem
        return RoundPrompt(content, tuple(order[: len(told)]))

    nonempty = [place for place, message in enumerate(messages) if message]
    if not nonempty:
        return [RoundPrompt(problem, ())] * width
    return [prompt()] * width if shuffle == "round" else [prompt() for _ in range(width)]


def fitting_messages(messages: Sequence[str], fits: Callable[[list[str]], bool], *, overflow: Overflow) -> list[str]:
    """As much of the messages as fits.

    Args:
        messages: in the order in which they would be shown.
        fits: whether the prompt made from these messages is short enough; true for fewer or shorter ones where it
            is true for more or longer ones.
        overflow: drop leaves out whole messages, the last ones first. shorten keeps every message but only its last
            characters, as many of each as fit, behind "..."; a conclusion stands at the end.

    Returns:
        All messages where they fit; none where not even one, or one character of each, does.
    """
    everything = list(messages)
    if fits(everything):
        return everything
    if overflow == "drop":
        num_kept = _largest(len(everything), lambda count: fits(everything[:count]))
        return everything[:num_kept]
    longest = max(map(len, everything))
    num_chars = _largest(longest, lambda count: fits([_ending(message, count) for message in everything]))
    return [_ending(message, num_chars) for message in everything] if num_chars else []


def _ending(message: str, num_chars: int) -> str:
    return message if len(message) <= num_chars else f"...{message[len(message) - num_chars :]}"


def _largest(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest count from 1 to `limit` for which `holds`, which holds for all smaller ones; 0 where for none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def most_frequent(messages: Sequence[str]) -> int:
    """The place of the most frequent message, letter by letter; of several, of the one that came first."""
    return messages.index(Counter(messages).most_common(1)[0][0])


def _anything_fits(content: PromptContent) -> bool:
    return True


@dataclass(frozen=True)
class PacorePrompts:
    """Synthesis prompts from cached problems: |M| ~ U(low, high) messages of a problem, sampled and shuffled.

    A `RowSource`: the index-th row depends on the seed alone. Rows have the columns of the problem, `problem`, and
    for the metrics `shown_messages`, `correct_messages` (how many of those are right) and `majority_correct`.

    Source: PaCoRe, arXiv 2601.05593, sec. 3: one synthesis round is one episode, |M| ~ U(16, 24).
    """

    problems: Sequence[CachedProblem]
    low: int
    high: int
    template: str
    seed: int
    fits: Callable[[PromptContent], bool] = _anything_fits
    """whether a prompt is within the budget; see `fitting_messages` for what becomes of messages where it is not"""
    overflow: Overflow = "drop"
    vote: Callable[[Sequence[str]], int] = most_frequent
    """the place of the message that a majority of them elects"""

    @cached_property
    def _order(self) -> EpochOrder:
        return EpochOrder(len(self.problems), self.seed)

    def row(self, index: int) -> Row:
        """See `RowSource`."""
        problem = self.problems[self._order.position(index)]
        rng = random.Random(f"{self.seed}:messages:{index}")
        nonempty = [message for message in problem.messages if message.conclusion]
        count = min(rng.randint(self.low, self.high), len(nonempty))
        chosen = rng.sample(nonempty, count)  # sampled without replacement, in random order

        def prompt(shown: list[str]) -> PromptContent:
            return synthesis_prompt(problem.content, shown, template=self.template)

        conclusions = [message.conclusion for message in chosen]
        shown = fitting_messages(conclusions, lambda told: self.fits(prompt(told)), overflow=self.overflow)
        right = [message.correct for message in chosen[: len(shown)]]
        return {
            **problem.columns,
            "prompt": prompt(shown),
            "problem": problem.content,
            "shown_messages": shown,
            "correct_messages": sum(right),
            "majority_correct": bool(shown) and right[self.vote(conclusions[: len(shown)])],
        }
