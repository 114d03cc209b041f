"""Splits a unit off an answer and compares units.

A missing unit is forgiven: the number is the answer. Two units that both stand there must agree, or convert.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_BASE: dict[str, tuple[str, Fraction]] = {}


def _define(dimension: str, **units: str) -> None:
    for names, factor in ((names, factor) for factor, names in units.items()):
        for name in names.split():
            _BASE[name] = (dimension, _FACTORS[factor])


_FACTORS = {
    "one": Fraction(1), "milli": Fraction(1, 1000), "centi": Fraction(1, 100), "deci": Fraction(1, 10),
    "kilo": Fraction(1000), "micro": Fraction(1, 10**6), "nano": Fraction(1, 10**9), "mega": Fraction(10**6),
    "inch": Fraction(254, 10000), "foot": Fraction(3048, 10000), "yard": Fraction(9144, 10000),
    "mile": Fraction(1609344, 1000), "sixty": Fraction(60), "hour": Fraction(3600), "day": Fraction(86400),
    "week": Fraction(604800), "ounce": Fraction(28349523125, 10**12), "pound": Fraction(45359237, 10**8),
    "ton": Fraction(1000), "twelve": Fraction(12),
}  # fmt: skip
_define("length", one="m meter meters metre metres", centi="cm centimeter centimeters centimetre centimetres",
        milli="mm millimeter millimeters millimetre millimetres", kilo="km kilometer kilometers kilometre kilometres",
        deci="dm", inch="in inch inches", foot="ft foot feet", yard="yd yard yards", mile="mi mile miles",
        micro="micrometer micrometers", nano="nm nanometer nanometers")  # fmt: skip
_define("mass", one="kg kilogram kilograms", milli="g gram grams", micro="mg milligram milligrams",
        ounce="oz ounce ounces", pound="lb lbs pound pounds", ton="t ton tons tonne tonnes")  # fmt: skip
_define("time", one="s sec second seconds", sixty="min mins minute minutes", hour="h hr hrs hour hours",
        day="day days", week="week weeks", milli="ms millisecond milliseconds")  # fmt: skip
_define("volume", milli="ml mL milliliter milliliters", one="L l liter liters litre litres")
_define("money", one="dollar dollars usd USD", centi="cent cents ¢ \\cent")
_define("charge", one="C coulomb coulombs")
_define("energy", one="J joule joules", kilo="kJ kilojoule kilojoules")
_define("force", one="N newton newtons")
_define("power", one="W watt watts", kilo="kW kilowatt kilowatts")
_define("voltage", one="V volt volts")
_define("current", one="A amp amps ampere amperes", milli="mA")
_define("frequency", one="Hz hertz", kilo="kHz")
_define("pressure", one="Pa pascal pascals", kilo="kPa")
_define("temperature", one="K kelvin")
_define("months", one="month months", twelve="year years yr yrs")
_define("people", one="people persons person")
_define("morning", one="am")
_define("afternoon", one="pm")
_define("sq", one="units unit")

_LABEL_STOP = frozenset(
    [
        "than",
        "plus",
        "minus",
        "out",
        "pi",
        "and",
        "or",
        "if",
        "for",
        "when",
        "where",
        "sqrt",
        "sin",
        "cos",
        "tan",
        "log",
        "ln",
        "exp",
        "infty",
        "inf",
        "infinity",
        "oo",
        "frac",
        "union",
        "cup",
        "mod",
        "no",
        "yes",
        "true",
        "false",
        "is",
    ]
)
_UNIT_PART = r"\{\s*((?:\\(?:text|mathrm)\s*\{)?\s*[a-zA-Z]+(?:\^\{?\d\}?)?\s*\}?(?:\^\{?\d\}?)?)\s*\}"
_UNIT_FRACTION = re.compile(r"\s*\\frac\s*" + _UNIT_PART + r"\s*" + _UNIT_PART + "$")
_TEXT_UNIT = re.compile(
    r"\\(?:text|mathrm|textbf|textit|textrm|textnormal|mbox|hbox|operatorname|texttt|textsf)\s*\{([^{}]*)\}"
    r"((?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?)"
)


_NUMBER_AND_WORDS = re.compile(
    r"^(?P<core>(?:[a-zA-Z]\s*=\s*)?[-+]?(?:[\d.,/\s:]|\\frac\s*\{\d+\}\s*\{\d+\}|\\pi|"
    r"\\sqrt\s*\{\d+\}|\\cdot|\\times|\^\{?-?\d+\}?|[()%}]|i(?![a-zA-Z]))+"
    r"(?<=[\d})i%]))\s*(?P<unit>(?:/\s*)?[a-zA-Z][a-zA-Z/ .\^{}\d]*)$"
)


@dataclass(frozen=True)
class Unit:
    """A known unit as a factor and powers of dimensions, or words (`dimensions` None) that only label."""

    words: str
    factor: Fraction = Fraction(1)
    dimensions: tuple[tuple[str, int], ...] | None = None


def split_unit(text: str) -> tuple[str, Unit | None, bool]:
    r"""(number, unit, certain) of a clean answer; not certain where the unit could be a variable ("3 m").

    "15\mbox{ cm}^2" -> ("15", cm^2, True);   "12 apples" -> ("12", "apples", True)
    """
    text = _UNIT_FRACTION.sub(_flat_fraction, text)
    core, words = _split_text_unit(text)
    certain = True
    if not words:
        core, words = _split_word_unit(text)
        certain = len(words) > 1 or not words.isascii()
    return (core, read_unit(words), certain) if words else (text, None, True)


_COMPOUND = re.compile(r"^(\d+(?:\.\d+)?) ?([a-zA-Z]+),?(?: and)? (\d+(?:\.\d+)?) ?([a-zA-Z]+)$")


def join_compound(text: str) -> str:
    """ "2 hours 30 minutes" as "150 minutes"; any other text as it is."""
    match = _COMPOUND.match(re.sub(r"\s+", " ", _TEXT_UNIT.sub(r" \1 ", text)).strip())
    if match is None:
        return text
    first, second = _BASE.get(match[2]), _BASE.get(match[4])
    if first is None or second is None or first[0] != second[0] or first[1] <= second[1]:
        return text
    total = Fraction(match[1]) * first[1] / second[1] + Fraction(match[3])
    return f"\\frac{{{total.numerator}}}{{{total.denominator}}} \\text{{{match[4]}}}"


def _flat_fraction(match: re.Match[str]) -> str:
    top, bottom = (re.sub(r"\\(?:text|mathrm)\s*|[{}]", "", part).strip() for part in match.groups())
    known = all(part.split("^")[0] in _BASE for part in (top, bottom))
    return rf" \text{{{top}/{bottom}}}" if known else match.group()


def _split_text_unit(text: str) -> tuple[str, str]:
    """Trailing \\text{...} groups, with their powers and slashes."""
    matches = list(_TEXT_UNIT.finditer(text))
    if not matches:
        return text, ""
    start = len(text)
    for match in reversed(matches):
        between = text[match.end() : start]
        if not re.fullmatch(r"[\s./*]*(?:\\cdot)?[\s./]*", between):
            break
        start = match.start()
    core, tail = text[:start].strip(), text[start:]
    words = re.sub(r"\s+", " ", _TEXT_UNIT.sub(r" \1\2 ", tail)).strip()
    is_joint = re.fullmatch(r"(?i)(?:and|or)?|[ie]", words) or re.match(r"(?i)(?:and|or|if|for|when|where)\b", words)
    if not core or is_joint or re.search(r"\d\s*[a-z]*\s*\d", re.sub(r"\^\s*\{?-?\d\}?", "", words)):
        return text, ""
    if not re.search(r"[\d)}\]a-zA-Z]$", core) or re.search(r"[,;]\s*$", core):
        return text, ""
    return core, words


def _split_word_unit(text: str) -> tuple[str, str]:
    ohms = re.match(r"^(.*\d)\s*((?:k|M|m)?\s*\\Omega)$", text)
    if ohms:
        return ohms.group(1), "ohm"
    chinese = re.match(r"^([^\u4e00-\u9fff]*[\d)}])\s*([\u4e00-\u9fff]{1,6})$", text)
    if chinese:
        return chinese.group(1), chinese.group(2)
    match = _NUMBER_AND_WORDS.match(text)
    if match is None:
        return text, ""
    core, words = match.group("core").strip(), match.group("unit").strip().rstrip(".")
    parts = re.findall(r"[a-zA-Z]+", words)
    if not parts or any(part.lower() in _LABEL_STOP for part in parts) or "times" in parts[:-1]:
        return text, ""
    known = parts[0] in _BASE or parts[0].lower() in (
        "square",
        "sq",
        "cubic",
        "per",
        "am",
        "pm",
        "degrees",
        "degree",
        "mph",
        "percent",
    )
    if not known and len(parts[0]) < 3:
        return text, ""
    if not re.search(r"\d|\\pi", core):
        return text, ""
    if re.search(r"[\^\d]", words) and read_unit(words).dimensions is None:
        return text, ""  # 12 m^2 n is a product
    return core, words


def read_unit(words: str) -> Unit:
    """The unit that some words name; unknown words are a label."""
    text = (
        re.sub(r"\b([ap])\.?\s?m\b\.?", r"\1m", words, flags=re.I).lower()
        if re.match(r"[apAP]\.?\s?[mM]\.?$", words)
        else words
    )
    text = text.replace("mph", "mi/h").replace("kph", "km/h").replace(" per ", "/").strip()
    text = re.sub(r"^per ", "/", text).replace("\\cdot", " ")
    factor, powers = Fraction(1), {}  # type: Fraction, dict[str, int]
    for index, side in enumerate(text.split("/")):
        named = _named_powers(side)
        if not named and index == 0 and side.strip():
            return Unit(words.lower().strip())
        for name, power in named:
            found = _BASE.get(name) or _BASE.get(name.lower())
            if found is None:
                return Unit(words.lower().strip())
            signed = power if index == 0 else -power
            factor *= found[1] ** signed
            powers[found[0]] = powers.get(found[0], 0) + signed
    if "sq" in powers:  # "square units", "units": fits every measure
        return Unit(words.lower())
    if powers.get("volume"):  # a litre is a cubic decimetre
        factor *= Fraction(1, 1000) ** powers.pop("volume") if powers["volume"] else 1
        powers["length"] = powers.get("length", 0) + 3
    return Unit(words.lower(), factor, tuple(sorted((d, p) for d, p in powers.items() if p)))


def _named_powers(text: str) -> list[tuple[str, int]]:
    text = re.sub(r"\b(square|sq)\b\.?\s*([a-zA-Z]+)", r"\2^2", text)
    text = re.sub(r"\bcubic\s+([a-zA-Z]+)", r"\1^3", text)
    text = re.sub(r"([a-zA-Z]+)\s+squared\b", r"\1^2", text)
    text = re.sub(r"([a-zA-Z]+)\s+cubed\b", r"\1^3", text)
    found = re.findall(r"([a-zA-Z¢]+)\.?\s*(?:\^\s*\{?\s*(-?\d)\s*\}?)?", text)
    return [(name, int(power or 1)) for name, power in found]


def conversion(gold: Unit | None, pred: Unit | None) -> Fraction | None:
    """What to multiply the prediction by to compare it with the reference; None where the units contradict."""
    if gold is None or pred is None or gold.dimensions is None or pred.dimensions is None:
        return Fraction(1)
    if gold.dimensions != pred.dimensions:
        return None
    return pred.factor / gold.factor
