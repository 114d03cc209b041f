"""What every reward does with its inputs: the text of a completion, one value per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def completion_text(completion: Any) -> str:
    """The text that the model wrote: a string as it is, of a message list the assistant's turns.

    A message's content may be a string or a list of parts; images and tool results are not the model's words.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, dict):
        return _content_text(completion.get("content"))
    if isinstance(completion, Sequence):
        messages = [m for m in completion if isinstance(m, dict) and m.get("role", "assistant") == "assistant"]
        return "\n".join(filter(None, (_content_text(m.get("content")) for m in messages)))
    return ""


def per_row(name: str, value: Any, num_rows: int, *, nested: bool = False) -> list[Any]:
    """A column as it is, or one value for every row.

    `nested` is for values that are lists themselves, such as a box: then only a list of lists (or of None) is a
    column.

    Raises:
        ValueError: a column whose length is not the number of completions.
    """
    is_sequence = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    is_column = is_sequence and (not nested or all(v is None or hasattr(v, "__len__") for v in value))
    if not is_column:
        return [value] * num_rows
    if len(value) != num_rows:
        raise ValueError(f"column {name!r} has {len(value)} entries for {num_rows} completions")
    return list(value)


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return ""
