"""The files that a run reads, by content: a run that continues must find the same rows and the same start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rl.durable import checksum

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def fingerprints(recipe: Mapping[str, Any], *, skip: frozenset[str] = frozenset()) -> dict[str, str]:
    """SHA-256 of each local file that a resolved recipe (as JSON has it) names, by the key that names it.

    A model's weights count by name and size, its other files by content. What is on a hub is left out: a hub has its
    own versions.

    Args:
        skip: stages whose inputs no longer matter.
    """
    stages = {name: stage for name, stage in recipe["stages"].items() if name not in skip}
    named = {**recipe, "stages": stages}
    found: dict[str, str] = {}
    for key, kind, text in _paths(named, ""):
        path = Path(text).expanduser()
        if kind == "model" and path.is_dir():
            found[key] = _of_model(path)
        elif kind == "dataset" and path.is_dir():
            found[key] = _of_names_and_sizes(path)
        elif path.is_file():
            found[key] = checksum(path)
    return found


def _paths(value: Any, key: str) -> Iterator[tuple[str, str, str]]:
    """(key, what it is, path) of everything that can be a local path."""
    if isinstance(value, dict):
        for name, inner in value.items():
            here = f"{key}.{name}" if key else name
            if here == "model.path" and isinstance(inner, str):
                yield here, "model", inner
            elif name == "dataset" and isinstance(inner, str):
                yield here, "dataset", inner
            elif name == "fn" and isinstance(inner, str) and ".py:" in inner:
                yield here, "reward", inner.rpartition(":")[0]
            else:
                yield from _paths(inner, here)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, f"{key}.{index}")


def _of_model(folder: Path) -> str:
    parts = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            parts.append(f"{path.name} {path.stat().st_size if path.suffix in _WEIGHTS else checksum(path)}")
    return "; ".join(parts)


def _of_names_and_sizes(folder: Path) -> str:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return "; ".join(f"{path.relative_to(folder)} {path.stat().st_size}" for path in files)


def changed_inputs(stored: Mapping[str, str], now: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(keys whose file has other content than when the run began, those of reward functions, which may be mended)."""
    changed = [key for key, value in now.items() if stored.get(key, value) != value]
    return [key for key in changed if not key.endswith(".fn")], [key for key in changed if key.endswith(".fn")]
