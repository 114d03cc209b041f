"""A recipe's mistakes in words: file, key, value and what is allowed, one line each."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from rl.errors import UserError
from rl.recipe import Recipe

KeyPath = tuple[str | int, ...]


class RecipeError(UserError):
    """The recipe is wrong. `problems` holds one line per mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class RawRecipe:
    """Merged YAML before it is checked, and where each key came from."""

    values: dict[str, Any]
    origins: dict[KeyPath, str]
    """file, or the command line, by key; a key that is not here came with the nearest mapping above it.
    () is there always: the recipe's own file"""

    def origin(self, path: KeyPath) -> str:
        """The file or the command line that set this key or the nearest mapping above it; all that set parts of it."""
        parts = [origin for key, origin in self.origins.items() if path and key[: len(path)] == path]
        if path not in self.origins or not path:
            parts.insert(0, self._nearest(path))
        return " and ".join(dict.fromkeys(parts))

    def _nearest(self, path: KeyPath) -> str:
        known = (path[:length] for length in range(len(path), -1, -1) if path[:length] in self.origins)
        return self.origins[next(known)]

    def located(self, problem: str) -> str:
        """`key.path: what is wrong` with the file in front that the key comes from."""
        key = problem.partition(": ")[0]
        return f"{self.origin(self.key_path(key))}: {problem}"

    def key_path(self, key: str) -> KeyPath:
        """The path of a dotted key; keys may hold dots themselves, so what exists decides. Stops where nothing does."""
        path: list[str | int] = []
        here: Any = self.values
        rest = key
        while rest:
            found = next((name for name in _prefixes(rest) if _holds(here, name)), None)
            if found is None:
                return (*path, rest.partition(".")[0])
            step = int(found) if isinstance(here, list) else found
            path.append(step)
            here = here[step]
            rest = rest[len(found) + 1 :]
        return tuple(path)


def _prefixes(key: str) -> Iterator[str]:
    """The key up to each of its dots, the shortest first."""
    parts = key.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _holds(values: object, name: str) -> bool:
    if isinstance(values, list):
        return is_index(name) and int(name) < len(values)
    return isinstance(values, dict) and name in values


def is_index(text: str) -> bool:
    """True for a small number in plain digits."""
    return re.fullmatch(r"[0-9]{1,6}", text) is not None


def problem_lines(details: ErrorDetails, raw: RawRecipe) -> Iterator[str]:
    """Usually one line; a rule over several keys may report several problems in one error."""
    kind = details["type"]
    path = _key_path(details["loc"], raw.values, missing=kind == "missing")
    if kind == "union_tag_invalid":
        path = (*path, "kind")
    key = ".".join(map(str, path))
    if kind == "value_error":
        for line in str(details["ctx"]["error"]).splitlines():
            yield raw.located(_below(key, line))
        return
    where = f"{raw.origin(path)}: {key or 'the recipe'}: "
    if kind == "extra_forbidden":
        yield f"{where}unknown key{_suggestion(details['loc'], raw.values)}"
    elif kind == "missing":
        yield f"{where}required, but not given{_expected(details['loc'], raw.values)}"
    elif kind == "source_kind":
        yield f"{where}has {_keys(details['input'])}; {details['msg']}"
    elif kind == "union_tag_not_found":
        yield f"{where}has {_keys(details['input'])}; needs the key kind: {_STAGE_KINDS}"
    else:
        value = details["ctx"]["tag"] if kind == "union_tag_invalid" else details["input"]
        yield f"{where}{shorten(value)}: {_allowed(details)}"


def _below(key: str, line: str) -> str:
    """A rule's message under the key of its section; it may begin with a key of its own."""
    own = re.match(r"[\w.-]+: ", line) is not None
    if own:
        return f"{key}.{line}" if key else line
    return f"{key or 'the recipe'}: {line}"


_STAGE_KINDS = "sft, rl, preference_model or message_cache"
_TYPES = {
    "int_type": "a whole number is expected",
    "float_type": "a number is expected",
    "string_type": "text is expected",
    "bool_type": "true or false is expected",
    "model_type": "a mapping of keys to values is expected",
    "model_attributes_type": "a mapping of keys to values is expected",
    "dict_type": "a mapping of keys to values is expected",
    "list_type": "a list is expected",
    "tuple_type": "a list is expected",
    "finite_number": "a finite number is expected",
}


def _allowed(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _TYPES:
        quoted = isinstance(details["input"], str) and kind != "string_type"
        return _TYPES[kind] + (", this is text" if quoted else "")
    if kind == "union_tag_invalid":
        return f"the kind of a stage is {_STAGE_KINDS}"
    if kind == "string_pattern_mismatch":
        return f"does not match {context['pattern']}"
    if kind == "too_short":
        return f"at least {context['min_length']} is needed"
    message = details["msg"].removeprefix("Input ").removeprefix("Value ")
    return message[0].lower() + message[1:]


def _keys(value: object) -> str:
    if isinstance(value, Mapping):
        return f"the keys {', '.join(map(str, value))}" if value else "no keys"
    return shorten(value)


def shorten(value: object) -> str:
    """The value as it may stand in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _key_path(loc: tuple[int | str, ...], values: Any, *, missing: bool) -> KeyPath:
    """Pydantic's location without the tags of unions that it puts between the keys.

    `missing`: the last part is a key that the recipe lacks.
    """
    path: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        inside = isinstance(values, dict) and part in values
        indexed = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if (inside or indexed) and (last or isinstance(values[part], dict | list)):
            path.append(part)
            values = values[part]
        elif last and missing:
            path.append(part)
    return tuple(path)


def _suggestion(loc: tuple[int | str, ...], values: Any) -> str:
    top = {"extends"} if len(loc) == 1 else set()
    allowed = sorted(_allowed_keys(Recipe, loc[:-1], values) | top)
    close = difflib.get_close_matches(str(loc[-1]), allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} Allowed: {', '.join(allowed)}" if hint else f"; allowed: {', '.join(allowed)}"


def _expected(loc: tuple[int | str, ...], values: Any) -> str:
    """What a missing section would have to hold."""
    allowed = _allowed_keys(Recipe, loc, values)
    if allowed >= {"task", "dataset", "message_cache"}:
        return "; a source has one of the keys: task, dataset, message_cache"
    return f"; a section with some of: {', '.join(sorted(allowed))}" if allowed and loc != ("stages",) else ""


def _allowed_keys(model: type[BaseModel], loc: Sequence[int | str], values: Any) -> set[str]:
    """Names of the fields of the section at a location."""
    candidates: list[type[BaseModel]] = [model]
    for part in loc:
        tagged = [other for other in candidates if _tag(other) == part]
        if tagged and len(candidates) > 1:  # the tag of a union narrows the candidates
            candidates = tagged
            continue
        fields = [other.model_fields[str(part)] for other in candidates if part in other.model_fields]
        if fields:
            candidates = [found for field in fields for found in _models_in(field.annotation)]
        elif not (isinstance(part, int) or len(candidates) > 1 or _is_name(part, values)):
            return set()
    return {field for candidate in candidates for field in candidate.model_fields}


def _is_name(part: str | int, values: Any) -> bool:
    """True for the name that a user gave to a stage or held-out set."""
    return any(part in (values.get(section) or {}) for section in ("stages", "evaluations"))


def _tag(model: type[BaseModel]) -> str | None:
    """The tag by which a union finds this model: the literal of its `kind`, or its first field for a source."""
    if "kind" in model.model_fields:
        literal = typing.get_args(model.model_fields["kind"].annotation)
        return str(literal[0]) if literal else None
    return next(iter(model.model_fields), None)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every section that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is Annotated:
        return _models_in(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, dict, tuple):
        return [found for part in typing.get_args(annotation) for found in _models_in(part)]
    return []
