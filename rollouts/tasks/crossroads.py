"""Crossroads: a long response with few choices that matter, one after the other, and a visible end of its luck."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from rollouts.tasks.task import Row, check_probability

_ON_THE_WAY, _LOST = "abcdefgh", "stuvwxyz"


@dataclass(frozen=True)
class Crossroads:
    """A walk past `length` signs: at an even one the way goes left, at an odd one right.

        3592:
        3Rcaf5Rbhe9Ltzv2Lsxu

    At each sign the response repeats it, chooses L or R, and then describes what it sees on `scenery` tokens, which
    are random and worth nothing. A walker who took a wrong turn is lost for good and sees other things (letters from
    s on). The annotator turns the wrong way with probability `slip`. The reward is the share of signs that were
    passed before the first wrong turn: partial, settled early, and visible from then on.

    Args:
        length: signs per problem.
        scenery: tokens after each turn.
        slip: probability of a wrong turn in a demonstration.
    """

    length: int = 8
    scenery: int = 6
    slip: float = 0.3

    def __post_init__(self) -> None:
        if self.length < 1 or self.scenery < 0:
            raise ValueError(f"length is {self.length!r}, scenery {self.scenery!r}; at least 1 and 0 are allowed")
        check_probability("slip", self.slip)

    def problem(self, rng: random.Random) -> Row:
        """{"prompt": "3592:"}."""
        return {"prompt": f"{self._signs(rng)}:"}

    def demonstration(self, rng: random.Random) -> Row:
        """A walk in which wrong turns may have happened."""
        signs, seen, walk = self._signs(rng), _ON_THE_WAY, ""
        for sign in signs:
            slipped = rng.random() < self.slip
            seen = _LOST if slipped else seen
            walk += sign + _turn(sign, slipped) + "".join(rng.choices(seen, k=self.scenery))
        return {"prompt": f"{signs}:", "completion": walk}

    def _signs(self, rng: random.Random) -> str:
        return "".join(rng.choices("0123456789", k=self.length))


def _turn(sign: str, slipped: bool) -> str:
    return "LR"[(int(sign) + slipped) % 2]


def signs_passed(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Share of the signs that were passed before the first wrong turn, as a reward function in TRL's convention."""
    return [_share(prompt.rstrip(":"), completion) for prompt, completion in zip(prompts, completions)]


def _share(signs: str, walk: str) -> float:
    turns = [walk[at - 1 : at + 1] for at, token in enumerate(walk) if token in "LR"]
    passed = 0
    for wanted, turn in zip(_way(signs), turns):
        if turn != wanted:
            break
        passed += 1
    return passed / len(signs) if len(turns) <= len(signs) else 0.0


def _way(signs: str) -> Iterator[str]:
    return (sign + _turn(sign, False) for sign in signs)
