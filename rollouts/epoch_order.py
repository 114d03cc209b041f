"""The order of an endless walk over a finite number of things: a new one in every epoch, from a seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EpochOrder:
    """Which of `size` things the index-th step is at."""

    size: int
    seed: int
    _orders: dict[int, list[int]] = field(default_factory=dict, compare=False, repr=False)

    def position(self, index: int) -> int:
        """0 <= position < size; each epoch of `size` steps visits every position once."""
        epoch, step = divmod(index, self.size)
        if epoch not in self._orders:
            order = list(range(self.size))
            random.Random(f"{self.seed}:{epoch}").shuffle(order)
            self._orders.clear()  # one epoch at a time
            self._orders[epoch] = order
        return self._orders[epoch][step]
