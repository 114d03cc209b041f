"""Sums, products and determinants of matrices, carried out on their entries, which stay expressions."""

from __future__ import annotations

import dataclasses
import re

from rewards.mathematics.node import Node, Unparsable


def matrix_arithmetic(node: Node) -> Node:
    """Sums and products of matrices carried out on their entries, which stay expressions."""
    args = tuple(matrix_arithmetic(arg) for arg in node.args)
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


_TERM = r"([-+]?\s*[^-+=ijk]*?)\\(?:mathbf|hat|vec|boldsymbol|bm)\s*\{{\s*\\?{}(?:math)?\s*\}}\s*"
_UNIT_VECTORS = re.compile(
    r"\$?(?:[^=]*=)?\s*" + _TERM.format("i") + _TERM.format("j") + "(?:" + _TERM.format("k") + r")?\$?"
)


def by_components(text: str, other: str) -> str:
    r"""2\mathbf{i} - 3\mathbf{j} as \langle 2, -3\rangle where the other answer gives components."""
    if "\\" not in text:
        return text
    match = _UNIT_VECTORS.fullmatch(text.strip())
    if match is None or not re.match(r"\$?(?:\\vec[^=]*=)?\s*(?:\\langle|\\begin|(?:\\left)?\()", other.strip()):
        return text
    factors = (re.sub(r"\s", "", part).lstrip("+") for part in match.groups() if part is not None)
    return r"\langle " + ", ".join(f + "1" if f in ("", "-") else f for f in factors) + r" \rangle"
