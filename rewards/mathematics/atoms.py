"""Reads the atoms of an answer: numbers, letters, commands.

Brackets are in brackets.py; the levels of operators above atoms in tree.py, whose Parser completes the class here.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.mathematics.brackets import OPEN, BracketReader
from rewards.mathematics.node import (
    ONE,
    Node,
    TooLarge,
    Unparsable,
    multiply,
    normal_words,
    repeating_number,
)
from rewards.mathematics.tokens import FUNCTIONS, GREEK, Token

_FACTOR_COMMANDS = frozenset({
    "frac", "sqrt", "pi", "infty", "inf", "infinity", "oo", "binom", "lfloor", "lceil", "{", "langle",
})  # fmt: skip
WORD_BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10",    "twelve": "12", "sixteen": "16",
}  # fmt: skip


class AtomReader(BracketReader):
    """One method for each kind of atom."""

    def _starts_factor(self) -> bool:
        kind, text = self.kind(), self.peek()
        if kind in ("num", "letter", "begin"):
            return True
        if kind == "text":
            return text.strip(" ,").lower() not in ("and", "or", "") and len(text.strip()) <= 2
        if kind == "cmd":
            return text[1:] in FUNCTIONS | GREEK | _FACTOR_COMMANDS
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
        if kind == "function":
            return self._application(text)
        if kind == "text":
            return self._text(text.strip())
        if kind == "begin":
            return self._matrix(text)
        if kind == "cmd":
            return self._command(text)
        if text in OPEN or text == "]":
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
            return repeating_number(text if "." in text else text + ".", block)
        if "." in text and self.peek() == "(" and self.kind(1) == "num" and self.peek(2) == ")":
            block = self.peek(1)
            self.position += 3
            return repeating_number(text, block)
        if self.kind() == "dots" and "." in text:
            match = re.search(r"(\d+?)\1{2,}\d*$|(\d{2,})\2$", text.split(".")[1])
            if match is None:
                raise Unparsable("an ellipsis after digits that do not repeat")
            self.position += 1
            block = match.group(1) or match.group(2)
            start = len(text) - len(match.group())
            return repeating_number(text[:start], block)
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
        base = WORD_BASES.get(self.peek().strip().lower(), self.peek())
        self.position += 1
        if has_brace:
            self.expect("}")
        if not base.isdigit():
            raise Unparsable("a subscript on a number")
        if int(base) == 10:
            return Node("num", (), digits, Fraction(digits))
        return Node("base", (), f"{digits}_{int(base)}")

    def _letter(self, text: str) -> Node:
        name = text
        primes = self._primes()
        if self.accept("_"):
            name += "_" + self._subscript()
            primes += self._primes()
        if name + primes == "e":
            return Node("const", (), "e")
        if name + primes == "i":
            return Node("const", (), "i")
        node = Node("sym", (), name + primes)
        if self.peek() == "(" and not self.spaced() and (text in "fghFGPWTSQ" or self._holds_argument()):
            return self._application(name + primes)
        return node

    def _holds_argument(self) -> bool:
        """Whether a letter stands before an argument: any before (0), a capital before (t), (1, 2) and the like."""
        inside = self.kind(1) in ("num", "letter") and self.peek(2) == ")"
        if not self.tokens[self.position - 1].text.isupper():
            return inside and self.peek(1) == "0"
        if inside:
            return True
        rest = [token.text for token in self.tokens[self.position : self.position + 24]]
        return ")" in rest and "," in rest[: rest.index(")")]

    def _primes(self) -> str:
        primes = ""
        while self.accept("'"):
            primes += "'"
        return primes

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
        if re.fullmatch(r"[-+\d.,/()\[\] ]+", content):
            return self.nested(content)
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
                inner = multiply(inner, self.power())
            return Node("func", (inner,), "?" + name)
        if name in ("overline", "bar"):
            return Node("func", (self._argument(),), "?overline")
        if name in FUNCTIONS:
            return self._function(name)
        if name in GREEK:
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
        radicand = self.atom() if self.peek() == "(" or self.kind() == "num" else self._argument()
        if index is None:
            return Node("func", (radicand,), "sqrt")
        return Node("pow", (radicand, Node("div", (ONE, index))))

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
        if inverse and power is not None and power == Node("neg", (ONE,)):
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
            node = multiply(node, factor)
        if self.peek() == "/" and self.kind(1) == "num":  # \sin \pi/3
            self.accept("/")
            node = Node("div", (node, self.power()))
        return (node,)
