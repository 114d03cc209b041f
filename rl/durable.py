"""Files that survive a crash: written aside, flushed to disk, renamed; folders with checksums; logs line by line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_FORMAT = 1
# What a process that was killed can leave beside a file or folder NAME: .NAME.writing and so on.
_WRITING, _OLD, _REMOVING = ".writing", ".old", ".removing"
DAMAGED = ".damaged"
"""end of the name of what was found damaged, and is kept to be looked at"""


# ---------------------------------------------------------------- single files


def write_text(path: Path, text: str) -> None:
    """Writes a file aside and renames it, so that readers see the old or the new one, never half."""
    aside = _beside(path, _WRITING)
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)  # a full disk gets its space back
        raise
    _flush(path.parent)


def checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- folders


@contextlib.contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes its name only when the block ends well, so a folder of that name is complete.

    It gets a manifest with size and SHA-256 of each file; see `damage`. What had the name before is gone then.
    """
    aside = _beside(path, _WRITING)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        seal(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if path.exists():
        path.replace(_beside(path, _OLD))
    aside.replace(path)
    _flush(path.parent)
    shutil.rmtree(_beside(path, _OLD), ignore_errors=True)


def seal(folder: Path) -> None:
    """Writes the manifest of a folder that is filled, and flushes everything to the disk."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST]
    sums = {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": checksum(path)} for path in files}
    (folder / MANIFEST).write_text(json.dumps({"format": _FORMAT, "files": sums}, indent=1))
    for path in [*files, folder / MANIFEST, *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _flush(path)


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that was written aside, named by file; None where it is as it was written."""
    if not folder.is_dir():
        return "it is not there"
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        problems = [(name, _file_damage(folder / name, **sums)) for name, sums in files.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST}: cannot be read ({type(error).__name__})"
    return next((f"{name}: {problem}" for name, problem in problems if problem), None)


def _file_damage(path: Path, *, bytes: int, sha256: str) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != bytes:
        return f"has {size:,} bytes instead of {bytes:,}"
    return None if checksum(path) == sha256 else "its content has changed since it was written"


def set_aside_damaged(path: Path) -> Path:
    """Gives a damaged file or folder another name, under which nothing looks for it; that name."""
    kept = path.with_name(path.name + DAMAGED)
    remove(kept)
    path.replace(kept)
    return kept


def remove(path: Path) -> None:
    """Removes a file or folder, if there is one; a folder is never seen half removed."""
    if path.is_dir():
        removing = _beside(path, _REMOVING)
        shutil.rmtree(removing, ignore_errors=True)
        path.replace(removing)
        shutil.rmtree(removing)
    else:
        path.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> list[Path]:
    """Ends what a killed process had begun to write, rename or remove anywhere below; the names it cleared away."""
    cleared: list[Path] = []
    for path in sorted(folder.rglob(".*")):
        ending = path.suffix
        if ending not in (_WRITING, _OLD, _REMOVING) or not path.exists():
            continue
        whole = path.with_name(path.name[1 : -len(ending)])
        if ending == _OLD and not whole.exists():  # killed between the two renames: the old one is good still
            path.replace(whole)
            continue
        cleared.append(path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return cleared


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}{ending}")


def _flush(path: Path) -> None:
    """Waits until a file's content or a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- logs of JSON lines


def append_lines(path: Path, rows: Iterator[str] | list[str]) -> None:
    """Appends lines in one write, so that a kill leaves all or a cut last one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        rest = memoryview("".join(row + "\n" for row in rows).encode("utf-8", "backslashreplace"))
        while rest:
            rest = rest[file.write(rest) :]


def flush_to_disk(path: Path) -> None:
    """Waits until everything that was appended is on the disk; nothing where there is no such file."""
    if path.exists():
        _flush(path)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines only: a crash can leave the last one cut, also within a character."""
    for _, _, row in _parsed_lines(path):
        if row is not None:
            yield row


def mend_log(path: Path, keep: Callable[[dict[str, Any]], bool] = lambda row: True) -> list[int]:
    """Drops the lines that `keep` refuses, and those that are no JSON object.

    Returns:
        Numbers of the lines that are damaged, from 1. They are kept in `NAME.damaged`, except for a last line
        without its end, which is what a killed process leaves.
    """
    if not path.exists():
        return []
    broken: list[tuple[int, bytes]] = []
    dropped = False
    for number, line, row in _parsed_lines(path):
        if row is None:
            broken.append((number, line))
        else:
            dropped = dropped or not keep(row) or not line.endswith(b"\n")  # the next line must not join this one
    if broken or dropped:
        lines = (line for _, line, row in _parsed_lines(path) if row is not None and keep(row))
        _replace_lines(path, lines)
    damaged = [(number, line) for number, line in broken if line.endswith(b"\n")]
    if damaged:
        with path.with_name(path.name + DAMAGED).open("ab") as file:
            file.writelines(line for _, line in damaged)
    return [number for number, _ in damaged]


def _replace_lines(path: Path, lines: Iterator[bytes]) -> None:
    aside = _beside(path, _WRITING)
    with aside.open("wb") as file:
        file.writelines(line.rstrip(b"\n") + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _parsed_lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """(number, line with its end, object or None where it is none) of every line that is not empty."""
    with path.open("rb") as file:  # in bytes, lines end at \n alone; text in JSON may hold U+2028
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line, _json_object(line)


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
