"""Rows of a dataset on disk or on the hub, read with errors that name the file and the line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = dict[str, object]


class DatasetError(ValueError):
    """A dataset cannot be read; the message names the file, the line or column, and what was expected."""


def read_rows(
    name: str, *, split: str = "train", config: str | None = None, columns: Mapping[str, str] | None = None
) -> Sequence[Row]:
    """All rows of a .jsonl, .json (one list) or .parquet file, a folder that `datasets` reads, or a hub dataset.

    Args:
        name: path, or organisation/name on the hub.
        split: of a folder or hub dataset; a file has only one.
        config: of a folder or hub dataset that has several, as GSM8K has main and socratic; a file has none.
        columns: wanted name -> name in the data.

    Raises:
        DatasetError: missing, empty or malformed; or a column that does not exist.
    """
    path = Path(name).expanduser()
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}
    reader = readers.get(path.suffix)
    if reader and config is not None:
        raise DatasetError(f"{name}: a file has no configurations, config is {config!r}")
    rows: Sequence[Row] = reader(path) if reader else _read_with_datasets(name, split, config)
    if not len(rows):
        raise DatasetError(f"{name}: has no rows")
    return [_renamed(row, columns or {}, name) for row in rows]


def _read_jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    # Not splitlines: text in a JSON string may hold U+2028 and other ends of lines that are not those of the file.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DatasetError(f"{path}:{number}: a row is a JSON object, this is {type(row).__name__}")
        rows.append(row)
    return rows


def _read_json(path: Path) -> list[Row]:
    try:
        rows = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{path}: a .json file holds one list of objects; for one object a line name it .jsonl")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such file") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: not a parquet file: {error}") from None


def _read_with_datasets(name: str, split: str, config: str | None) -> Sequence[Row]:
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # whatever a damaged file makes a reader of another library raise
        told = " ".join(str(error).splitlines()[:2]) or type(error).__name__  # the second line may say what there is
        of = "" if config is None else f" of config {config!r}"
        raise DatasetError(f"{name}: `datasets` cannot load split {split!r}{of}: {told}") from None


def _renamed(row: Row, columns: Mapping[str, str], name: str) -> Row:
    for wanted, actual in columns.items():
        if actual not in row:
            raise DatasetError(f"{name}: has no column {actual!r} (for {wanted!r}); there are: {', '.join(row)}")
    moved = set(columns.values())
    return {key: value for key, value in row.items() if key not in moved} | {
        wanted: row[actual] for wanted, actual in columns.items()
    }
