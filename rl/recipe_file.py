"""Reading a recipe: YAML, `extends`, overrides, and every mistake at once with file, key, value and what is allowed."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rl.recipe import Recipe

KeyPath = tuple[str | int, ...]
COMMAND_LINE = "command line"


class RecipeError(ValueError):
    """The recipe is wrong. `problems` holds one line per mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class _RecipeLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-6 as a number and refuses a key that is given twice."""


# PyYAML follows YAML 1.1, where a float needs a dot; people write 1e-6.
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping_without_duplicates(loader: _RecipeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is not a string", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_RecipeLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


@dataclass(frozen=True)
class RawRecipe:
    """Merged YAML before it is checked, and where each key came from."""

    values: dict[str, Any]
    origins: dict[KeyPath, str]

    def origin(self, path: KeyPath) -> str:
        """The file (or the command line) that set this key or the nearest mapping above it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return "recipe"


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with its parents and `key.path=value` overrides merged.

    Raises:
        RecipeError: one line for each mistake, each with file, key, value and what is allowed.
    """
    raw = read_raw(path, overrides)
    try:
        return Recipe.model_validate(raw.values)
    except ValidationError as error:
        problems = [problem for details in error.errors() for problem in _problem_lines(details, raw)]
        raise RecipeError(problems) from None


def read_raw(path: str | Path, overrides: Sequence[str] = ()) -> RawRecipe:
    """The merged mapping of a file, its parents and overrides, unchecked."""
    raw = RawRecipe({}, {})
    for file, values in reversed(list(_family(Path(path)))):
        _merge(raw.values, values, (), str(file), raw.origins)
    raw.values.setdefault("name", Path(path).stem)
    for override in overrides:
        _apply_override(raw, override)
    return raw


def _family(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, its values) for a recipe and its chain of parents, the child first."""
    seen: list[Path] = []
    while True:
        if path.resolve() in [other.resolve() for other in seen]:
            raise RecipeError([f"{path}: extends: the chain of parents comes back to this file"])
        seen.append(path)
        values = _read_yaml(path)
        parent = values.pop("extends", None)
        yield path, values
        if parent is None:
            return
        if not isinstance(parent, str):
            raise RecipeError([f"{path}: extends: {parent!r} is not the path of one recipe"])
        path = path.parent / parent


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_RecipeLoader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise RecipeError([f"{path}: there is no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([f"{path}: cannot be read: {error}"]) from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError([f"{path}{line}: not valid YAML: {error.problem}"]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError([f"{path}: not valid YAML: {error}"]) from None
    if not isinstance(values, dict):
        raise RecipeError([f"{path}: a recipe is a mapping of keys to values, this is {type(values).__name__}"])
    return values


def _merge(
    into: dict[str, Any], values: dict[str, Any], path: KeyPath, origin: str, origins: dict[KeyPath, str]
) -> None:
    """Mappings merge by key, everything else (lists too) is replaced."""
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, here, origin, origins)
        else:
            into[key] = value
            origins[here] = origin


def _apply_override(raw: RawRecipe, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError([f"{COMMAND_LINE}: {override!r} is not of the form key.path=value"])
    try:
        value = yaml.load(text, Loader=_RecipeLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise RecipeError([f"{COMMAND_LINE}: {key}: {text!r} is not a YAML value: {error}"]) from None
    parts: list[str | int] = [int(part) if part.isdigit() else part for part in key.split(".")]
    parent: Any = raw.values
    for position, part in enumerate(parts[:-1]):
        if isinstance(parent, dict):
            parent = parent.setdefault(str(part), {})
        elif isinstance(parent, list) and isinstance(part, int) and part < len(parent):
            parent = parent[part]
        else:
            raise RecipeError([f"{COMMAND_LINE}: {key}: {'.'.join(map(str, parts[: position + 1]))} does not exist"])
    _set_item(parent, parts[-1], value, key)
    raw.origins[tuple(parts)] = COMMAND_LINE


def _set_item(parent: Any, part: str | int, value: object, key: str) -> None:
    if isinstance(parent, dict):
        parent[str(part)] = value
    elif isinstance(parent, list) and isinstance(part, int) and part < len(parent):
        parent[part] = value
    else:
        raise RecipeError([f"{COMMAND_LINE}: {key}: {part!r} is not a key or index of what stands above it"])


# ---------------------------------------------------------------- mistakes, in words


def _problem_lines(details: ErrorDetails, raw: RawRecipe) -> Iterator[str]:
    """Usually one line; a rule over several keys may report several problems in one error."""
    path = _key_path(details["loc"], raw.values)
    where = f"{raw.origin(path)}: "
    key = ".".join(map(str, path))
    kind = details["type"]
    if kind == "extra_forbidden":
        yield f"{where}{key}: unknown key{_suggestion(details['loc'])}"
    elif kind == "missing":
        yield f"{where}{key}: required, but not given"
    elif kind == "value_error":
        for line in str(details["ctx"]["error"]).splitlines():
            yield where + (f"{key}: " if key else "") + line
    else:
        yield f"{where}{key}: {_shorten(details['input'])}: {_allowed(details)}"


def _allowed(details: ErrorDetails) -> str:
    message = details["msg"]
    if details["type"] == "union_tag_invalid":
        expected = details["ctx"]["expected_tags"]
        return f"kind {details['ctx']['tag']!r} is not one of {expected}"
    if details["type"] == "union_tag_not_found":
        return "needs the key kind: sft, rl, preference_model or message_cache"
    return message[0].lower() + message[1:]


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _key_path(loc: tuple[int | str, ...], values: Any) -> KeyPath:
    """Pydantic's location without the tags of unions that it puts between the keys."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        inside = isinstance(values, dict) and part in values
        indexed = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if (inside or indexed) and (last or isinstance(values[part], dict | list)):  # type: ignore[call-overload]
            path.append(part)
            values = values[part]  # type: ignore[call-overload]
        elif last and isinstance(part, str):
            path.append(part)
    return tuple(path)


def _suggestion(loc: tuple[int | str, ...]) -> str:
    allowed = sorted(_allowed_keys(Recipe, loc[:-1]))
    close = difflib.get_close_matches(str(loc[-1]), allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} Allowed: {', '.join(allowed)}" if hint else f"; allowed: {', '.join(allowed)}"


def _allowed_keys(model: type[BaseModel], loc: Sequence[int | str]) -> set[str]:
    """Names of the fields of the section at a location."""
    candidates: list[type[BaseModel]] = [model]
    for part in loc:
        tagged = [other for other in candidates if _tag(other) == part]
        if tagged and len(candidates) > 1:  # the tag of a union narrows the candidates
            candidates = tagged
            continue
        fields = [other.model_fields[str(part)] for other in candidates if part in other.model_fields]
        if fields:  # otherwise an index or the name of a stage
            candidates = [found for field in fields for found in _models_in(field.annotation)]
    return {field for candidate in candidates for field in candidate.model_fields}


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
