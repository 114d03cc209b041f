"""Which tokens top-k and top-p leave: one definition for the engine of transformers and for the trainer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Truncation:
    """How a distribution is cut down before a token is drawn."""

    top_p: float = 1.0
    """nucleus mass in (0, 1]; 1 keeps every token"""
    top_k: int = 0
    """number of tokens kept; 0 keeps every token"""

    @property
    def cuts(self) -> bool:
        """Whether any token can be left out."""
        return self.top_p < 1 or self.top_k > 0


WHOLE = Truncation()


def cut_down(logits: Tensor, truncation: Truncation) -> Tensor:
    """Logits [n, V] with -inf where a token is left out; temperature has been applied.

    First the top_k likeliest, and all that are as likely as the last of them; of what is left the fewest likeliest
    tokens that together hold more than top_p, at least one. vLLM does both in this order.

    Source of top-p: Holtzman et al. 2020, https://arxiv.org/abs/1904.09751, sec. 3.1.
    """
    if 0 < truncation.top_k < logits.shape[-1]:
        last = logits.topk(truncation.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < last, float("-inf"))
    if truncation.top_p < 1:
        values, order = logits.sort(-1)
        dropped = values.softmax(-1).cumsum(-1) <= 1 - truncation.top_p
        dropped[:, -1] = False
        logits = logits.scatter(-1, order, values.masked_fill(dropped, float("-inf")))
    return logits
