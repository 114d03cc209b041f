"""Cuts a clean answer into tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.mathematics.node import TooLarge, Unparsable

MAX_TOKENS = 600
MAX_DIGITS = 1_000  # of one number; Python itself refuses to read more than 4,300
# fmt: off
FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "lg",
    "exp", "sqrt", "abs", "max", "min", "gcd", "lcm", "det", "arg", "Re", "Im",
})
GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi",
    "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell", "hbar",
})
_PLAIN_WORDS = FUNCTIONS | {
    "pi", "infty", "inf", "infinity", "oo", "and", "or", "asin", "acos", "atan", "cup", "union", "theta", "alpha",
    "beta", "in",
}
RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\le": "<=", "\\ge": ">=",
    "\\ne": "!=", "\\neq": "!=", "\\equiv": "=", "\\approx": "~",
}
# fmt: on

_TOKEN = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|tt|sf)?|mathrm|mathbb|mbox|hbox|operatorname\*?)\s*\{(?P<text>[^{}]*)\}"
    r"|\\begin\s*\{(?P<begin>[a-zA-Z*]+)\}(?:\s*\{[lcr|\s]*\}|\s*\[[lcr]\])?"
    r"|\\end\s*\{(?P<end>[a-zA-Z*]+)\}"
    r"|(?P<cmd>\\[a-zA-Z]+|\\[{}|])"
    r"|(?P<newline>\\\\(?:\[[^\]]*\])?)"
    r"|(?P<num>(?:\d+\.\d*(?=\s*\\(?:overline|bar|dot)\b|\(\d+\))|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d+(?![a-zA-Z\d]))?)"
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


def mark_definition(tokens: list[Token]) -> list[Token]:
    """The letter that names a function at the start of "p(x) = ..." as a token of its own kind."""
    texts = [token.text for token in tokens[:12]]
    if len(tokens) < 5 or tokens[0].kind != "letter" or texts[1] != "(" or ")" not in texts:
        return tokens
    close = texts.index(")")
    arguments = tokens[2:close]
    if not all(token.kind == ("letter", "op")[i % 2] and token.text not in "()" for i, token in enumerate(arguments)):
        return tokens
    if not arguments or texts[close + 1 : close + 2] != ["="]:
        return tokens
    return [Token("function", texts[0]), *tokens[1:]]


def _split_word(word: str, spaced: bool) -> list[Token]:
    if word in _PLAIN_WORDS:
        return [Token("cmd", "\\" + {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(word, word), spaced)]
    if word in ("isin", "icos"):  # cos(2)+isin(2)
        return [Token("letter", "i", spaced), Token("cmd", "\\" + word[1:])]
    if len(word) >= 4 and not word.isupper() and not re.fullmatch(r"([a-z])\1*", word):
        for name in ("sqrt", "pi"):  # "sqrtx", "2pir"
            if word.startswith(name) and len(word) - len(name) <= 1:
                return [Token("cmd", "\\" + name, spaced), Token("letter", word[len(name) :])]
        raise Unparsable(f"the word {word!r}")
    return [Token("letter", char, spaced and i == 0) for i, char in enumerate(word)]
