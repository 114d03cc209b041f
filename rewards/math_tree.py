r"""Parses a cleaned answer into a small tree, without sympy and without evaluating anything.

    "x = 2\frac{1}{2}"  ->  rel("=", sym x, num 5/2)

What it does not cover (integrals, sums, limits, cases, matrix products) raises Unparsable; the slow path may know
them. Every node is hashable, and two equal trees are the same answer written the same way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DEPTH = 40
MAX_TOKENS = 600
MAX_DIGITS = 1_000  # of one number; Python itself refuses to read more than 4,300


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


FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "lg",
        "exp",
        "sqrt",
        "abs",
        "max",
        "min",
        "gcd",
        "lcm",
        "det",
        "arg",
        "Re",
        "Im",
    ]
)
_PLAIN_WORDS = FUNCTIONS | {
    "pi",
    "infty",
    "inf",
    "infinity",
    "oo",
    "and",
    "or",
    "asin",
    "acos",
    "atan",
    "cup",
    "union",
    "theta",
    "alpha",
    "beta",
    "in",
}
_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "ell",
        "hbar",
    ]
)
_RELATIONS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\approx": "~", "<=": "<=", ">=": ">=", "!=": "!=", "\\equiv": "=", "==": "=", "\\neq": "!="}  # fmt: skip
_OPEN, _CLOSE = {"(", "[", "\\langle"}, {")", "]", "\\rangle"}

_TOKEN = re.compile(
    r"\\(?:text|mathrm|textbf|textit|textrm|textnormal|mbox|hbox|operatorname\*?|texttt|textsf|mathbb)\s*\{(?P<text>[^{}]*)\}"
    r"|\\begin\s*\{(?P<begin>[a-zA-Z*]+)\}(?:\s*\{[lcr|\s]*\}|\s*\[[lcr]\])?"
    r"|\\end\s*\{(?P<end>[a-zA-Z*]+)\}"
    r"|(?P<cmd>\\[a-zA-Z]+|\\[{}|])"
    r"|(?P<newline>\\\\(?:\[[^\]]*\])?)"
    r"|(?P<num>(?:\d+\.\d*(?=\s*\\(?:overline|bar|dot)\b|\(\d+\))|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+(?![a-zA-Z\d]))?)"
    r"|(?P<dots>\.{3,})"
    r"|(?P<op><=|>=|!=|==|\*\*|[-+*/^_(){}\[\]|=<>,;:!%&'])"
    r"|(?P<word>[a-zA-Z]+)"
    r"|(?P<space>\s+)"
)


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    spaced: bool = False  # whether white space stood before it


def tokenize(text: str) -> list[Token]:
    """Tokens of a clean answer; plain words are split into known names and single letters."""
    tokens: list[Token] = []
    position, spaced = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unparsable(f"unexpected {text[position]!r}")
        position = match.end()
        kind = match.lastgroup or ""
        if kind == "space":
            spaced = True
            continue
        body = match.group(kind)
        if kind == "num" and len(body) > MAX_DIGITS:
            raise TooLarge("a number of more than a thousand digits")
        tokens.extend(_split_word(body, spaced) if kind == "word" else [Token(kind, body.strip(), spaced)])
        spaced = False
        if len(tokens) > MAX_TOKENS:
            raise TooLarge("more than six hundred symbols")
    return tokens


def _split_word(word: str, spaced: bool) -> list[Token]:
    if word in _PLAIN_WORDS:
        return [Token("cmd", "\\" + {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(word, word), spaced)]
    if len(word) >= 4 and not word.isupper() and not re.fullmatch(r"([a-z])\1*", word):
        for name in ("sqrt", "pi"):  # "sqrtx", "2pir"
            if word.startswith(name) and len(word) - len(name) <= 1:
                return [Token("cmd", "\\" + name, spaced), Token("letter", word[len(name) :])]
        raise Unparsable(f"the word {word!r}")
    return [Token("letter", char, spaced and i == 0) for i, char in enumerate(word)]


def parse(text: str) -> Node:
    """The tree of a clean answer.

    Raises:
        Unparsable: it is not in the grammar.
        TooLarge: it is not worth reading.
    """
    if _nesting(text) > MAX_DEPTH:
        raise TooLarge("brackets nested more than forty deep")
    parser = _Parser(tokenize(text))
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


class _Parser:
    """Recursive descent; each method reads one level of the grammar, loosest first."""

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

    # statement := group (";" group)*      group := item ("," | "and" | "or") item ...

    def statement(self) -> Node:
        groups = [self.group()]
        while self.accept(";"):
            if self.at_end():
                break
            groups.append(self.group())
        if len(groups) == 1:
            return groups[0]
        inner = [_as_ordered(g) if g.kind == "list" and any(x.kind == "list" for x in groups) else g for g in groups]
        return Node("list", tuple(inner))

    def group(self) -> Node:
        items = [self.item()]
        joints = set()
        while joint := self._separator():
            if self.at_end():
                break
            joints.add(joint)
            items.append(self.item())
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
        return _relation(operators, sides)

    def _relation(self) -> str:
        if self.kind() in ("op", "cmd") and self.peek() in _RELATIONS:
            operator = _RELATIONS[self.peek()]
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
                parts = [Node("minus", (_union(parts), self.ratio()))]
            elif self.accept("\\cap"):
                parts = [Node("intersect", (_union(parts), self.ratio()))]
            else:
                return _union(parts)

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.accept(":"):
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    def sum(self) -> Node:
        node: Node | None = None
        sign = self.accept("+", "-", "\\pm", "\\mp")
        terms = [_signed(sign, self.product())]
        while True:
            sign = self.accept("+", "-", "\\pm", "\\mp")
            if not sign:
                break
            following = self.product()
            if sign in ("\\pm", "\\mp"):
                node = terms[0] if len(terms) == 1 else Node("add", tuple(terms))
                terms = [Node("pm", (node, following), sign[1:])]
            else:
                terms.append(_signed(sign, following))
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        node = self.unary()
        while True:
            if self.accept("*", "\\cdot", "\\times"):
                node = _mul(node, self.unary())
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
        if self.kind() == "num" and self.tokens[self.position - 1].kind == "num":
            raise Unparsable("two numbers side by side")
        return _mul(node, self.power())

    def _mixed_number(self, whole: Node) -> Node | None:
        """An integer before a proper fraction of integers is a sum: 2 1/2, 2\\frac{1}{2}."""
        previous = self.tokens[self.position - 1]
        if whole.kind != "num" or previous.kind != "num" or not previous.text.isdigit():
            return None
        if self.peek() == "\\frac":
            part = self.power()
        elif self.kind() == "num" and self.spaced() and self.peek(1) == "/" and self.kind(2) == "num":
            top = self.power()
            self.expect("/")
            part = Node("div", (top, self.power()))
        else:
            return None
        if not _is_proper(part):
            return None
        return Node("add", (whole, part), "mixed")

    def unary(self) -> Node:
        sign = self.accept("+", "-", "\\pm", "\\mp")
        if sign:
            return _signed(sign, self.unary())
        return self.power()

    def power(self) -> Node:
        base = self.postfix()
        if self.accept("^", "**"):
            if self.accept("\\circ") or (self.peek() == "{" and self.peek(1) == "\\circ" and self._skip(3)):
                return self._more_postfix(Node("degree", (base,)))
            if self.peek() == "\\prime" or (self.peek() == "{" and self.peek(1) == "\\prime"):
                raise Unparsable("a prime")
            exponent = self.exponent()
            base = self._more_postfix(Node("pow", (base, exponent)))
        return base

    def _skip(self, count: int) -> bool:
        self.position += count
        return True

    def exponent(self) -> Node:
        sign = self.accept("-", "+")
        if self.kind() == "num" and not sign and len(self.peek()) > 1 and self.tokens[self.position - 1].text == "^":
            return self.power()  # x^12 as people mean it, not as TeX prints it
        return _signed(sign, self.power())

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

    def _starts_factor(self) -> bool:
        kind, text = self.kind(), self.peek()
        if kind in ("num", "letter", "begin"):
            return True
        if kind == "text":
            return text.strip().lower() not in ("and", "or", "") and len(text.strip()) <= 2
        if kind == "cmd":
            return text[1:] in FUNCTIONS | _GREEK or text in (
                "\\frac", "\\sqrt", "\\pi", "\\infty", "\\binom", "\\lfloor", "\\lceil", "\\{", "\\langle", "\\inf", "\\infinity", "\\oo"
            )  # fmt: skip
        if text == "[" and self.reversed_brackets:
            return False
        return text in ("(", "[", "{") or (text == "|" and self.bars == 0)

    # atoms

    def atom(self) -> Node:
        if self.at_end():
            raise Unparsable("the end came too early")
        kind, text = self.kind(), self.peek()
        self.position += 1
        if kind == "num":
            return self._number(text)
        if kind == "letter":
            return self._letter(text)
        if kind == "text":
            return self._text(text.strip())
        if kind == "begin":
            return self._matrix(text)
        if kind == "cmd":
            return self._command(text)
        if text in _OPEN or text == "]":
            return self._bracket(text)
        if text == "{":
            return self._braces()
        if text == "|":
            return self._bars("|")
        raise Unparsable(f"unexpected {text!r}")

    def _number(self, text: str) -> Node:
        repeating = self._repeating(text)
        if repeating is not None:
            return repeating
        if self.kind() == "op" and self.peek() == "_":
            return self._base(text)
        if re.search(r"[eE]", text):
            mantissa, exponent = re.split("[eE]", text)
            if abs(int(exponent)) > 300:
                raise TooLarge("an exponent beyond 300")
            return Node("num", (), text, Fraction(mantissa) * Fraction(10) ** int(exponent))
        return Node("num", (), text, Fraction(text))

    def _repeating(self, text: str) -> Node | None:
        r"""0.\overline{3}, 0.1\bar{6}, 0.333..., 0.(3)"""
        if self.peek() in ("\\overline", "\\bar", "\\dot") and self.kind() == "cmd":
            if "." not in text and not (self.tokens[self.position - 2 :] and text.isdigit()):
                return None
            self.position += 1
            block = self._digits_group()
            return _repeating_number(text if "." in text else text + ".", block)
        if "." in text and self.peek() == "(" and self.kind(1) == "num" and self.peek(2) == ")":
            block = self.peek(1)
            self.position += 3
            return _repeating_number(text, block)
        if self.kind() == "dots" and "." in text:
            match = re.search(r"(\d+?)\1{2,}\d*$|(\d{2,})\2$", text.split(".")[1])
            if match is None:
                raise Unparsable("an ellipsis after digits that do not repeat")
            self.position += 1
            block = match.group(1) or match.group(2)
            start = len(text) - len(match.group())
            return _repeating_number(text[:start], block)
        return None

    def _digits_group(self) -> str:
        if self.accept("{"):
            block = self.peek()
            self.position += 1
            self.expect("}")
        else:
            block = self.peek()
            self.position += 1
        if not block.isdigit():
            raise Unparsable("a bar over something that is not digits")
        return block

    def _base(self, digits: str) -> Node:
        self.expect("_")
        has_brace = bool(self.accept("{"))
        base = _WORD_BASES.get(self.peek().strip().lower(), self.peek())
        self.position += 1
        if has_brace:
            self.expect("}")
        if not base.isdigit():
            raise Unparsable("a subscript on a number")
        return Node("base", (), f"{digits}_{int(base)}")

    def _letter(self, text: str) -> Node:
        name = text
        primes = ""
        while self.accept("'"):
            primes += "'"
        if self.accept("_"):
            name += "_" + self._subscript()
        if name + primes == "e":
            return Node("const", (), "e")
        if name + primes == "i":
            return Node("const", (), "i")
        node = Node("sym", (), name + primes)
        if text in ("f", "g", "h", "F", "G", "P", "W", "T", "S", "Q") and self.peek() == "(" and not self.spaced():
            return self._application(name + primes)
        return node

    def _application(self, name: str) -> Node:
        self.expect("(")
        inner = self.group()
        self.expect(")")
        return Node("func", inner.args if inner.kind == "list" else (inner,), "?" + name)

    def _subscript(self) -> str:
        if not self.accept("{"):
            self.position += 1
            return self.tokens[self.position - 1].text if self.position <= len(self.tokens) else ""
        parts = []
        depth = 1
        while not self.at_end():
            depth += (self.peek() == "{") - (self.peek() == "}")
            if depth == 0:
                break
            parts.append(self.peek())
            self.position += 1
        self.expect("}")
        return "".join(parts)

    def _text(self, content: str) -> Node:
        if (
            self.tokens[self.position - 1].text in ("R", "Z", "N", "Q", "C")
            and self.tokens[self.position - 1].kind == "text"
        ):
            self.accept("^")  # \mathbb{R}^+ and the like are left to the slow path
            return Node("const", (), "set_" + content)
        if re.fullmatch(r"[a-zA-Z]", content):
            return self._letter(content)
        if content in FUNCTIONS:
            return self._command("\\" + content)
        if re.fullmatch(r"[-+]?[\d.,/ ]+", content):
            return parse(content)
        return Node("text", (), normal_words(content))

    def _command(self, text: str) -> Node:
        name = text[1:]
        if name == "frac":
            return Node("div", (self._argument(), self._argument()))
        if name == "sqrt":
            return self._root()
        if name == "binom":
            return Node("func", (self._argument(), self._argument()), "binom")
        if name in ("pi",):
            return Node("const", (), "pi")
        if name in ("infty", "inf", "infinity", "oo"):
            return Node("const", (), "infty")
        if name == "emptyset":
            return Node("set", ())
        if name == "{":
            return self._set()
        if name == "langle":
            return self._bracket(text)
        if name in ("lfloor", "lceil"):
            inner = self.sum()
            self.expect("\\r" + name[1:])
            return Node("floor" if name == "lfloor" else "ceil", (inner,))
        if name in ("|",):
            return self._bars("\\|")
        if name in ("angle", "triangle", "measuredangle"):
            inner = self.power()
            while self.kind() == "letter":
                inner = _mul(inner, self.power())
            return Node("func", (inner,), "?" + name)
        if name in ("overline", "bar"):
            return Node("func", (self._argument(),), "?overline")
        if name in FUNCTIONS:
            return self._function(name)
        if name in _GREEK:
            return self._letter(name)
        raise Unparsable(f"the command {text}")

    def _argument(self) -> Node:
        r"""A TeX argument: a braced group, or a single digit or letter (\frac12)."""
        if self.accept("{"):
            inner = self.statement()
            self.expect("}")
            return inner
        if self.kind() == "num" and len(self.peek()) > 1 and self.peek().isdigit():
            token = self.tokens[self.position]
            self.tokens[self.position : self.position + 1] = [Token("num", token.text[0]), Token("num", token.text[1:])]
        return self.atom()

    def _root(self) -> Node:
        index = None
        if self.accept("["):
            index = self.sum()
            self.expect("]")
        while self.peek() == "{" and self.peek(1) == "}":
            self._skip(2)
        radicand = self._argument() if self.peek() != "(" else self.atom()
        if index is None:
            return Node("func", (radicand,), "sqrt")
        return Node("pow", (radicand, Node("div", (_ONE, index))))

    def _function(self, name: str) -> Node:
        base = power = None
        while True:
            if self.accept("_"):
                base = self._argument() if self.peek() == "{" else self.atom()
            elif self.accept("^"):
                power = self._argument() if self.peek() == "{" else self.exponent()
            else:
                break
        arguments = self._function_arguments(name)
        inverse = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}.get(name)
        if inverse and power is not None and power == Node("neg", (_ONE,)):
            name, power = inverse, None
        node = Node(
            "func", arguments if base is None else (*arguments, base), name + ("_base" if base is not None else "")
        )
        return node if power is None else Node("pow", (node, power))

    def _function_arguments(self, name: str) -> tuple[Node, ...]:
        if self.accept("("):
            inner = self.group()
            self.expect(")")
            return inner.args if inner.kind == "list" else (inner,)
        if self.peek() == "{" or self.peek() == "|":
            return (self.atom(),)
        factors = [self.power()]
        while self._starts_factor() and self.peek()[1:] not in FUNCTIONS and self.peek() not in ("(", "[", "\\{"):
            factors.append(self.power())
        node = factors[0]
        for factor in factors[1:]:
            node = _mul(node, factor)
        if self.peek() == "/" and self.kind(1) == "num":  # \sin \pi/3
            self.accept("/")
            node = Node("div", (node, self.power()))
        return (node,)

    def _bracket(self, opening: str) -> Node:
        self.reversed_brackets += opening == "]"
        inner = self.statement()
        self.reversed_brackets -= opening == "]"
        closing = self.accept(*_CLOSE, "[")
        if not closing:
            raise Unparsable("a bracket that is not closed")
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
        return Node("func", (node,), "det") if environment == "vmatrix" else node


_ONE = Node("num", (), "1", Fraction(1))
_WORD_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10", "twelve": "12", "sixteen": "16"}  # fmt: skip


def normal_words(text: str) -> str:
    """Words in lower case without punctuation and articles."""
    words = re.findall(r"[\w\u4e00-\u9fff]+(?:['.]\w+)*", text.lower())
    kept = [w for w in words if w not in ("the", "a", "an")]
    return " ".join(kept if any(len(w) > 1 for w in kept) else words)


def _signed(sign: str, node: Node) -> Node:
    if sign == "-":
        return Node("neg", (node,))
    if sign in ("\\pm", "\\mp"):
        return Node("pm", (node,), sign[1:])
    return node


def _mul(a: Node, b: Node) -> Node:
    return Node("mul", ((*a.args, b) if a.kind == "mul" else (a, b)))


def _union(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Node("union", tuple(parts))


def _as_ordered(node: Node) -> Node:
    return Node("tuple", node.args, "()") if node.kind == "list" else node


def _is_proper(part: Node) -> bool:
    if part.kind != "div":
        return False
    top, bottom = part.args
    if top.kind != "num" or bottom.kind != "num" or top.value is None or bottom.value is None:
        return False
    return top.name.isdigit() and bottom.name.isdigit() and 0 < top.value < bottom.value


def _repeating_number(prefix: str, block: str) -> Node:
    whole, _, fixed = prefix.partition(".")
    start = Fraction(int(whole or 0)) + (Fraction(int(fixed), 10 ** len(fixed)) if fixed else 0)
    value = start + Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(fixed))
    return Node("div", (_num(value.numerator), _num(value.denominator)))


def _num(value: int) -> Node:
    return Node("num", (), str(value), Fraction(value))


def _relation(operators: list[str], sides: list[Node]) -> Node:
    """A chain of relations; what follows an approximation sign is a gloss, not the answer."""
    for i, operator in enumerate(operators):
        if operator == "~":
            if i > 0 or sides[0].kind not in ("sym", "func", "text"):
                operators, sides = operators[:i], sides[: i + 1]
                break
            operators = ["=", *operators[1:]]
    if not operators:
        return sides[0]
    return Node("rel", tuple(sides), ";".join(operators))
