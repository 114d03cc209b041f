"""What stands around an answer: names of what it is (x = ...), chains of equations, plus-minus signs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rewards.mathematics.arithmetic import Undefined
from rewards.mathematics.node import Node, Unparsable
from rewards.mathematics.number import evaluate, symbols_of
from rewards.mathematics.value import close, same_value


def expand_signs(node: Node) -> Node:
    """The two values of a +- b as a list; every sign in one expression is taken together."""
    if node.kind in ("list", "set", "tuple", "union"):
        args = [expand_signs(arg) for arg in node.args]
        if node.kind in ("list", "set"):
            args = [inner for arg in args for inner in (arg.args if arg.kind == "list" else (arg,))]
        if node.kind == "tuple" and len(node.args) > 1 and sum(map(_has_sign, node.args)) == 1:
            return Node("list", (_take_sign(node, 1), _take_sign(node, -1)))  # (+-4, 0)
        return dataclasses.replace(node, args=tuple(args))
    if not _has_sign(node):
        return node
    return Node("list", (_take_sign(node, 1), _take_sign(node, -1)), "or")


def _has_sign(node: Node) -> bool:
    return node.kind == "pm" or any(_has_sign(arg) for arg in node.args)


def _take_sign(node: Node, sign: int) -> Node:
    args = tuple(_take_sign(arg, sign) for arg in node.args)
    if node.kind != "pm":
        return dataclasses.replace(node, args=args)
    sign = sign if node.name == "pm" else -sign
    last = args[-1] if sign > 0 else Node("neg", (args[-1],))
    return last if len(args) == 1 else Node("add", (args[0], last))


def simplify_relations(node: Node) -> Node:
    """Chains of equations become one: "x = 1 + 1 = 2" is x = 2, "2 + 3 = 5" is 5 if it is true."""
    if node.kind in ("list", "set"):
        return dataclasses.replace(node, args=tuple(simplify_relations(arg) for arg in node.args))
    if node.kind != "rel" or set(node.name.split(";")) != {"="}:
        return node
    sides = node.args
    if all(not symbols_of(side) and side.kind not in ("text", "tuple", "list") for side in sides):
        return sides[-1] if _all_equal(sides) else node
    if len(sides) > 2 and len({side.name for side in sides if side.kind == "sym"}) == len(sides):
        return node  # a = b = c
    if len(sides) > 2 and not any(map(symbols_of, sides[1:])) and _all_equal(sides[1:]):
        sides = (sides[0], sides[-1])  # a + b = 10 + 15 = 25
        node = Node("rel", sides, "=")
    if sides[-1].kind == "matrix" and sides[0].kind == "pow" and sides[0].args[0].kind == "sym":
        return sides[-1]  # A^{-1} = ...
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
    except Unparsable:
        return True
    except Undefined:
        return False
    return all(close(value, values[0]) for value in values)


def is_label(node: Node) -> bool:
    """Whether the left side of an equation names what the right side is: x, f(x), AB, S_n, |AB|, A:B, (p, q)."""
    if node.kind in ("sym", "text"):
        return True
    if node.kind == "func":
        is_angle = node.name in ("sin", "cos", "tan", "cot", "sec", "csc") and bool(
            symbols_of(node)
        )  # sin 2x, cos(A + B)
        return (
            node.name.startswith("?")
            or (len(node.args) == 1 and is_label(node.args[0]))
            or node.name == "arg"
            or is_angle
        )
    if node.kind in ("abs", "tuple", "ratio", "degree", "list", "matrix"):
        return all(is_label(arg) for arg in node.args)
    if node.kind == "div":
        return all(_is_segment(arg) for arg in node.args) or all(_is_differential(arg) for arg in node.args)
    if node.kind == "mul":
        is_derivative = node.args[0].kind == "div" and all(_is_differential(arg) for arg in node.args[0].args)
        return is_derivative or _is_segment(node) or (node.args[0].kind == "sym" and node.args[0].name[0].isupper())
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


def unlabel_pair(gold: Node, pred: Node) -> tuple[Node, Node]:
    """Both without the names of what they are, unless the names tell them apart."""
    gold, pred = _common_label(gold), _common_label(pred)
    gold, pred = _spread(gold, other=pred), _spread(pred, other=gold)
    gold_label, pred_label = _label_of(gold), _label_of(pred)
    if gold_label is not None and pred_label is not None:
        if _labels_differ(gold_label, pred_label):
            return gold, pred
        return gold.args[1], rename(pred.args[1], _argument(pred_label), _argument(gold_label))
    if gold.kind == pred.kind == "list" and _records(gold) and _records(pred):
        return gold, pred
    if gold.kind in ("num", "neg", "div") and _names_a_sum(pred):
        return gold, pred.args[1]
    return _unlabel(gold, other=pred), _unlabel(pred, other=gold)


def _names_a_sum(node: Node) -> bool:
    """a + b = 7, which says what a + b is; 2a + b = 7 is an equation."""
    if node.kind != "rel" or node.name != "=" or len(node.args) != 2 or symbols_of(node.args[1]):
        return False
    return node.args[0].kind in ("add", "mul") and all(arg.kind == "sym" for arg in node.args[0].args)


def _spread(node: Node, other: Node) -> Node:
    """(a, b) = (1, 2) as a = 1, b = 2 where the other side is written so."""
    label = _label_of(node)
    if label is None or label.kind != "tuple" or other.kind != "list" or not _records(other):
        return node
    values = node.args[1]
    if values.kind != "tuple" or len(values.args) != len(label.args):
        return node
    return Node("list", tuple(Node("rel", pair, "=") for pair in zip(label.args, values.args)))


def _labels_differ(a: Node, b: Node) -> bool:
    if a == b or "text" in (a.kind, b.kind):
        return False
    if a.kind == b.kind == "func" and a.name == b.name and _argument(a) and _argument(b):
        return False  # f(x) and f(t)
    if a.kind == b.kind == "sym" and (a.name.swapcase() == b.name or _without_subscript(a, b)):
        return False
    if a.kind != b.kind:
        return not ({a.kind, b.kind} == {"sym", "func"} and any(n.kind == "sym" and n.name == "y" for n in (a, b)))
    return not (a.kind == "func" and a.args == b.args and a.name == b.name)


def _without_subscript(a: Node, b: Node) -> bool:
    """x and x_1, or x_{1,2}: one of them only numbers the other."""
    return ("_" in a.name) != ("_" in b.name) and a.name.split("_")[0] == b.name.split("_")[0]


def _argument(label: Node) -> str:
    """x of the label f(x); empty for any other label."""
    is_call = label.kind == "func" and label.name.startswith("?") and len(label.args) == 1
    return label.args[0].name if is_call and label.args[0].kind == "sym" else ""


def rename(node: Node, old: str, new: str) -> Node:
    """The tree with one symbol under another name."""
    if not old or not new or old == new:
        return node
    if node.kind == "sym" and node.name == old:
        return Node("sym", (), new)
    return dataclasses.replace(node, args=tuple(rename(arg, old, new) for arg in node.args))


def with_free_names(gold: Node, pred: Node) -> Node:
    """The prediction with its constant of integration, or the integer of its general solution, named as in `gold`."""
    ours, theirs = symbols_of(gold) - symbols_of(pred), symbols_of(pred) - symbols_of(gold)
    is_case_alone = ours == {name.swapcase() for name in theirs} and all(name[0] in "cC" for name in theirs)
    if theirs and is_case_alone and symbols_of(gold) & symbols_of(pred):
        for name in theirs:
            pred = rename(pred, name, name.swapcase())
        return pred
    if len(ours) != 1 or len(theirs) != 1:
        return pred
    (new,), (old,) = ours, theirs
    is_constant = new in _CONSTANTS and old in _CONSTANTS and _is_added(gold, new) and _is_added(pred, old)
    is_integer = {new, old} <= _INTEGERS and _multiplies_pi(gold, new) and _multiplies_pi(pred, old)
    return rename(pred, old, new) if is_constant or is_integer else pred


_CONSTANTS = frozenset({"C", "c", "K", "C_1", "c_1"})
_INTEGERS = frozenset({"k", "n", "m", "l", "kappa"})


def _is_added(node: Node, name: str) -> bool:
    node = node.args[-1] if node.kind == "rel" else node
    return node.kind == "add" and node.args[-1] == Node("sym", (), name)


def _multiplies_pi(node: Node, name: str) -> bool:
    if node.kind == "mul" and Node("sym", (), name) in node.args:
        return any(arg == Node("const", (), "pi") or arg.kind == "degree" for arg in node.args)
    return any(_multiplies_pi(arg, name) for arg in node.args)


def with_base_ten(node: Node, other: Node) -> Node:
    """log as the logarithm to base ten where the other side has no logarithm: log 100 is 2."""
    if _has_function(other, ("log", "ln", "log_base")) and not _has_log_ten(other):
        return node
    args = tuple(with_base_ten(arg, other) for arg in node.args)
    return dataclasses.replace(node, args=args, name="lg" if (node.kind, node.name) == ("func", "log") else node.name)


def _has_log_ten(node: Node) -> bool:
    is_ten = node.kind == "func" and node.name == "log_base" and node.args[-1].value == 10
    return is_ten or any(_has_log_ten(arg) for arg in node.args)


def _has_function(node: Node, names: tuple[str, ...]) -> bool:
    return (node.kind == "func" and node.name in names) or any(_has_function(arg, names) for arg in node.args)


def without_geometry(gold: Node, pred: Node) -> tuple[Node, Node]:
    """A segment, angle or triangle as its letters where only one side writes the sign; A(1, 2) as (1, 2)."""
    return _without_sign(gold, pred), _without_sign(pred, gold)


def _without_sign(node: Node, other: Node) -> Node:
    if node.kind != "func" or not node.name.startswith("?") or other.name == node.name:
        return node
    if node.name in ("?overline", "?triangle", "?angle", "?measuredangle"):
        return node.args[0] if _is_segment(node.args[0]) and _is_segment(other) else node
    if len(node.args) > 1 and node.name[1:].isupper():
        if other.kind in ("tuple", "list"):
            return Node("tuple", node.args, "()")
        if node.name == "?C" and len(node.args) == 2:
            return Node("func", node.args, "binom")
    return node


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


def _in_order_of_names(records: Sequence[Node]) -> Sequence[Node]:
    """y = 4, x = 3 as x = 3, y = 4: the order in which a tuple would have them, for neighbours in the alphabet."""
    names = sorted(record.args[0].name for record in records)
    is_run = all(len(name) == 1 for name in names) and all(ord(b) - ord(a) == 1 for a, b in zip(names, names[1:]))
    return sorted(records, key=lambda record: record.args[0].name) if is_run else records


def _same_letter(node: Node) -> bool:
    """x_1 = 2, x_2 = 3: numbered values of one thing, in no order."""
    names = [arg.args[0].name for arg in node.args]
    return all("_" in name for name in names) and len({name.split("_")[0] for name in names}) == 1


def _unlabel(node: Node, other: Node) -> Node:
    if _label_of(node) is not None and other.kind != "rel":
        return node.args[1]
    if node.kind == "list" and _records(node):
        values = tuple(_strip(arg) for arg in _in_order_of_names(node.args))
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
        return Node("tuple", tuple(_strip(arg) for arg in _in_order_of_names(node.args)), "()")
    return node
