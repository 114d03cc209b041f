"""GUI grounding on a picture of a tiny screen, shown by an annotator with an unsteady hand."""

from __future__ import annotations

import random
from dataclasses import dataclass

from rollouts.images import data_url
from rollouts.screens.element import Box
from rollouts.screens.tiny import CELL, COLOURS, SIZE, make_tiny_screen
from rollouts.screens.tiny import TinyScreen as Screen
from rollouts.tasks.task import Row, check_probability


@dataclass(frozen=True)
class TinyScreen:
    """Click the button of a colour.

        [image of 48 x 48 pixels] Click red
        (12, 36)

    Clicks are pixels, and the annotator clicks in the middle of cells of 8 x 8 pixels. With probability `miss` it
    clicks one cell beyond the right edge of the button, its bottom edge or both.

    Args:
        miss: probability that a demonstrated click lies outside the button.
        buttons: on a screen, 1 to 4.
    """

    miss: float = 0.5
    buttons: int = 3

    def __post_init__(self) -> None:
        check_probability("miss", self.miss)
        if not 1 <= self.buttons <= len(COLOURS):
            raise ValueError(f"buttons is {self.buttons!r}; 1 to {len(COLOURS)} is allowed")

    def problem(self, rng: random.Random) -> Row:
        """{"prompt": [a turn with image and text], "target_box": [8, 32, 23, 55], "image_size": [48, 48]}."""
        screen, target = self._screen(rng)
        x1, y1, x2, y2 = screen.elements[target].box
        # The reward counts the last pixels of a box as in it.
        return {
            "prompt": _prompt(screen, target),
            "target_box": [x1, y1, x2 - 1, y2 - 1],
            "image_size": [SIZE, SIZE],
            "coordinate_space": "pixels",
        }

    def demonstration(self, rng: random.Random) -> Row:
        """A click on the button that is often just outside it."""
        screen, target = self._screen(rng)
        x, y = self._click(screen.elements[target].box, rng)
        return {"prompt": _prompt(screen, target), "completion": f"({x}, {y})"}

    def _screen(self, rng: random.Random) -> tuple[Screen, int]:
        return make_tiny_screen(rng, buttons=self.buttons), rng.randrange(self.buttons)

    def _click(self, box: Box, rng: random.Random) -> tuple[int, int]:
        x1, y1, x2, y2 = (side // CELL for side in box)
        x, y = (x1 + x2 - 1) // 2, (y1 + y2 - 1) // 2
        if rng.random() < self.miss:
            x, y = rng.choice([(x2, y), (x, y2), (x2, y2)])
        return x * CELL + CELL // 2, y * CELL + CELL // 2


def _prompt(screen: Screen, target: int) -> list[dict[str, object]]:
    parts = [
        {"type": "image", "image": data_url(screen.png())},
        {"type": "text", "text": f"Click {screen.elements[target].text}"},
    ]
    return [{"role": "user", "content": parts}]
