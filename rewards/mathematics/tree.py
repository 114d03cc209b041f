r"""Parses a cleaned answer into a small tree, without sympy and without evaluating anything.

    "x = 2\frac{1}{2}"  ->  rel("=", sym x, num 5/2)

What it does not cover (integrals, sums, limits, cases, matrix products) raises Unparsable; the slow path may know
them. Every node is hashable, and two equal trees are the same answer written the same way.
"""

from __future__ import annotations

from rewards.mathematics.atoms import AtomReader
from rewards.mathematics.node import (
    Node,
    TooLarge,
    Unparsable,
    as_ordered,
    is_proper_fraction,
    multiply,
    relation,
    signed,
    unite,
)
from rewards.mathematics.tokens import RELATIONS, mark_definition, tokenize

MAX_DEPTH = 40


def parse(text: str) -> Node:
    """The tree of a clean answer.

    Raises:
        Unparsable: it is not in the grammar.
        TooLarge: it is not worth reading.
    """
    if _nesting(text) > MAX_DEPTH:
        raise TooLarge("brackets nested more than forty deep")
    parser = Parser(mark_definition(tokenize(text)))
    node = parser.statement()
    if not parser.at_end():
        raise Unparsable(f"unexpected {parser.peek()!r}")
    return node


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{^":
            depth += char != "^"
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return max(deepest, text.count("^") if text.count("^") > MAX_DEPTH * 4 else 0)


def _records(items: list[Node], joints: list[str]) -> list[Node]:
    """ "x = 1, y = 2 or x = 2, y = 1" as two lists of two; other items as they are."""
    if "," not in joints or set(joints) == {","} or not all(item.kind == "rel" for item in items):
        return items
    groups = [[items[0]]]
    for joint, item in zip(joints, items[1:], strict=True):
        if joint == ",":
            groups[-1].append(item)
        else:
            groups.append([item])
    if len({len(group) for group in groups}) > 1 or len(groups[0]) == 1:
        return items
    return [Node("list", tuple(group)) for group in groups]


class Parser(AtomReader):
    """Recursive descent; each method reads one level of the grammar, loosest first."""

    # statement := group (";" group)*      group := item ("," | "and" | "or") item ...

    def statement(self) -> Node:
        groups = [self.group()]
        while self.accept(";"):
            if self.at_end():
                break
            groups.append(self.group())
        if len(groups) == 1:
            return groups[0]
        inner = [as_ordered(g) if g.kind == "list" and any(x.kind == "list" for x in groups) else g for g in groups]
        return Node("list", tuple(inner))

    def group(self) -> Node:
        items = [self.item()]
        joints = []
        while joint := self._separator():
            if self.at_end():
                break
            joints.append(joint)
            items.append(self.item())
        items = _records(items, joints)
        name = "or" if "or" in joints else "and" if "and" in joints else ""
        return items[0] if len(items) == 1 else Node("list", tuple(items), name)

    def _separator(self) -> str:
        """What joins two items, "or", "and" or ","; empty when nothing does."""
        found = ""
        while not self.at_end():
            is_word = self.kind() == "text" and self.peek().strip().strip(",").strip().lower() in ("and", "or", "", "&")
            if is_word or (
                self.kind() != "text"
                and self.peek() in (",", "\\and", "\\or", "&", "\\land", "\\lor", "\\wedge", "\\vee")
            ):
                joint = self.peek().strip("\\, ").lower()
                found = {"or": "or", "lor": "or", "vee": "or", "and": "and", "land": "and", "wedge": "and"}.get(
                    joint, found or ","
                )
                self.position += 1
            else:
                break
        return found

    # item := setexpr (relation setexpr)*

    def item(self) -> Node:
        sides = [self.union()]
        operators: list[str] = []
        while True:
            if self.accept("\\in"):
                sides = [self.union()]  # "x in S" says S
                operators = []
                continue
            operator = self._relation()
            if not operator:
                break
            operators.append(operator)
            sides.append(self.union())
        if not operators:
            return sides[0]
        return relation(operators, sides)

    def _relation(self) -> str:
        if self.kind() in ("op", "cmd") and self.peek() in RELATIONS:
            operator = RELATIONS[self.peek()]
            self.position += 1
            if operator in "<>" and self.accept("="):
                operator += "="
            return operator
        return ""

    def union(self) -> Node:
        parts = [self.ratio()]
        while True:
            if self.accept("\\cup", "\\union"):
                parts.append(self.ratio())
            elif self.accept("\\setminus"):
                parts = [Node("minus", (unite(parts), self.ratio()))]
            elif self.accept("\\cap"):
                parts = [Node("intersect", (unite(parts), self.ratio()))]
            else:
                return unite(parts)

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.accept(":"):
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    def sum(self) -> Node:
        node: Node | None = None
        sign = self.accept("+", "-", "\\pm", "\\mp")
        terms = [signed(sign, self.product())]
        while True:
            sign = self.accept("+", "-", "\\pm", "\\mp")
            if not sign:
                break
            following = self.product()
            if sign in ("\\pm", "\\mp"):
                node = terms[0] if len(terms) == 1 else Node("add", tuple(terms))
                terms = [Node("pm", (node, following), sign[1:])]
            else:
                terms.append(signed(sign, following))
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        node = self.unary()
        while True:
            if self.accept("*", "\\cdot", "\\times"):
                node = multiply(node, self.unary())
            elif self.accept("\\bmod", "\\mod"):
                node = Node("func", (node, self.unary()), "mod")
            elif self.accept("/", "\\div"):
                node = Node("div", (node, self.unary_implicit()))
            elif self._starts_factor():
                node = self._implicit(node)
            else:
                return node

    def unary_implicit(self) -> Node:
        """What a slash divides by: one factor. 1/2x is (1/2)x, as printed fractions mean it."""
        return self.unary()

    def _implicit(self, node: Node) -> Node:
        before = self.position
        mixed = self._mixed_number(node)
        if mixed is not None:
            return mixed
        self.position = before
        is_next_power = self.peek(1) == "^" and self.tokens[self.position - 2].text == "^"  # 2^6 3^5
        if self.kind() == "num" and self.tokens[self.position - 1].kind == "num" and not is_next_power:
            raise Unparsable("two numbers side by side")
        return multiply(node, self.power())

    def _mixed_number(self, whole: Node) -> Node | None:
        """An integer before a proper fraction of integers is a sum: 2 1/2, 2\\frac{1}{2}."""
        previous = self.tokens[self.position - 1]
        if whole.kind != "num" or previous.kind != "num" or not previous.text.isdigit():
            return None
        if self.peek() == "\\frac":
            part = self.atom()
        elif self.kind() == "num" and self.spaced() and self.peek(1) == "/" and self.kind(2) == "num":
            top = self.power()
            self.expect("/")
            part = Node("div", (top, self.power()))
        else:
            return None
        if not is_proper_fraction(part):
            return None
        return self._more_postfix(Node("add", (whole, part), "mixed"))

    def unary(self) -> Node:
        sign = self.accept("+", "-", "\\pm", "\\mp")
        if sign:
            return signed(sign, self.unary())
        return self.power()

    def power(self) -> Node:
        base = self.postfix()
        if self.accept("^", "**"):
            if self.accept("\\circ") or (self.peek() == "{" and self.peek(1) == "\\circ" and self._skip(3)):
                return self._more_postfix(Node("degree", (base,)))
            exponent = self.exponent()
            base = self._more_postfix(Node("pow", (base, exponent)))
        return base

    def exponent(self) -> Node:
        sign = self.accept("-", "+")
        if self.kind() == "num" and not sign and len(self.peek()) > 1 and self.tokens[self.position - 1].text == "^":
            return self.power()  # x^12 as people mean it, not as TeX prints it
        return signed(sign, self.power())

    def postfix(self) -> Node:
        return self._more_postfix(self.atom())

    def _more_postfix(self, node: Node) -> Node:
        while True:
            if self.accept("!"):
                node = Node("fact", (node,))
            elif self.accept("%"):
                node = Node("percent", (node,))
            else:
                return node

    def nested(self, text: str) -> Node:
        """The tree of a text inside this one, as in \\text{12}."""
        return parse(text)
