"""Running totals: a long response whose fate is decided by its first slip, with credit for what came before."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rollouts.tasks.task import Row, check_probability


@dataclass(frozen=True)
class RunningTotal:
    """The last digit of the sum so far, after each of `length` digits.

        3, 5, 9, 2:
         33 58 97 29

    Each step repeats the digit and then gives the total. The annotator adds one too many with probability `slip`
    and goes on from the wrong total, so that every later step is wrong as well. The reward is the share of steps
    with the true total: most of it is settled long before the response ends.

    Args:
        length: digits per problem.
        slip: probability of a slip in each step of a demonstration.
    """

    length: int = 16
    slip: float = 0.15

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length is {self.length!r}; a whole number from 1 on is allowed")
        check_probability("slip", self.slip)

    def problem(self, rng: random.Random) -> Row:
        """{"prompt": "3, 5, 9, 2:"}."""
        return {"prompt": _prompt(self._digits(rng))}

    def demonstration(self, rng: random.Random) -> Row:
        """Totals in which slips may have happened."""
        digits, total, steps = self._digits(rng), 0, []
        for digit in digits:
            total = (total + digit + (rng.random() < self.slip)) % 10
            steps.append(f" {digit}{total}")
        return {"prompt": _prompt(digits), "completion": "".join(steps)}

    def _digits(self, rng: random.Random) -> list[int]:
        return [rng.randrange(10) for _ in range(self.length)]


def _prompt(digits: list[int]) -> str:
    return ", ".join(map(str, digits)) + ":"


def right_steps(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Share of the steps with the true digit and total, as a reward function in TRL's convention."""
    return [_share(prompt, completion) for prompt, completion in zip(prompts, completions)]


def _share(prompt: str, completion: str) -> float:
    digits = [int(digit) for digit in re.findall(r"\d", prompt)]
    if len(completion) > 3 * len(digits):
        return 0.0  # a response that goes on and on is no better than none
    wanted = list(_steps(digits))
    return sum(given == step for given, step in zip(completion.split(), wanted)) / len(wanted)


def _steps(digits: list[int]) -> Iterator[str]:
    total = 0
    for digit in digits:
        total = (total + digit) % 10
        yield f"{digit}{total}"
