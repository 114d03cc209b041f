"""Started prompts in a checkpoint: JSON, which cannot run code of whoever wrote it."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl.errors import RunFailed
from rollouts.collect import StartedPrompt, tokenized
from rollouts.engine import Begun, Generation
from rollouts.processing import Processing
from rollouts.trajectory import FinishReason, Prompt

# What columns of a dataset may hold beside JSON, by the name under which it is stored.
_TYPES: Mapping[str, tuple[type, Callable[[Any], object], Callable[[Any], object]]] = {
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
    "array": (np.ndarray, lambda value: [value.dtype.str, value.tolist()], lambda pair: np.array(pair[1], pair[0])),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
}
_TAG = "stored as"


def packed(carried: Sequence[StartedPrompt]) -> str:
    """Started prompts as text for a checkpoint, "" for none. Token ids and pixels of prompts are made again.

    Raises:
        RunFailed: a column holds something else than JSON, bytes, times, decimals and arrays of numbers.
    """
    return json.dumps([_as_json(one) for one in carried]) if carried else ""


def unpacked(text: str, tokenizer: Processing) -> tuple[StartedPrompt, ...]:
    """What `packed` was given."""
    return tuple(_started(one, tokenizer) for one in json.loads(text)) if text else ()


def _as_json(started: StartedPrompt) -> dict[str, object]:
    prompt = started.prompt.prompt
    return {
        "prompt_id": prompt.prompt_id,
        "content": prompt.content,
        "columns": {name: _column(name, value) for name, value in prompt.columns.items()},
        "origin": prompt.origin,
        "reward_names": prompt.reward_names,
        "finished": [
            [sample, _tokens(own), own.text, own.finish_reason] for sample, own in started.finished.items()
        ],
        "begun": [[sample, _tokens(own)] for sample, own in started.begun.items()],
    }


def _started(stored: Mapping[str, Any], tokenizer: Processing) -> StartedPrompt:
    columns = {name: _value(value) for name, value in stored["columns"].items()}
    names = tuple(stored["reward_names"])
    prompt = Prompt(stored["prompt_id"], stored["content"], columns, stored["origin"], names)
    finished: dict[int, Generation] = {}
    for sample, tokens, text, reason in stored["finished"]:
        token_ids, logprobs, versions = _arrays(tokens)
        finished[sample] = Generation(token_ids, logprobs, text, FinishReason(reason), versions)
    begun = {sample: Begun(*_arrays(tokens)) for sample, tokens in stored["begun"]}
    return StartedPrompt(tokenized(tokenizer, prompt), finished, begun)


def _tokens(own: Generation | Begun) -> list[list[float]]:
    # A float32 is a float64 too, so its shortest decimal form gives it back bit for bit.
    return [own.token_ids.tolist(), own.logprobs.tolist(), own.versions.tolist()]


def _arrays(tokens: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int32]]:
    token_ids, logprobs, versions = tokens
    return np.array(token_ids, np.int64), np.array(logprobs, np.float32), np.array(versions, np.int32)


def _column(name: str, value: object) -> object:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        items = [[_column(name, key), _column(name, own)] for key, own in value.items()]
        return {_TAG: "mapping", "value": items}
    if isinstance(value, list | tuple):
        return [_column(name, own) for own in value]
    if isinstance(value, np.generic):
        return _column(name, value.item())
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        return _column(name, value.tolist())
    for kind, (known, store, _) in _TYPES.items():
        if isinstance(value, known):
            return {_TAG: kind, "value": store(value)}
    raise RunFailed(
        f"long_tail carries a prompt over whose column {name!r} holds a {type(value).__name__}, which a checkpoint "
        "cannot keep; leave the column out, or drop the prompts (long_tail.rest: drop)"
    )


def _value(stored: Any) -> object:
    if isinstance(stored, list):
        return [_value(own) for own in stored]
    if not isinstance(stored, dict):
        return stored
    if stored[_TAG] == "mapping":
        return {_value(key): _value(own) for key, own in stored["value"]}
    return _TYPES[stored[_TAG]][2](stored["value"])
