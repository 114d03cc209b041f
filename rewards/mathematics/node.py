"""The tree of an answer: its one node type, and the ways to build one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


class Unparsable(ValueError):
    """The text is not in the grammar."""


class TooLarge(ValueError):
    """The text would take too long to evaluate; refused by looking at it."""


@dataclass(frozen=True)
class Node:
    """One node. `kind` decides what `args` and `value` hold:

    num value=Fraction, name=digits as written | sym, const, text, base name | add, mul, list, set, union, tuple args |
    neg, pow, div, percent, degree, abs, fact, floor, ceil args | func name args | rel name=";"-joined operators args |
    pm name="pm"|"mp" args (two, or one) | tuple name=its two brackets | matrix name="RxC" args | ratio args |
    minus args (set difference) | builder args (condition)
    """

    kind: str
    args: tuple[Node, ...] = ()
    name: str = ""
    value: Fraction | None = None


ONE = Node("num", (), "1", Fraction(1))


def normal_words(text: str) -> str:
    """Words in lower case without punctuation and articles."""
    words = re.findall(r"[\w\u4e00-\u9fff]+(?:['.]\w+)*", text.lower())
    kept = [w for w in words if w not in ("the", "a", "an")]
    return " ".join(kept if any(len(w) > 1 for w in kept) else words)


def signed(sign: str, node: Node) -> Node:
    if sign == "-":
        return Node("neg", (node,))
    if sign in ("\\pm", "\\mp"):
        return Node("pm", (node,), sign[1:])
    return node


def multiply(a: Node, b: Node) -> Node:
    return Node("mul", ((*a.args, b) if a.kind == "mul" else (a, b)))


def unite(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Node("union", tuple(parts))


def as_ordered(node: Node) -> Node:
    return Node("tuple", node.args, "()") if node.kind == "list" else node


def is_proper_fraction(part: Node) -> bool:
    if part.kind != "div":
        return False
    top, bottom = part.args
    if top.kind != "num" or bottom.kind != "num" or top.value is None or bottom.value is None:
        return False
    return top.name.isdigit() and bottom.name.isdigit() and 0 < top.value < bottom.value


def repeating_number(prefix: str, block: str) -> Node:
    whole, _, fixed = prefix.partition(".")
    start = Fraction(int(whole or 0)) + (Fraction(int(fixed), 10 ** len(fixed)) if fixed else 0)
    value = start + Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(fixed))
    return Node("div", (whole_number(value.numerator), whole_number(value.denominator)))


def whole_number(value: int) -> Node:
    return Node("num", (), str(value), Fraction(value))


def _is_name(node: Node) -> bool:
    if node.kind == "func":
        return any(map(_is_name, node.args))  # f(x) = ..., but sqrt(2) is a value
    return node.kind in ("sym", "text") or (node.kind == "mul" and all(a.kind == "sym" for a in node.args))


def relation(operators: list[str], sides: list[Node]) -> Node:
    """A chain of relations; what follows an approximation sign is a gloss, not the answer."""
    for i, operator in enumerate(operators):
        if operator == "~":
            if i > 0 or not _is_name(sides[0]):
                operators, sides = operators[:i], sides[: i + 1]
                break
            operators = ["=", *operators[1:]]
    if not operators:
        return sides[0]
    return Node("rel", tuple(sides), ";".join(operators))
