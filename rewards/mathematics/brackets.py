r"""Reads what stands in brackets: tuples, intervals, sets, absolute values, matrices, systems of equations."""

from __future__ import annotations

from rewards.mathematics.node import Node, Unparsable
from rewards.mathematics.tokens import Token

OPEN = frozenset({"(", "[", "\\langle"})
_CLOSE = frozenset({")", "]", "\\rangle"})


class Cursor:
    """A place in the tokens of an answer."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.reversed_brackets = 0  # open ]..., where "[" closes
        self.bars = 0  # open |...|, where another bar closes

    def at_end(self) -> bool:
        return self.position >= len(self.tokens)

    def peek(self, offset: int = 0) -> str:
        index = self.position + offset
        return self.tokens[index].text if index < len(self.tokens) else ""

    def kind(self, offset: int = 0) -> str:
        index = self.position + offset
        return self.tokens[index].kind if index < len(self.tokens) else ""

    def spaced(self) -> bool:
        return self.position < len(self.tokens) and self.tokens[self.position].spaced

    def accept(self, *texts: str) -> str:
        if self.position < len(self.tokens) and self.kind() not in ("text", "begin", "end") and self.peek() in texts:
            self.position += 1
            return self.tokens[self.position - 1].text
        return ""

    def expect(self, *texts: str) -> str:
        found = self.accept(*texts)
        if not found:
            raise Unparsable(f"expected one of {texts}, found {self.peek()!r}")
        return found

    def _skip(self, count: int) -> bool:
        self.position += count
        return True

    # The levels of the grammar that brackets and atoms contain; atoms.py and tree.py have them.

    def statement(self) -> Node:
        raise NotImplementedError

    def group(self) -> Node:
        raise NotImplementedError

    def item(self) -> Node:
        raise NotImplementedError

    def sum(self) -> Node:
        raise NotImplementedError

    def power(self) -> Node:
        raise NotImplementedError

    def exponent(self) -> Node:
        raise NotImplementedError

    def nested(self, text: str) -> Node:
        raise NotImplementedError

    def atom(self) -> Node:
        raise NotImplementedError

    def _base(self, digits: str) -> Node:
        raise NotImplementedError


class BracketReader(Cursor):
    """One method for each kind of bracket; the opening one is read already."""

    def _bracket(self, opening: str) -> Node:
        self.reversed_brackets += opening == "]"
        inner = self.statement()
        self.reversed_brackets -= opening == "]"
        closing = self.accept(*_CLOSE, "[")
        if not closing:
            raise Unparsable("a bracket that is not closed")
        if inner.kind == "list" and inner.name and all(a.kind in ("rel", "list") for a in inner.args):
            return inner  # (x > 4 and x < 5)
        if inner.kind == "list" and (opening, closing) == ("[", "]") and all(a.kind == "tuple" for a in inner.args):
            return inner
        if inner.kind == "list":
            left = "(" if opening in ("(", "\\langle", "]") else "["
            right = ")" if closing in (")", "\\rangle", "[") else "]"
            return Node("tuple", inner.args, left + right)
        if opening == "(" and closing == ")" and self.accept("_"):  # (1010)_2
            self.position -= 1
            if inner.kind == "num":
                return self._base(inner.name)
        if (opening, closing) in (("(", ")"), ("[", "]")):
            return inner
        if opening == "\\langle" and closing == "\\rangle":
            return Node("tuple", (inner,), "()")
        raise Unparsable("brackets that do not match")

    def _braces(self) -> Node:
        inner = self.statement()
        self.expect("}")
        return Node("set", inner.args) if inner.kind == "list" else inner

    def _set(self) -> Node:
        if self.accept("\\}"):
            return Node("set", ())
        inner = self.statement()
        if self.accept("\\mid", "|", ":") or inner.kind == "ratio":
            if inner.kind == "ratio":
                raise Unparsable("a set with a condition after a colon")
            condition = self.statement()
            self.expect("\\}")
            return Node("builder", (condition,))
        self.expect("\\}")
        return Node("set", inner.args if inner.kind == "list" else (inner,))

    def _bars(self, bar: str) -> Node:
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect(bar)
        return Node("abs", (inner,))

    def _matrix(self, environment: str) -> Node:
        if environment in ("cases", "aligned", "align*", "gathered", "dcases"):
            return self._cases()
        if environment not in ("pmatrix", "bmatrix", "vmatrix", "matrix", "array", "smallmatrix", "Bmatrix"):
            raise Unparsable(f"the environment {environment}")
        rows: list[list[Node]] = [[]]
        while self.kind() != "end":
            if self.at_end():
                raise Unparsable("a matrix that is not closed")
            if self.kind() == "newline":
                self.position += 1
                rows.append([])
            elif self.kind() == "op" and self.peek() == "&":
                self.position += 1
            else:
                rows[-1].append(self.item())
        self.position += 1
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unparsable("a matrix with uneven rows")
        node = Node("matrix", tuple(cell for row in rows for cell in row), f"{len(rows)}x{len(rows[0])}")
        if node.name.endswith("x1") and len(rows) > 1 and all(cell.kind == "rel" for cell in node.args):
            return Node("list", node.args, "and")  # a system of equations
        return Node("func", (node,), "det") if environment == "vmatrix" else node

    def _cases(self) -> Node:
        """A system of equations as a list; the lines of a piecewise definition as pairs (value, condition)."""
        rows: list[Node] = []
        while self.kind() != "end":
            if self.at_end():
                raise Unparsable("an environment that is not closed")
            cells = [self.item()]
            while self._skip_condition_word():
                if self.kind() not in ("end", "newline"):
                    cells.append(self.item())
            if self.kind() == "newline":
                self.position += 1
            rows.append(cells[0] if len(cells) == 1 else Node("tuple", tuple(cells), "()"))
        self.position += 1
        return Node("list", tuple(rows), "and")

    def _skip_condition_word(self) -> bool:
        """Past "&", a comma, "if" and the like, between a value and its condition."""
        start = self.position
        while not self.at_end() and (
            (self.kind() == "op" and self.peek() in ("&", ","))
            or (self.kind() == "text" and self.peek().strip(" ,").lower() in ("if", "for", "when", "where", ""))
        ):
            self.position += 1
        return self.position > start
