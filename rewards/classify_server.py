"""A sequence classifier behind vLLM's `POST /classify`.

Sent are token ids, so that the server reads exactly what a local model would:

    {"model": "name", "input": [[1, 2, 3], ...], "use_activation": false, "add_special_tokens": false}

Answered, with status 200, is one raw score per row:

    {"data": [{"index": 0, "probs": [1.25], ...}, ...]}

Start such a server with: vllm serve FOLDER --runner pooling --served-model-name name
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rewards.http import JsonPoster, Post, RemoteRewardError
from rewards.sequence_scorer import length_buckets, load_tokenizer


class ServerScorer:
    """Asks the server; the tokenizer is here.

    Args:
        url: base address of the server, such as "http://localhost:8000".
        name: the model's name on the server.
        tokenizer_path: directory of the model or of its tokenizer alone.
        batch_tokens: padded tokens of one request at most.
        timeout_s, attempts, max_concurrent: of the requests, see rewards.http.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        tokenizer_path: str,
        batch_tokens: int,
        timeout_s: float = 60.0,
        attempts: int = 4,
        max_concurrent: int = 8,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"preference reward: url {url!r} must begin with http:// or https://")
        self.tokenizer = load_tokenizer(tokenizer_path)
        self.max_length: int | None = None  # the server refuses what it cannot read
        self._name = name
        self._batch_tokens = batch_tokens
        self._poster = JsonPoster(url.rstrip("/") + "/classify", timeout_s, attempts, 0.5, max_concurrent, {})

    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The server's score of each row, in order.

        Raises:
            RemoteRewardError: the server did not answer, or not with one score per row.
        """
        # in a thread of its own: the caller may run inside an event loop
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._score(rows)).result()

    async def _score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        scores = [0.0] * len(rows)
        batches = list(length_buckets([len(row) for row in rows], self._batch_tokens))
        async with self._poster.session() as post:
            answers = await asyncio.gather(*(self._ask(post, [list(rows[i]) for i in batch]) for batch in batches))
        for batch, values in zip(batches, answers):
            for i, value in zip(batch, values):
                scores[i] = value
        return scores

    async def _ask(self, post: Post, rows: list[list[int]]) -> list[float]:
        answer = await post(
            {"model": self._name, "input": rows, "use_activation": False, "add_special_tokens": False}
        )
        data = answer.get("data") if isinstance(answer, dict) else None
        scores: dict[int, float] = {}
        for item in data if isinstance(data, list) else []:
            index, score = _score_of(item)
            if score is not None:
                scores[index] = score
        if sorted(scores) != list(range(len(rows))):
            raise RemoteRewardError(
                f"{self._poster.url}: expected one score for each of {len(rows)} rows, got {str(answer)[:300]}"
            )
        return [scores[i] for i in range(len(rows))]


def _score_of(item: Any) -> tuple[int, float | None]:
    """(row, score), or None where the item is no score of a classifier with one output."""
    probs = item.get("probs") if isinstance(item, dict) else None
    index = item.get("index") if isinstance(item, dict) else None
    if not isinstance(index, int) or not isinstance(probs, list) or len(probs) != 1:
        return -1, None
    value = probs[0]
    return index, float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
