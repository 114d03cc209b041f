"""GUI grounding on a screen that is given as text, shown by an annotator with an unsteady hand."""

import random
from dataclasses import dataclass

from rollouts.tasks.task import Row, check_probability

BUTTONS = ("Save", "Open", "Close", "Submit")
SIZE = 10  # cells on each side, so that a coordinate is one digit

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in cells, inclusive


@dataclass(frozen=True)
class TextScreen:
    """Find the named button among four and click inside it.

        Save5263
        Open2456
        Close0628
        Submit6396
        Click Close
        A: Close0628 click(1, 7)

    The digits after a button are its box x1 y1 x2 y2 on a 10 x 10 screen whose cells are the pixels;
    boxes are 2 or 3 cells wide and high and do not overlap. The annotator reads the box rightly and
    aims at its centre, but with probability `miss` clicks one cell beyond its right edge, its bottom
    edge or both.

    Args:
        miss: probability that a demonstrated click lies outside the box.
    """

    miss: float = 0.5

    def __post_init__(self) -> None:
        check_probability("miss", self.miss)

    def problem(self, rng: random.Random) -> Row:
        """{"prompt": "Save5263...", "target_box": [0, 6, 2, 8], "image_size": [10, 10]}."""
        boxes, target = _screen(rng)
        return {
            "prompt": _prompt(boxes, target),
            "target_box": list(boxes[target]),
            "image_size": [SIZE, SIZE],
        }

    def demonstration(self, rng: random.Random) -> Row:
        """The button, its box and a click that is often just outside it."""
        boxes, target = _screen(rng)
        x, y = self._click(boxes[target], rng)
        return {
            "prompt": _prompt(boxes, target),
            "completion": f" {_line(boxes, target)} click({x}, {y})",
        }

    def _click(self, box: Box, rng: random.Random) -> tuple[int, int]:
        x1, y1, x2, y2 = box
        x, y = (x1 + x2) // 2, (y1 + y2) // 2
        if rng.random() >= self.miss:
            return x, y
        return rng.choice([(x2 + 1, y), (x, y2 + 1), (x2 + 1, y2 + 1)])


def _screen(rng: random.Random) -> tuple[list[Box], int]:
    """Four boxes without overlap and the index of the button to click."""
    boxes = [_box(rng) for _ in BUTTONS]
    while any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]):
        boxes = [_box(rng) for _ in BUTTONS]
    return boxes, rng.randrange(len(BUTTONS))


def _box(rng: random.Random) -> Box:
    """A box that leaves the last column and row free, so that a click beyond its edge is on the screen."""
    width, height = rng.randint(2, 3), rng.randint(2, 3)
    x1, y1 = rng.randint(0, SIZE - 1 - width), rng.randint(0, SIZE - 1 - height)
    return x1, y1, x1 + width - 1, y1 + height - 1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _prompt(boxes: list[Box], target: int) -> str:
    lines = [_line(boxes, index) for index in range(len(BUTTONS))]
    return "\n".join([*lines, f"Click {BUTTONS[target]}", "A:"])


def _line(boxes: list[Box], index: int) -> str:
    return BUTTONS[index] + "".join(map(str, boxes[index]))
