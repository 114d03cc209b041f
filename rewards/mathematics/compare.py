"""Decides whether two parsed answers are the same answer: numbers, tuples, sets, intervals, matrices, relations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rewards.mathematics.arithmetic import Number, Undefined, as_real, divide
from rewards.mathematics.labels import (
    expand_signs,
    simplify_relations,
    unlabel_pair,
    with_base_ten,
    with_free_names,
    without_geometry,
)
from rewards.mathematics.matrix import matrix_arithmetic
from rewards.mathematics.node import Node, Unparsable
from rewards.mathematics.number import evaluate, symbols_of
from rewards.mathematics.sets import as_real_set, same, same_set
from rewards.mathematics.value import NUM_NEGATIVE, NUM_POSITIVE, points, same_value

_MAX_ITEMS = 64


def same_answer(gold: Node, pred: Node) -> bool:
    """Whether two trees are the same answer.

    Raises:
        Unparsable: a part of one of them is beyond this module; the slow path may know.
        TooLarge: deciding it would take too long.
    """
    if gold == pred:
        return True
    gold, pred = simplify_relations(matrix_arithmetic(gold)), simplify_relations(matrix_arithmetic(pred))
    gold, pred = without_geometry(*unlabel_pair(gold, pred))
    gold, pred = with_base_ten(gold, pred), with_base_ten(pred, gold)
    pred = with_free_names(gold, pred)
    if gold == pred:
        return True
    return _same(expand_signs(gold), expand_signs(pred))


def _same(gold: Node, pred: Node) -> bool:
    kinds = {gold.kind, pred.kind}
    if gold == pred:
        return True
    kinds |= {arg.kind for node in (gold, pred) if node.kind == "list" for arg in node.args if arg.kind == "rel"}
    if (
        "rel" in kinds
        or "builder" in kinds
        or kinds & {"union", "minus", "intersect"}
        or _is_reals(gold)
        or _is_reals(pred)
    ):
        return _same_relation_or_set(gold, pred)
    if kinds & {"list", "set", "tuple"}:
        return _same_collection(gold, pred)
    if "matrix" in kinds:
        return _same_matrix(gold, pred)
    if "ratio" in kinds:
        return _same_ratio(gold, pred)
    if kinds & {"text", "base"}:
        return gold == pred
    if {"const"} & kinds and "infty" in (_infinite(gold), _infinite(pred)):
        return _signed_infinity(gold) == _signed_infinity(pred)
    return same_value(gold, pred)


def _is_reals(node: Node) -> bool:
    return node.kind == "const" and node.name.startswith("set_")


def _infinite(node: Node) -> str:
    while node.kind == "neg":
        node = node.args[0]
    return node.name if node.kind == "const" else ""


def _signed_infinity(node: Node) -> int:
    sign = 1
    while node.kind == "neg":
        node, sign = node.args[0], -sign
    return sign if node.kind == "const" and node.name == "infty" else 0


def _same_relation_or_set(gold: Node, pred: Node) -> bool:
    if gold.kind == pred.kind == "rel" and _same_relation(gold, pred):
        return True
    if gold.kind == pred.kind == "rel" and symbols_of(gold) != symbols_of(pred):
        return False  # a > 0 is not b > 0
    first, second = as_real_set(gold), as_real_set(pred)
    if first is not None and second is not None:
        return same_set(first, second)
    if gold.kind == pred.kind == "list":
        return _same_items(gold.args, pred.args, ordered=False)
    if gold.kind == pred.kind and gold.kind in ("union", "intersect"):
        return _same_items(gold.args, pred.args, ordered=False)
    return False


def _same_relation(gold: Node, pred: Node) -> bool:
    """Same chain, the chain reversed, or one relation that is a multiple of the other."""
    for sides, operators in ((pred.args, pred.name.split(";")), _reversed(pred)):
        same_shape = operators == gold.name.split(";") and len(sides) == len(gold.args)
        if same_shape and all(_same_or_false(a, b) for a, b in zip(gold.args, sides)):
            return True
    if len(gold.args) == len(pred.args) == 2:
        return _proportional(gold, pred)
    if set(gold.name.split(";")) == set(pred.name.split(";")) == {"="}:
        return _same_items(gold.args, pred.args, ordered=False)
    return False


def _same_or_false(a: Node, b: Node) -> bool:
    try:
        return _same(a, b)
    except (Unparsable, Undefined):
        return False


def _reversed(node: Node) -> tuple[tuple[Node, ...], list[str]]:
    flip = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    return node.args[::-1], [flip.get(op, op) for op in reversed(node.name.split(";"))]


def _proportional(gold: Node, pred: Node) -> bool:
    """a = b and c = d say the same when a - b is a constant multiple of c - d; for < the multiple must be positive."""
    f, g = (Node("add", (node.args[0], Node("neg", (node.args[1],)))) for node in (gold, pred))
    symbols = symbols_of(f) | symbols_of(g)
    if symbols_of(f) != symbols_of(g) or not symbols:
        return False
    ratios: list[Number] = []
    for point in itertools.islice(points(symbols), NUM_POSITIVE + NUM_NEGATIVE):
        try:
            top, bottom = evaluate(f, point), evaluate(g, point)
            if bottom == 0:
                return False
            ratios.append(as_real(divide(top, bottom)))
        except (Undefined, ZeroDivisionError):
            continue
    if len(ratios) < 3 or ratios[0] == 0 or not all(same(ratio, ratios[0]) for ratio in ratios):
        return False
    operator, other = gold.name, pred.name
    if operator in ("=", "!="):
        return operator == other
    return other == (operator if ratios[0] > 0 else {"<": ">", ">": "<"}[operator[0]] + operator[1:])


def _same_collection(gold: Node, pred: Node) -> bool:
    if len(gold.args) > _MAX_ITEMS or len(pred.args) > _MAX_ITEMS:
        return False
    if gold.kind == pred.kind == "tuple":
        brackets_match = gold.name == pred.name or (len(gold.args) > 2 and {gold.name, pred.name} == {"()", "[]"})
        return brackets_match and _same_items(gold.args, pred.args, ordered=True)
    if "matrix" in (gold.kind, pred.kind):
        gold, pred = _rows_as_matrix(gold), _rows_as_matrix(pred)
        if gold.kind == pred.kind:
            return _same_matrix(gold, pred)
        return _same_items(_vector(gold), _vector(pred), ordered=True)
    if "tuple" in (gold.kind, pred.kind):
        other = pred if gold.kind == "tuple" else gold
        row = gold if gold.kind == "tuple" else pred
        if other.kind in ("list", "set") and len(other.args) == 1 and other.args[0].kind == "tuple":
            return _same(row, other.args[0])
        if other.kind in ("list", "set") and (row.name == "()" or (len(row.args) > 2 and row.name == "[]")):
            if other.kind == "list" and (len(other.args) == 1 or other.name == "or"):
                return False
            return _same_items(gold.args, pred.args, ordered=True)
        return False
    if gold.kind in ("list", "set") and pred.kind in ("list", "set"):
        return _same_items(_flat(gold), _flat(pred), ordered=False)
    single, many = (gold, pred) if gold.kind not in ("list", "set") else (pred, gold)
    distinct = _distinct(_flat(many))
    return len(distinct) == 1 and _same(single, distinct[0])


def _rows_as_matrix(node: Node) -> Node:
    """[[1, 2], [3, 4]] as a matrix."""
    is_rows = node.kind == "list" and len({(row.kind, len(row.args)) for row in node.args}) == 1
    if not is_rows or node.args[0].kind != "tuple" or node.args[0].name != "[]":
        return node
    cells = tuple(cell for row in node.args for cell in row.args)
    return Node("matrix", cells, f"{len(node.args)}x{len(node.args[0].args)}")


def _vector(node: Node) -> Sequence[Node]:
    if node.kind == "matrix" and "1" not in node.name.split("x"):
        raise Unparsable("a matrix beside a list")
    return node.args


def _flat(node: Node) -> list[Node]:
    """Items with nested sets and repeated items taken out; {1, 2}, 1 +- 2 inside a list count as their members."""
    items: list[Node] = []
    for arg in node.args:
        items.extend(_flat(arg) if arg.kind in ("list", "set") and arg.args else [arg])  # {{}} has a member
    return [item for i, item in enumerate(items) if item not in items[:i]]


def _same_items(gold: Sequence[Node], pred: Sequence[Node], *, ordered: bool) -> bool:
    if ordered:
        return len(gold) == len(pred) and all(_same(a, b) for a, b in zip(gold, pred))
    gold, pred = _distinct(gold), _distinct(pred)
    if len(gold) != len(pred):
        return False
    rest = list(pred)
    for item in gold:
        match = next((i for i, other in enumerate(rest) if _same_or_false(item, other)), None)
        if match is None:
            return False
        del rest[match]
    return True


def _distinct(items: Sequence[Node]) -> list[Node]:
    kept: list[Node] = []
    for item in items:
        if not any(_same_or_false(item, other) for other in kept):
            kept.append(item)
    return kept


def _same_matrix(gold: Node, pred: Node) -> bool:
    if gold.kind == pred.kind == "matrix":
        return gold.name == pred.name and all(_same(a, b) for a, b in zip(gold.args, pred.args))
    if "mul" in (gold.kind, pred.kind) or "add" in (gold.kind, pred.kind):
        raise Unparsable("matrix arithmetic")
    return False


def _same_ratio(gold: Node, pred: Node) -> bool:
    """7:32 is 14:64, and 7/32 where one side is a fraction; two times of day must agree as they stand."""
    if gold.kind != "ratio" or pred.kind != "ratio":
        ratio, other = (gold, pred) if gold.kind == "ratio" else (pred, gold)
        is_quotient = other.kind == "div" or (other.kind == "num" and "." in other.name)
        return len(ratio.args) == 2 and is_quotient and same_value(Node("div", ratio.args), other)
    if len(gold.args) != len(pred.args):
        return False
    if all(_same(a, b) for a, b in zip(gold.args, pred.args)):
        return True
    if _is_time(gold) and _is_time(pred):
        return False
    first = [evaluate(arg, {}) for arg in gold.args]
    second = [evaluate(arg, {}) for arg in pred.args]
    if any(value == 0 for value in first + second):
        return False
    return all(same(a * second[0], b * first[0]) for a, b in zip(first, second))


def _is_time(node: Node) -> bool:
    return all(arg.kind == "num" for arg in node.args) and len(node.args[-1].name) == 2 and node.args[-1].name < "60"
