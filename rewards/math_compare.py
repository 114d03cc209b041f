r"""Decides whether two parsed answers are the same answer.

Numbers are equal when they are equal: exactly where rational, to forty digits where not. The one tolerance: a decimal
of at least six significant digits, three of them after the point, equals a number that it is a correct rounding (or
cutting-off) of, so 0.333333 is 1/3 and 0.333 is not. Expressions with symbols are equal when they agree, to forty
digits, at points drawn for the purpose, which is how identities are tested; the points are fixed, so that a verdict
never changes between runs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from rewards import math_sets
from rewards.math_number import Number, Undefined, as_real, evaluate, inexact
from rewards.math_tree import Node, Unparsable

_MIN_SIGNIFICANT = 6
_MIN_FRACTIONAL = 3
_MAX_ITEMS = 64
# Values for symbols: positive first, where roots and logarithms are real; then negative ones, which count where both
# sides are real. Odd and unrelated, so that no identity holds at them by accident.
_POSITIVE = [
    Fraction(n, d) for n, d in ((37, 23), (71, 29), (13, 41), (97, 31), (53, 47), (19, 67), (83, 17), (61, 43))
]
_NUM_POSITIVE, _NUM_NEGATIVE = 4, 3


def same_answer(gold: Node, pred: Node) -> bool:
    """Whether two trees are the same answer.

    Raises:
        Unparsable: a part of one of them is beyond this module; the slow path may know.
        TooLarge: deciding it would take too long.
    """
    if gold == pred:
        return True
    gold, pred = _simplify_relations(_matrix_arithmetic(gold)), _simplify_relations(_matrix_arithmetic(pred))
    gold, pred = _unlabel_pair(gold, pred)
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


# Relations, sets


def _same_relation_or_set(gold: Node, pred: Node) -> bool:
    if gold.kind == pred.kind == "rel" and _same_relation(gold, pred):
        return True
    first, second = math_sets.as_real_set(gold), math_sets.as_real_set(pred)
    if first is not None and second is not None:
        return math_sets.same_set(first, second)
    if gold.kind == pred.kind == "list":
        return _same_items(gold.args, pred.args, ordered=False)
    if gold.kind == pred.kind and gold.kind in ("union",):
        return _same_items(gold.args, pred.args, ordered=False)
    return False


def _same_relation(gold: Node, pred: Node) -> bool:
    """Same chain, the chain reversed, or one relation that is a multiple of the other."""
    for sides, operators in ((pred.args, pred.name.split(";")), _reversed(pred)):
        if operators == gold.name.split(";") and len(sides) == len(gold.args):
            if all(_same_or_false(a, b) for a, b in zip(gold.args, sides)):
                return True
    if len(gold.args) == len(pred.args) == 2:
        return _proportional(gold, pred)
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
    symbols = math_sets.symbols_of(f) | math_sets.symbols_of(g)
    if math_sets.symbols_of(f) != math_sets.symbols_of(g) or not symbols:
        return False
    ratios: list[Number] = []
    for point in itertools.islice(_points(symbols), _NUM_POSITIVE + _NUM_NEGATIVE):
        try:
            top, bottom = evaluate(f, point), evaluate(g, point)
            if bottom == 0:
                return False
            ratios.append(
                as_real(
                    top / bottom
                    if isinstance(top, Fraction) and isinstance(bottom, Fraction)
                    else inexact(top) / inexact(bottom)
                )
            )
        except (Undefined, ZeroDivisionError):
            continue
    if len(ratios) < 3 or ratios[0] == 0 or not all(math_sets.same(ratio, ratios[0]) for ratio in ratios):
        return False
    operator, other = gold.name, pred.name
    if operator in ("=", "!="):
        return operator == other
    return other == (operator if ratios[0] > 0 else {"<": ">", ">": "<"}[operator[0]] + operator[1:])


# Collections


def _same_collection(gold: Node, pred: Node) -> bool:
    if len(gold.args) > _MAX_ITEMS or len(pred.args) > _MAX_ITEMS:
        return False
    if gold.kind == pred.kind == "tuple":
        brackets_match = gold.name == pred.name or len(gold.args) > 2
        return brackets_match and _same_items(gold.args, pred.args, ordered=True)
    if "matrix" in (gold.kind, pred.kind):
        return _same_items(_vector(gold), _vector(pred), ordered=True)
    if "tuple" in (gold.kind, pred.kind):
        other = pred if gold.kind == "tuple" else gold
        row = gold if gold.kind == "tuple" else pred
        if other.kind in ("list", "set") and len(other.args) == 1 and other.args[0].kind == "tuple":
            return _same(row, other.args[0])
        if other.kind in ("list", "set") and (row.name == "()" or len(row.args) > 2):
            if other.kind == "list" and len(other.args) == 1:
                return False
            return _same_items(gold.args, pred.args, ordered=True)
        return False
    if gold.kind in ("list", "set") and pred.kind in ("list", "set"):
        return _same_items(_flat(gold), _flat(pred), ordered=False)
    single, many = (gold, pred) if gold.kind not in ("list", "set") else (pred, gold)
    distinct = _flat(many)
    return len(distinct) == 1 and _same(single, distinct[0])


def _vector(node: Node) -> Sequence[Node]:
    if node.kind == "matrix" and "1" not in node.name.split("x"):
        raise Unparsable("a matrix beside a list")
    return node.args


def _flat(node: Node) -> list[Node]:
    """Items with nested sets and repeated items taken out; {1, 2}, 1 +- 2 inside a list count as their members."""
    items: list[Node] = []
    for arg in node.args:
        items.extend(_flat(arg) if arg.kind in ("list", "set") else [arg])
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


def _matrix_arithmetic(node: Node) -> Node:
    """Sums and products of matrices carried out on their entries, which stay expressions."""
    args = tuple(_matrix_arithmetic(arg) for arg in node.args)
    node = dataclasses.replace(node, args=args)
    if not any(arg.kind == "matrix" for arg in args):
        return node
    if node.kind == "func" and node.name == "det" and args[0].kind == "matrix":
        return _determinant(args[0])
    if node.kind == "neg":
        return dataclasses.replace(args[0], args=tuple(Node("neg", (cell,)) for cell in args[0].args))
    if node.kind == "add" and len({(arg.kind, arg.name) for arg in args}) == 1:
        return Node("matrix", tuple(Node("add", cells) for cells in zip(*(arg.args for arg in args))), args[0].name)
    if node.kind == "mul":
        product = args[0]
        for factor in args[1:]:
            product = _matrix_product(product, factor)
        return product
    return node


def _determinant(matrix: Node) -> Node:
    """Laplace expansion along the first row, up to 4 x 4."""
    size, columns = map(int, matrix.name.split("x"))
    if size != columns or size > 4:
        raise Unparsable("a determinant of this size")
    if size == 1:
        return matrix.args[0]
    terms = []
    for c in range(size):
        minor = tuple(matrix.args[r * size + k] for r in range(1, size) for k in range(size) if k != c)
        term = Node("mul", (matrix.args[c], _determinant(Node("matrix", minor, f"{size - 1}x{size - 1}"))))
        terms.append(Node("neg", (term,)) if c % 2 else term)
    return Node("add", tuple(terms))


def _matrix_product(a: Node, b: Node) -> Node:
    if a.kind != "matrix" or b.kind != "matrix":
        scalar, matrix = (a, b) if b.kind == "matrix" else (b, a)
        if matrix.kind != "matrix":
            return Node("mul", (a, b))
        return dataclasses.replace(matrix, args=tuple(Node("mul", (scalar, cell)) for cell in matrix.args))
    (rows, inner), (inner_b, columns) = (tuple(map(int, m.name.split("x"))) for m in (a, b))
    if inner != inner_b:
        raise Unparsable("matrices that do not fit")
    cells = [
        Node("add", tuple(Node("mul", (a.args[r * inner + k], b.args[k * columns + c])) for k in range(inner)))
        for r in range(rows)
        for c in range(columns)
    ]
    return Node("matrix", tuple(cells), f"{rows}x{columns}")


def _same_ratio(gold: Node, pred: Node) -> bool:
    """7:32 is 14:64, and 7/32 where one side is a fraction; two times of day must agree as they stand."""
    if gold.kind != "ratio" or pred.kind != "ratio":
        ratio, other = (gold, pred) if gold.kind == "ratio" else (pred, gold)
        return len(ratio.args) == 2 and other.kind == "div" and same_value(Node("div", ratio.args), other)
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
    return all(math_sets.same(a * second[0], b * first[0]) for a, b in zip(first, second))


def _is_time(node: Node) -> bool:
    return all(arg.kind == "num" for arg in node.args) and len(node.args[-1].name) == 2 and node.args[-1].name < "60"


# Values


def same_value(gold: Node, pred: Node) -> bool:
    """Whether two expressions have the same value, at every point where they have symbols."""
    symbols = math_sets.symbols_of(gold) | math_sets.symbols_of(pred)
    if not symbols:
        try:
            return _same_number(evaluate(gold, {}), evaluate(pred, {}), gold, pred)
        except Undefined:
            return False  # 1/0 is not an answer, whatever it is compared with
    if len(symbols) > 12:
        raise Unparsable("more than twelve symbols")
    return _agree_everywhere(gold, pred, symbols)


def _agree_everywhere(gold: Node, pred: Node, symbols: frozenset[str]) -> bool:
    num_agreed = 0
    for number, point in enumerate(itertools.islice(_points(symbols), _NUM_POSITIVE + _NUM_NEGATIVE)):
        try:
            a, b = evaluate(gold, point), evaluate(pred, point)
            if number >= _NUM_POSITIVE:
                a, b = as_real(a), as_real(b)
        except Undefined:
            continue
        if not _close(a, b):
            return False
        num_agreed += 1
    return num_agreed >= 3


def _points(symbols: frozenset[str]) -> Iterator[Mapping[str, Fraction]]:
    names = sorted(symbols)
    for shift in range(_NUM_POSITIVE):
        yield {
            name: _POSITIVE[(i * 3 + shift * 2 + i // 8) % 8] + i // 8 + shift * i % 5 for i, name in enumerate(names)
        }
    for shift in range(_NUM_NEGATIVE):
        yield {
            name: (_POSITIVE[(i * 5 + shift) % 8] + shift + i // 8) * (-1 if (i + shift) % 2 == 0 or shift == 2 else 1)
            for i, name in enumerate(names)
        }


def _close(a: Number, b: Number) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    x, y = inexact(a), inexact(b)
    scale = max(abs(x), abs(y))
    if scale > 1e35 or (scale and scale < 1e-35):
        # whole numbers of this size are exact; what is not may hide a difference beyond its last digit
        return bool(abs(x - y) <= 1e-50 * scale)
    return bool(abs(x - y) <= 1e-40 * max(scale, 1e-5))


def _same_number(a: Number, b: Number, gold: Node, pred: Node) -> bool:
    if _close(a, b):
        return True
    return _is_rounding(gold, a, pred, b) or _is_rounding(pred, b, gold, a)


def _is_rounding(decimal: Node, value: Number, other: Node, exact: Number) -> bool:
    """Whether `decimal` is a written decimal, long enough, that rounds or cuts off the other value."""
    digits = _written_digits(decimal)
    if digits is None or not isinstance(value, Fraction):
        return False
    significant, fractional, unit = digits
    if significant < _MIN_SIGNIFICANT or fractional < _MIN_FRACTIONAL:
        return False
    if isinstance(exact, Fraction) and 10**fractional % exact.denominator == 0:
        return False  # these digits could have said it exactly
    theirs = _written_digits(other)
    if theirs is not None and (theirs[1] <= fractional or fractional < _MIN_SIGNIFICANT):
        return False  # two decimals: the other must say more, and this one must have six places
    try:
        gap = abs(inexact(value) - inexact(as_real(exact)))
    except Undefined:
        return False
    return bool(gap < inexact(unit))


def _written_digits(node: Node) -> tuple[int, int, Fraction] | None:
    """(significant digits, digits after the point, one unit of the last) of a decimal literal, else None."""
    while node.kind in ("neg", "percent"):
        node = node.args[0]
    if node.kind != "num" or "." not in node.name or "e" in node.name.lower():
        return None
    whole, _, fraction = node.name.partition(".")
    significant = len((whole + fraction).lstrip("0"))
    return significant, len(fraction), Fraction(1, 10 ** len(fraction))


# What stands around the answer: labels, plus-minus signs, chains of equations


def expand_signs(node: Node) -> Node:
    """The two values of a +- b as a list; every sign in one expression is taken together."""
    if node.kind in ("list", "set", "tuple", "union"):
        args = [expand_signs(arg) for arg in node.args]
        if node.kind in ("list", "set"):
            args = [inner for arg in args for inner in (arg.args if arg.kind == "list" else (arg,))]
        return dataclasses.replace(node, args=tuple(args))
    if not _has_sign(node):
        return node
    return Node("list", (_take_sign(node, 1), _take_sign(node, -1)))


def _has_sign(node: Node) -> bool:
    return node.kind == "pm" or any(_has_sign(arg) for arg in node.args)


def _take_sign(node: Node, sign: int) -> Node:
    args = tuple(_take_sign(arg, sign) for arg in node.args)
    if node.kind != "pm":
        return dataclasses.replace(node, args=args)
    sign = sign if node.name == "pm" else -sign
    last = args[-1] if sign > 0 else Node("neg", (args[-1],))
    return last if len(args) == 1 else Node("add", (args[0], last))


def _simplify_relations(node: Node) -> Node:
    """Chains of equations become one: "x = 1 + 1 = 2" is x = 2, "2 + 3 = 5" is 5 if it is true."""
    if node.kind in ("list", "set"):
        return dataclasses.replace(node, args=tuple(_simplify_relations(arg) for arg in node.args))
    if node.kind != "rel" or set(node.name.split(";")) != {"="}:
        return node
    sides = node.args
    if all(not math_sets.symbols_of(side) and side.kind not in ("text", "tuple", "list") for side in sides):
        return sides[-1] if _all_equal(sides) else node
    if is_label(sides[0]):
        last = sides[-1]
        return last if is_label(last) and not is_label(sides[0]) else Node("rel", (sides[0], last), "=")
    if len(sides) == 2 and sides[1].kind == "sym":  # 5 = x
        return Node("rel", (sides[1], sides[0]), "=")
    return sides[-1] if _is_identity(sides) else node


def _is_identity(sides: Sequence[Node]) -> bool:
    """Whether an equation only rewrites one expression, as x^2 - 4 = (x - 2)(x + 2) does."""
    try:
        return all(same_value(sides[0], side) for side in sides[1:])
    except (Unparsable, Undefined):
        return False


def _all_equal(sides: Sequence[Node]) -> bool:
    try:
        values = [evaluate(side, {}) for side in sides]
    except (Undefined, Unparsable):
        return True
    return all(_close(value, values[0]) for value in values)


def is_label(node: Node) -> bool:
    """Whether the left side of an equation names what the right side is: x, f(x), AB, S_n, |AB|, A:B, (p, q)."""
    if node.kind in ("sym", "text"):
        return True
    if node.kind == "func":
        return node.name.startswith("?") or (len(node.args) == 1 and is_label(node.args[0])) or node.name == "arg"
    if node.kind in ("abs", "tuple", "ratio", "degree", "list"):
        return all(is_label(arg) for arg in node.args)
    if node.kind == "div":
        return all(_is_segment(arg) for arg in node.args) or all(_is_differential(arg) for arg in node.args)
    if node.kind == "mul":
        return _is_segment(node) or (node.args[0].kind == "sym" and node.args[0].name[0].isupper())
    return False


def _is_differential(node: Node) -> bool:
    """The d, dx, d^2 y of a derivative."""
    first = node.args[0] if node.kind in ("mul", "pow") else node
    return first == Node("sym", (), "d") or (first.kind == "pow" and first.args[0] == Node("sym", (), "d"))


def _is_segment(node: Node) -> bool:
    names = list(node.args if node.kind == "mul" else (node,))
    return all(arg.kind == "sym" and arg.name[0].isupper() for arg in names)


def _label_of(node: Node) -> Node | None:
    if node.kind == "rel" and node.name == "=" and is_label(node.args[0]):
        return node.args[0]
    return None


def _unlabel_pair(gold: Node, pred: Node) -> tuple[Node, Node]:
    """Both without the names of what they are, unless the names tell them apart."""
    gold, pred = _common_label(gold), _common_label(pred)
    gold_label, pred_label = _label_of(gold), _label_of(pred)
    if gold_label is not None and pred_label is not None:
        if _labels_differ(gold_label, pred_label):
            return gold, pred
        return _spread(gold.args[1], gold_label), _spread(pred.args[1], pred_label)
    if gold.kind == pred.kind == "list" and _records(gold) and _records(pred):
        return gold, pred
    return _unlabel(gold, other=pred), _unlabel(pred, other=gold)


def _spread(value: Node, label: Node) -> Node:
    return value


def _labels_differ(a: Node, b: Node) -> bool:
    if a == b or "text" in (a.kind, b.kind):
        return False
    if a.kind != b.kind:
        return not ({a.kind, b.kind} == {"sym", "func"} and any(n.kind == "sym" and n.name == "y" for n in (a, b)))
    return not (a.kind == "func" and a.args == b.args and a.name == b.name)


def _records(node: Node) -> bool:
    return len(node.args) > 1 and all(_label_of(arg) is not None for arg in node.args)


def _common_label(node: Node) -> Node:
    """ "x = 1, x = 2" and "x = 1, 2" are x = {1, 2}."""
    if node.kind != "list":
        return node
    labels = [_label_of(arg) for arg in node.args]
    first = labels[0]
    if first is None:
        return node
    if all(label == first for label in labels) or (
        all(label is None for label in labels[1:]) and first.kind != "tuple"
    ):
        if any(arg.kind == "rel" for arg, label in zip(node.args, labels) if label is None):
            return node
        return Node("rel", (first, Node("list", tuple(_strip(arg) for arg in node.args))), "=")
    if first.kind == "tuple" and all(label in (None, first) for label in labels):
        return Node("list", tuple(_strip(arg) for arg in node.args))
    return node


def _strip(node: Node) -> Node:
    return node.args[1] if _label_of(node) is not None else node


def _same_letter(node: Node) -> bool:
    """x_1 = 2, x_2 = 3: numbered values of one thing, in no order."""
    names = [arg.args[0].name for arg in node.args]
    return all("_" in name for name in names) and len({name.split("_")[0] for name in names}) == 1


def _unlabel(node: Node, other: Node) -> Node:
    if _label_of(node) is not None and other.kind != "rel":
        return node.args[1]
    if node.kind == "list" and _records(node):
        values = tuple(_strip(arg) for arg in node.args)
        if _same_letter(node):
            return Node("list", values)
        return (
            Node("tuple", values, "()") if other.kind in ("tuple", "list") and len(other.args) == len(values) else node
        )
    if node.kind == "list":
        return dataclasses.replace(node, args=tuple(_unlabel_record(arg) for arg in node.args))
    return node


def _unlabel_record(node: Node) -> Node:
    if node.kind in ("tuple", "list") and _records(node):
        return Node("tuple", tuple(_strip(arg) for arg in node.args), "()")
    return node


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
        not math_sets.symbols_of(node)
        and node.kind in ("num", "neg", "div")
        and all(arg.kind in ("num", "neg", "div") for arg in node.args)
    )


__all__ = ["expand_signs", "is_simplified", "same_answer", "same_value"]
_Any = Any
