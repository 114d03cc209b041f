"""Whether an answer has arithmetic left to do."""

from __future__ import annotations

from fractions import Fraction

from rewards.mathematics.node import Node
from rewards.mathematics.number import symbols_of


def is_simplified(node: Node) -> bool:
    """Whether no arithmetic is left to do: fractions reduced, no number beside a number, roots free of squares."""
    if node.kind == "div" and all(_integer(arg) is not None for arg in node.args):
        top, bottom = (_integer(arg) for arg in node.args)
        return bottom not in (0, 1, -1) and Fraction(top or 0, bottom or 1).denominator == abs(bottom or 1)
    if node.kind in ("add", "mul") and node.name != "mixed" and sum(_is_plain_number(arg) for arg in node.args) > 1:
        return False
    if node.kind == "pow" and all(_integer(arg) is not None for arg in node.args):
        return False
    if node.kind == "func" and node.name == "sqrt":
        inner = _integer(node.args[0])
        if inner is not None and (
            inner in (0, 1) or any(inner % (k * k) == 0 for k in range(2, min(abs(inner), 1000)))
        ):
            return False
    if node.kind == "fact" and _integer(node.args[0]) is not None:
        return False
    return all(is_simplified(arg) for arg in node.args)


def _integer(node: Node) -> int | None:
    if node.kind == "neg":
        inner = _integer(node.args[0])
        return None if inner is None else -inner
    return int(node.value) if node.kind == "num" and node.value is not None and node.value.denominator == 1 else None


def _is_plain_number(node: Node) -> bool:
    return (
        not symbols_of(node)
        and node.kind in ("num", "neg", "div")
        and all(arg.kind in ("num", "neg", "div") for arg in node.args)
    )
