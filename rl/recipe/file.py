"""Reading a recipe: YAML, `extends`, overrides, and every mistake at once with file, key, value and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rl.recipe import Recipe
from rl.recipe.errors import KeyPath, RawRecipe, RecipeError, is_index, problem_lines

__all__ = ["COMMAND_LINE", "RawRecipe", "RecipeError", "read_raw", "read_recipe", "validated"]

COMMAND_LINE = "command line"
_MERGE = "tag:yaml.org,2002:merge"


class _RecipeLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-6 as a number and refuses a key that is given twice."""


# PyYAML follows YAML 1.1, where a float needs a dot; people write 1e-6.
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping_without_duplicates(loader: _RecipeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is not text; put it in quotes", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _refuse_tag(loader: _RecipeLoader, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag!r} has no use in a recipe", node.start_mark)


_RecipeLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
# A recipe holds what JSON can hold: a date is text, and there are no bytes or sets.
_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _RecipeLoader.yaml_implicit_resolvers.items()
}
for _tag in ("timestamp", "binary", "set", "omap", "pairs"):
    _RecipeLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _refuse_tag)
# Files beyond this are no recipes, and aliases of aliases can grow without end.
_MAX_CHARACTERS = 4_000_000
_MAX_VALUES = 50_000
_MAX_MISTAKES = 100
# What PyYAML raises for text that is not YAML, and for a tag that does not fit its value (`!!bool x`).
_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, KeyError, AttributeError, TypeError)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with its parents and `key.path=value` overrides merged.

    Raises:
        RecipeError: one line for each mistake, each with file, key, value and what is allowed.
    """
    return validated(read_raw(path, overrides))


def validated(raw: RawRecipe) -> Recipe:
    """The recipe of merged values.

    Raises:
        RecipeError: as `read_recipe`.
    """
    try:
        # As JSON, because strict checking of JSON takes a list for a tuple, but neither "2" nor true for a number.
        return Recipe.model_validate_json(json.dumps(raw.values, default=str), strict=True)
    except ValidationError as error:
        mistakes = error.errors()
        problems = [problem for details in mistakes[:_MAX_MISTAKES] for problem in problem_lines(details, raw)]
        more = len(mistakes) - _MAX_MISTAKES
        rest = [f"{raw.origin(())}: and {more:,} more mistakes"] if more > 0 else []
        raise RecipeError([*dict.fromkeys(problems), *rest]) from None
    except (RecursionError, ValueError) as error:
        raise RecipeError([f"{raw.origin(())}: the recipe cannot be taken in: {error}"]) from None


def read_raw(path: str | Path, overrides: Sequence[str] = ()) -> RawRecipe:
    """The merged mapping of a file, its parents and overrides, unchecked.

    A stage or held-out set that is null is left out: so a child or the command line drops what a parent has.
    """
    raw = RawRecipe({}, {(): str(path)})
    for file, values in reversed(list(_family(Path(path)))):
        _merge(raw.values, values, (), str(file), raw.origins)
    raw.values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem) or "recipe")
    problems = [problem for override in overrides for problem in _apply_override(raw, override)]
    if problems:
        raise RecipeError(problems)
    for section in ("stages", "evaluations"):
        if isinstance(raw.values.get(section), dict):
            raw.values[section] = {name: value for name, value in raw.values[section].items() if value is not None}
    return raw


def _family(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, its values) for a recipe and its chain of parents, the child first."""
    seen: list[Path] = []
    child = None
    while True:
        if path.resolve() in [other.resolve() for other in seen]:
            raise RecipeError([f"{child}: extends: the chain of parents comes back to {path}"])
        seen.append(path)
        values = _read_yaml(path, child)
        parent = values.pop("extends", None)
        yield path, values
        if parent is None:
            return
        if not isinstance(parent, str) or not parent or "\0" in parent:
            raise RecipeError([f"{path}: extends: {parent!r}: the path of one recipe is expected"])
        child, path = path, path.parent / Path(parent).expanduser()


def _read_yaml(path: Path, child: Path | None) -> dict[str, Any]:
    """The mapping of a file; `child` is the recipe that extends it."""
    try:
        with path.open(encoding="utf-8") as file:
            values = _parse(file.read(_MAX_CHARACTERS + 1))
    except FileNotFoundError:
        asked = f"{child}: extends: " if child else ""
        raise RecipeError([f"{asked}{path}: there is no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([f"{path}: cannot be read: {error}"]) from None
    except _NOT_YAML as error:
        raise RecipeError([_not_yaml(path, error)]) from None
    if not isinstance(values, dict):
        found = "this one is empty" if values is None else f"this is {type(values).__name__}"
        raise RecipeError([f"{path}: a recipe is a mapping of keys to values, {found}"])
    return values


def _parse(text: str) -> Any:
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"a recipe has at most {_MAX_CHARACTERS:,} characters")
    return _unshared(yaml.load(text, Loader=_RecipeLoader), iter(range(_MAX_VALUES)))  # noqa: S506 - a SafeLoader


def _unshared(value: Any, left: Iterator[int]) -> Any:
    """The value with mappings and lists of its own: all aliases of an anchor are one object until here.

    Raises:
        RecursionError: an anchor that holds itself.
        ValueError: more values than `left` counts.
    """
    if next(left, None) is None:
        raise ValueError(f"a recipe has at most {_MAX_VALUES:,} values, aliases counted as often as they are used")
    if isinstance(value, dict):
        return {key: _unshared(inner, left) for key, inner in value.items()}
    return [_unshared(inner, left) for inner in value] if isinstance(value, list) else value


def _not_yaml(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{path}: not valid YAML: {_one_line(error)}"
    return f"{path}:{mark.line + 1}: not valid YAML: {getattr(error, 'problem', None) or _one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _merge(
    into: dict[str, Any], values: dict[str, Any], path: KeyPath, origin: str, origins: dict[KeyPath, str]
) -> None:
    """Mappings merge by key, everything else (lists too) is replaced."""
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, here, origin, origins)
        else:
            if key in into:
                _forget_below(here, origins)
            into[key] = value
            origins[here] = origin


def _forget_below(path: KeyPath, origins: dict[KeyPath, str]) -> None:
    for other in [other for other in origins if len(other) > len(path) and other[: len(path)] == path]:
        del origins[other]


# ---------------------------------------------------------------- overrides


def _apply_override(raw: RawRecipe, override: str) -> list[str]:
    """Sets one `key.path=value`; what is wrong with it."""
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        return [f"{COMMAND_LINE}: {override!r} is not of the form key.path=value"]
    try:
        value = _parse(text)
    except _NOT_YAML as error:
        reason = getattr(error, "problem", None) or _one_line(error)
        return [f"{COMMAND_LINE}: {key}: {text!r} is not a YAML value: {reason}"]
    problem = _set_at(raw, key, value)
    return [f"{COMMAND_LINE}: {key}: {problem}"] if problem else []


def _set_at(raw: RawRecipe, key: str, value: object) -> str | None:
    """What is wrong, if anything. Mappings that are missing on the way are made."""
    parts = key.split(".")
    path: list[str | int] = []
    here: Any = raw.values
    for number, part in enumerate(parts):
        problem = _not_inside(here, part, ".".join(parts[:number]))
        if problem:
            return problem
        step = int(part) if isinstance(here, list) else part
        path.append(step)
        last = number == len(parts) - 1
        if last or (isinstance(here, dict) and here.get(part) is None):
            here[step] = value if last else {}
            _forget_below(tuple(path), raw.origins)
            raw.origins[tuple(path)] = COMMAND_LINE
        here = here[step]
    return None


def _not_inside(here: Any, part: str, above: str) -> str | None:
    if isinstance(here, dict):
        return None
    if not isinstance(here, list):
        return f"{above} is {here!r}, which has no keys"
    if is_index(part) and int(part) < len(here):
        return None
    return f"{above} is a list of {len(here)}; {part!r} is not an index from 0 to {len(here) - 1}"
