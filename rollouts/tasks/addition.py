"""Addition with a chain of thought, shown by an annotator who forgets carries."""

import random
from dataclasses import dataclass

from rollouts.tasks.task import Row, check_probability


@dataclass(frozen=True)
class Addition:
    r"""Sums of two numbers, worked column by column from the right.

        Q: 964+494=?
        A: 4+4+0=8 6+9+0=15 9+4+1=14 \boxed{1458}

    Each step is digit + digit + carry. The annotator writes a carry of 1 as 0 with probability
    `forget_carry`; with the defaults 49% of the demonstrations end in the right answer. So a model
    that imitates them can sample every right answer, and the verifier is what makes it prefer them.

    Args:
        digits: digits of each number; the first is not 0.
        forget_carry: probability that the annotator forgets one carry.
    """

    digits: int = 3
    forget_carry: float = 0.65

    def __post_init__(self) -> None:
        if self.digits < 1:
            raise ValueError(f"digits is {self.digits!r}; a whole number from 1 on is allowed")
        check_probability("forget_carry", self.forget_carry)

    def problem(self, rng: random.Random) -> Row:
        r"""{"prompt": "Q: 964+494=?\nA:", "solution": "1458"}."""
        a, b = self._numbers(rng)
        return {"prompt": _prompt(a, b), "solution": str(a + b)}

    def demonstration(self, rng: random.Random) -> Row:
        """A worked sum in which carries may have been forgotten."""
        a, b = self._numbers(rng)
        return {"prompt": _prompt(a, b), "completion": self._work(a, b, rng)}

    def _numbers(self, rng: random.Random) -> tuple[int, int]:
        low, high = 10 ** (self.digits - 1), 10**self.digits - 1
        return rng.randint(low, high), rng.randint(low, high)

    def _work(self, a: int, b: int, rng: random.Random) -> str:
        steps, answer, carry = "", "", 0
        for x, y in zip(reversed(str(a)), reversed(str(b))):
            if carry and rng.random() < self.forget_carry:
                carry = 0
            column = int(x) + int(y) + carry
            steps += f" {x}+{y}+{carry}={column}"
            answer, carry = f"{column % 10}{answer}", column // 10
        leading = "1" if carry else ""
        return f"{steps} \\boxed{{{leading}{answer}}}"


def _prompt(a: int, b: int) -> str:
    return f"Q: {a}+{b}=?\nA:"
