"""Crossroads: a response of many choices, the first of which settles what the others are worth; each is paid for when
it is made."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rollouts.tasks.task import Row, check_probability

_ON_THE_ROAD, _ASTRAY = "abcdefgh", "stuvwxyz"
_WORTH_ASTRAY = 0.25

LogPartial = Callable[[list[list[tuple[int, float]]]], None]


@dataclass(frozen=True)
class Crossroads:
    """A walk past `length` signs: at an even one the way goes left, at an odd one right.

        3592:
        3Rc5Rh9La2La

    At each sign the response repeats it, chooses L or R, and then describes what it sees on `scenery` tokens, which
    are random and worth nothing. The first turn earns nothing by itself, but whoever takes it wrong is astray to the
    end, sees other things (letters from s on) and gets a quarter for what follows: each right turn after the first
    earns an equal share of 1, with the token that makes it. The annotator turns the wrong way with probability `slip`.

    Args:
        length: signs per problem, at least 2.
        scenery: tokens after each turn.
        slip: probability of a wrong turn in a demonstration.
    """

    length: int = 17
    scenery: int = 1
    slip: float = 0.4

    def __post_init__(self) -> None:
        if self.length < 2 or self.scenery < 0:
            raise ValueError(f"length is {self.length!r}, scenery {self.scenery!r}; at least 2 and 0 are allowed")
        check_probability("slip", self.slip)

    def problem(self, rng: random.Random) -> Row:
        """{"prompt": "3592:"}."""
        return {"prompt": f"{self._signs(rng)}:"}

    def demonstration(self, rng: random.Random) -> Row:
        """A walk in which wrong turns may have happened."""
        signs = self._signs(rng)
        slips = [rng.random() < self.slip for _ in signs]
        seen = _ASTRAY if slips[0] else _ON_THE_ROAD
        steps = (
            sign + _turn(sign, slipped) + "".join(rng.choices(seen, k=self.scenery))
            for sign, slipped in zip(signs, slips)
        )
        return {"prompt": f"{signs}:", "completion": "".join(steps)}

    def _signs(self, rng: random.Random) -> str:
        return "".join(rng.choices("0123456789", k=self.length))


def _turn(sign: str, slipped: bool) -> str:
    return "LR"[(int(sign) + slipped) % 2]


def right_turns(
    prompts: list[str],
    completions: list[str],
    completion_ids: list[list[int]],
    log_partial: LogPartial | None = None,
    **columns: object,
) -> list[float]:
    """What each walk earned, 0 to 1; a reward function in TRL's convention that says where it was earned.

    Turns after the last sign earn nothing. Tokens are characters; where they are not (an unknown token has no
    text), the whole reward is that of the last one.
    """
    earned = [list(_earned(prompt.rstrip(":"), walk)) for prompt, walk in zip(prompts, completions)]
    if log_partial is not None:
        aligned = [len(ids) - len(walk) in (0, 1) for ids, walk in zip(completion_ids, completions)]  # 1: the end
        log_partial([parts if fits else [] for parts, fits in zip(earned, aligned)])
    return [sum(reward for _, reward in parts) for parts in earned]


def _earned(signs: str, walk: str) -> Iterator[tuple[int, float]]:
    """(index of the character, reward) of each right turn after the first."""
    turns = [at for at, letter in enumerate(walk) if letter in "LR"]
    right = [walk[max(at - 1, 0) : at + 1] == sign + _turn(sign, False) for sign, at in zip(signs, turns)]
    share = (1.0 if right[:1] == [True] else _WORTH_ASTRAY) / (len(signs) - 1)
    yield from ((at, share) for at, fits in list(zip(turns, right))[1:] if fits)
