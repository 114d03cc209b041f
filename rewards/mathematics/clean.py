r"""Turns the many ways to write an answer into one: plain LaTeX without decoration.

"**$\\left(\\dfrac12,\\,3\\right)$**."  ->  "(\\frac12, 3)"
"""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_FRACTIONS = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
              "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8)}  # fmt: skip
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑‒﹣－", "-"),
        **dict.fromkeys("⋅·∙•∗", r" \cdot "),
        **dict.fromkeys("×✕", r" \times "),
        "÷": r" \div ", "≤": r" \le ", "≥": r" \ge ", "⩽": r" \le ", "⩾": r" \ge ", "≠": r" \ne ", "≈": r" \approx ",
        "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "∪": r" \cup ", "∩": r" \cap ", "∈": r" \in ", "°": r"^\circ ",
        "±": r" \pm ", "∓": r" \mp ", "∅": r" \emptyset ", "ø": r" \emptyset ", "Ø": r" \emptyset ", "ℝ": r"\mathbb{R}",
        "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
        "λ": r"\lambda ", "μ": r"\mu ", "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ", "Δ": r"\Delta ",
        "º": r"^\circ ", "⟨": r"\langle ", "⟩": r"\rangle ",
        "或": " or ", "且": " and ", "和": " and ", "→": r" \to ", "∖": r" \setminus ",
        "∶": ":", "∠": r"\angle ", "△": r"\triangle ", "ℏ": r"\hbar ", "ħ": r"\hbar ",
        "⁄": "/", "∕": "/", "，": ",", "、": ",", "；": ";", "：": ":",
        "（": "(", "）": ")", "％": "%", "∛": r"\sqrt[3] ", "〈": r"\langle ", "〉": r"\rangle ", "′": "'", "’": "'",
        "“": '"', "”": '"',
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
        **dict.fromkeys("\u00a0\u2009\u202f\u2002\u2003\u2005\u200a\t\r\n", " "),
    }
)  # fmt: skip
_DROPPED = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|left|right|middle|[bB]ig{1,2}[lrm]?|[bB]igg?|"
    r"rm|bf|it|mathstrut|strut|hfill|nonumber|notag|phantom\{[^{}]*\}|label\{[^{}]*\}|tag\{[^{}]*\}|"
    r"hspace\*?\{[^{}]*\}|vspace\*?\{[^{}]*\}|(?:text)?color\s*\{[^{}]*\})(?![a-zA-Z])"
)
_SPACES = re.compile(r"\\q?quad|\\(?:enspace|thinspace|space)(?![a-zA-Z])|(?<!\\)\\[;: ]|~")
_BETWEEN_EQUATIONS = re.compile(r"(?<==)([^=]*?)(?:\\q?quad(?![a-zA-Z])|\$\s+\$)(?=[^=,]*(?:=|\\equiv))")
_RENAMED = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le", "geq": "ge",
    "leqslant": "le", "geqslant": "ge", "neq": "ne", "lt": "<", "gt": ">", "varnothing": "emptyset", "ast": "cdot",
    "lbrace": "{", "rbrace": "}", "lvert": "|", "rvert": "|", "vert": "|", "mid": "mid", "degree": "^\\circ",
    "textdegree": "^\\circ", "varphi": "phi", "vartheta": "theta", "varepsilon": "epsilon", "lbrack": "[",
    "rbrack": "]", "bigcup": "cup", "colon": ":", "simeq": "approx", "lparen": "(", "rparen": ")", "infin": "infty",
    "backslash": "setminus", "imath": "i", "ne": "ne", "percent": "%", "thinspace": " ", "div": "div", "tg": "tan",
    "ctg": "cot", "arctg": "arctan", "sfrac": "frac", "nicefrac": "frac", "minus": "-",
}  # fmt: skip
_OVER = re.compile(r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}")
_CHOOSE = re.compile(r"\{?([^{}\s]+)\s*\\choose\s*([^{}\s]+)\}?")
_SUCH_THAT = re.compile(r"(\\\{\s*[a-zA-Z](?:\s*\\in\s*\\mathbb\s*\{?\s*[RNZQ]\s*\}?)?\s*)[:|]")
_PRIMES = re.compile(r"\^\s*(?:\{\s*((?:\\prime\s*)+)\}|(\\prime(?![a-zA-Z])))")
_SCRIPTS = re.compile(r"(?<=[a-zA-Z])\^(\d|\{[^{}]*\})_(\w|\{[^{}]*\})")  # v^2_0 is v_0^2
_UNION_LETTER = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])")
_REPEATING = re.compile(r"(\d*\.\d*?)(\d)(\2*)\s*\(?repeating\)?")
_INVERSE = re.compile(r"\b([fgh])\s*\^\s*(?:\{\s*-\s*1\s*\}|-1)\s*\(")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_WRAPPERS = re.compile(
    r"\\(?:boxed|fbox|mathbf|mathit|mathcal|boldsymbol|bm|mathsf|underline|overrightarrow|vec|"
    r"hat|widehat|ensuremath|mathring|emph)\s*\{"
)
_TEXT = re.compile(
    r"\\(?:text|mathrm|textbf|textit|textrm|textnormal|mbox|hbox|operatorname\*?|texttt|textsf)\s*\{([^{}]*)\}"
)
_THOUSANDS_TEX = re.compile(r"(?<=\d)\s*(?:,\s*\\!|\\!\s*,(?:\s*\\!)?|\{\s*,\s*\}|\\,|\\ )\s*(?=\d{3}(?!\d))")
_THOUSANDS_SPACE = re.compile(r"(?<![\d.])(\d{1,3})((?: \d{3})+)(?![\d])")
_THOUSANDS_COMMA = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])")
_IMPLIED = re.compile(  # 2x = 6 => x = 3
    r"^.*[=<>].*(?:\\(?:implies|Rightarrow|Longrightarrow|rightarrow|to)(?![a-zA-Z])|=>|[⇒⟹])\s*(?=[a-zA-Z]\s*(?:=|<|>|"
    r"\\[lgn]eq?(?![a-z])))"
)
_WHOLE_HOUR = re.compile(r"^(\s*\d{1,2})((?:\s|\\text\s*\{)*[aApP][mM]\b\s*\}?\s*)$")  # 3 PM is 3:00 PM
_LOG_BASE = re.compile(r"\\log\s*_\s*(\d)(\d+)(?=\s*(?:$|[-+,=)}]))")  # as TeX prints it, where no argument follows
_DEGREE_LETTER = re.compile(
    r"\^\s*\{?\s*\\(?:text|mathrm|rm)\s*\{\s*[oO]\s*\}\s*\}?|(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o)(?![a-z])"
)
_ELLIPSIS = re.compile(r"\\(?:ldots|cdots|dots|dotsc|dotsb)(?![a-zA-Z])|…")


def clean(answer: str) -> str:
    """The answer without dollar signs, spacing, styles, units of currency, markdown and final punctuation."""
    text = _unicode(answer).replace("等于", "=")
    if r"\\begin" in text:
        text = text.replace("\\\\", "\\")  # every backslash doubled, those of new lines too
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z()\[\]{}])", r"\\", text)  # escaped once too often
    text = _DEGREE_LETTER.sub(r"^\\circ ", _THOUSANDS_TEX.sub("", text))
    text = re.sub(r"(?<!\\)\\[!,]", " ", text).replace("{,}", ",")
    text = _BETWEEN_EQUATIONS.sub(r"\1 , ", text)
    text = re.sub(r"\\left\s*(?=[(\[])", "", text)
    text = _SPACES.sub(" ", _DROPPED.sub(" ", text))
    text = _COMMAND.sub(_rename, text)
    text = (
        _money_word(text)
        .replace(r"\$", "")
        .replace("$", " ")
        .replace(r"\%", "%")
        .replace(r"\#", "#")
        .replace(r"\&", "&")
    )
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
    text = text.replace("{:}", ":")
    text = re.sub(r"^\s*(?:minus|negative)\s+(?=[\d\\.])", "-", text)
    text = re.sub(r"(?<=\d)[eE]([-+]?\d{1,3})(?=\s+[A-Za-z])", r" \\cdot 10^{\1}", text)
    text = _SUCH_THAT.sub(r"\1 \\mid ", text)
    text = _INVERSE.sub(r"\1_{inv}(", text)
    text = _SCRIPTS.sub(r"_\2^\1", _PRIMES.sub(lambda m: "'" * m.group().count("prime"), text))
    text = re.sub(r"\bC_\{?(\d+)\}?\^\{?(\d+)\}?", r"\\binom{\1}{\2}", text)
    text = _positive_reals(_NESTED_POWER.sub(_flat_power, text))
    text = re.sub(r"\bm\s*(?=\\angle)|(?<=[\])])\^\s*\{?\s*(?:T|\\top)\s*\}?$", "", text)  # [1, 2]^T
    text = re.sub(r"\b([aApP])\.\s?([mM])\b\.?", r"\1\2", text)
    text = _IMPLIED.sub("", text)
    text = _WHOLE_HOUR.sub(r"\1:00\2", text)
    text = _LOG_BASE.sub(r"\\log_{\1} \2", text)
    text = re.sub(r"(?<=\d)or(?=[A-Z(\d-])", " or ", text)
    text = _UNION_LETTER.sub(r" \\cup ", text)
    text = _REPEATING.sub(r"\1\\overline{\2}", text) if "repeating" in text else text
    text = re.sub(r"(?<!\d)\.(?=\s*\\overline)", "0.", text)
    text = re.sub(r"^<([^<>=]*,[^<>=]*)>$", r"\\langle \1 \\rangle", text.strip())
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = re.sub(r"(?<=\d)\s*\^?\s*\{?\s*(?:\\text\s*\{\s*|\\mathrm\s*\{\s*)?(?:st|nd|rd|th)\s*\}?\}?$", "", text)
    text = _OVER.sub(r"\\frac{\1}{\2}", _unwrap(text))
    text = re.sub(r"[€£¥₹`]|(?<![\da-zA-Z)}])\*\*|\*\*(?![\da-zA-Z({\\])", "", text)
    text = _ELLIPSIS.sub("...", text)
    text = _THOUSANDS_SPACE.sub(lambda m: m.group(0).replace(" ", ""), text)
    return _trim(re.sub(r"\s+", " ", text))


def _money_word(text: str) -> str:
    r"""A sum in dollars says so: $0.50 is not 50, but it is 50 cents. Currency words before a number are dropped."""
    text = re.sub(r"^\s*(?:\\text\s*\{\s*)?(?:Rs|INR|USD|US|EUR|HK|RMB)\.?\s*\}?\s*(?=\\?\$?\d)", "", text)
    return re.sub(r"^\s*\\?\$\s*(\d[\d,]*(?:\.\d+)?)\s*$", r"\1 \\text{dollars}", text)


def join_thousands(text: str) -> str:
    """ "1,234,567" as one number; in clean text."""
    return _THOUSANDS_COMMA.sub(lambda m: m.group(0).replace(",", ""), text)


def text_content(text: str) -> str:
    r"""Clean text with \text{...} replaced by its content."""
    return re.sub(r"\s+", " ", _TEXT.sub(r" \1 ", text)).strip()


def _unicode(text: str) -> str:
    if text.isascii():
        return text.translate({9: " ", 10: " ", 13: " "})
    for char, (top, bottom) in _FRACTIONS.items():
        text = text.replace(char, rf"\frac{{{top}}}{{{bottom}}}")
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = re.sub(r"√\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}", text)
    return unicodedata.normalize("NFKC", text.translate(_CHARACTERS))


def _rename(match: re.Match[str]) -> str:
    name = match.group(1)
    new = _RENAMED.get(name)
    if new is None:
        return match.group()
    if new in ("{", "}"):
        return "\\" + new
    return "\\" + new if new.isalpha() and len(new) > 1 else new


_NESTED_POWER = re.compile(r"\\(?:text|mathrm)\s*\{(?:[^{}]|\^\s*\{\s*-?\d\s*\})*\}")
_HALF_LINE = re.compile(
    r"\\mathbb\s*\{?\s*R\s*\}?\s*(?:[\^_]\s*\{?\s*([+-])\s*\}?(?!\w)|_\s*\{?\s*(>|<|\\ge|\\le)\s*0\s*\}?)"
)


def _flat_power(match: re.Match[str]) -> str:
    return re.sub(r"\^\s*\{\s*(-?\d)\s*\}", r"^\1", match.group())


def _positive_reals(text: str) -> str:
    r"""\mathbb{R}^+ as the interval that it is."""
    lines = {"+": r"(0,\infty)", ">": r"(0,\infty)", "\\ge": r"[0,\infty)", "-": r"(-\infty,0)", "<": r"(-\infty,0)",
             "\\le": r"(-\infty,0]"}  # fmt: skip
    return _HALF_LINE.sub(lambda m: lines[m[1] or m[2]], text)


def _unwrap(text: str) -> str:
    r"""Drop \boxed{...}, \mathbf{...} and the like, keeping what they hold."""
    for _ in range(20):
        match = _WRAPPERS.search(text)
        if match is None:
            return text
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        inner = text[match.end() : end - 1 if depth == 0 else end]
        text = text[: match.start()] + " " + inner + " " + text[end:]
    return text


def _trim(text: str) -> str:
    """Strip what surrounds an answer: quotes, final punctuation, markdown, a leading equals sign."""
    previous = None
    while text != previous:
        previous = text
        text = re.sub(r"^'(.*)'$", r"\1", text.strip().strip('"')).strip().lstrip("'")
        text = re.sub(r"(?<=\d)'$", r" \\text{ft}", re.sub(r"(?<![\d'])'+$", "", text)).strip()  # 8' long
        text = re.sub(r"^(?:=>|∴|⇒|⟹|\\(?:therefore|Rightarrow|implies|Longrightarrow)(?![a-zA-Z]))\s*", "", text)
        text = re.sub(
            r"^(?:=|:|\\approx|~|≈|(?:\\text\s*\{\s*)?(?:approximately|approx\.?|about)\b\s*\}?)\s*", "", text
        )
        text = re.sub(r"^\\(?:text|mathrm)\s*\{([^{}]*\d[^{}]*)\}$", r"\1", text)
        text = re.sub(r"(?:(?<!\.)\.|(?<=\d)\.|[,;:。])$", "", text) if not text.endswith("...") else text
        text = re.sub(r"^\*+\s*(?=\S)|(?<=\S)\s*\*+$", "", text)
        text = re.sub(r"\\\\?$", "", text) if text.endswith("\\") else text
    return text
