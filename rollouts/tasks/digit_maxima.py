"""The larger digit of each column: a task whose attempts are each right in different places."""

import random
from dataclasses import dataclass

from rollouts.pacore import synthesis_prompt
from rollouts.tasks.task import Row, check_probability

SYNTHESIS_TEMPLATE = "{% for message in messages %}Ref: {{ message }}\n{% endfor %}{{ problem }}"


@dataclass(frozen=True)
class DigitMaxima:
    r"""The larger digit in each column of two numbers.

        M: 4820^5917=?
        A: 4^5=5 8!9=8 2^1=2 0^7=7 \boxed{5827}

    The annotator reads the sign of each column right (^) with probability `digit_accuracy`, independently, and
    otherwise takes the smaller digit (!). A whole answer is then right with probability about
    digit_accuracy ** digits, wherever the two digits differ, and several answers to one problem hold more than
    the best of them: their columns can be put together.

    With `references`, demonstrations are of that synthesis: the prompt is `template` filled with the
    problem and the conclusions of K attempts, K uniform in the range, and the completion takes each
    digit from one of them at random, which is the right method without the judgement.

        Ref: \boxed{5820}
        Ref: \boxed{4927}
        M: 4820^5917=?
        A: \boxed{5920}

    Args:
        digits: digits of each number.
        digit_accuracy: probability that the annotator reads the sign of one column right.
        references: lowest and highest K, or None for demonstrations of answering alone.
        template: jinja2 source of the synthesis prompt, from `problem` (str) and `messages` (list of str).
    """

    digits: int = 4
    digit_accuracy: float = 0.5
    references: tuple[int, int] | list[int] | None = None
    template: str = SYNTHESIS_TEMPLATE

    def __post_init__(self) -> None:
        if self.digits < 1:
            raise ValueError(f"digits is {self.digits!r}; a whole number from 1 on is allowed")
        check_probability("digit_accuracy", self.digit_accuracy)
        if self.references is not None:
            _check_range("references", self.references)
            synthesis_prompt("", [""] * self.references[0], template=self.template)  # raises where it is none

    def problem(self, rng: random.Random) -> Row:
        r"""{"prompt": "M: 4820^5917=?\nA:", "solution": "5927"}."""
        a, b = self._number(rng), self._number(rng)
        return {"prompt": _prompt(a, b), "solution": _solution(a, b)}

    def demonstration(self, rng: random.Random) -> Row:
        """An answer with wrong digits; with `references`, a careless synthesis of several."""
        a, b = self._number(rng), self._number(rng)
        problem = _prompt(a, b)
        if self.references is None:
            return {"prompt": problem, "completion": _work(a, b, self._signs(rng))}
        low, high = self.references
        attempts = [_answer(a, b, self._signs(rng)) for _ in range(rng.randint(low, high))]
        synthesis = "".join(rng.choice(column) for column in zip(*attempts))
        prompt = synthesis_prompt(problem, [_boxed(a) for a in attempts], template=self.template)
        return {"prompt": prompt, "completion": f" {_boxed(synthesis)}", "problem": problem}

    def _number(self, rng: random.Random) -> str:
        return "".join(str(rng.randrange(10)) for _ in range(self.digits))

    def _signs(self, rng: random.Random) -> str:
        """Of each column, whether the annotator reads it right (^) or takes the opposite sign (!)."""
        return "".join("^" if rng.random() < self.digit_accuracy else "!" for _ in range(self.digits))


def _prompt(a: str, b: str) -> str:
    return f"M: {a}^{b}=?\nA:"


def _work(a: str, b: str, signs: str) -> str:
    """Every column written out, then the answer."""
    answer = _answer(a, b, signs)
    steps = "".join(f" {x}{sign}{y}={digit}" for x, sign, y, digit in zip(a, signs, b, answer))
    return f"{steps} {_boxed(answer)}"


def _answer(a: str, b: str, signs: str) -> str:
    return "".join(max(x, y) if sign == "^" else min(x, y) for x, sign, y in zip(a, signs, b))


def _solution(a: str, b: str) -> str:
    return "".join(map(max, zip(a, b)))


def _boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def _check_range(name: str, value: tuple[int, int] | list[int]) -> None:
    if len(value) != 2 or not 1 <= value[0] <= value[1]:
        raise ValueError(f"{name} is {value!r}; [lowest, highest] with 1 <= lowest <= highest is allowed")
