"""A reward that another machine computes, over HTTP.

The contract: POST of

    {"rows": [{"prompt": ..., "completion": ..., "columns": {...}}, ...]}

answered, with status 200, by

    {"rewards": [1.0, null, ...]}            one number or null (does not apply) per row, in order

Refused connections, time-outs and the statuses 429, 500, 502, 503 and 504 are tried again; any other answer is an
error with the server's text in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

Post = Callable[[Mapping[str, Any]], Awaitable[Any]]

_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class RemoteRewardError(RuntimeError):
    """The remote reward did not answer as it should; the message names the address and what came instead."""


def http_reward(
    *,
    url: str,
    timeout_s: float = 30.0,
    attempts: int = 4,
    backoff_s: float = 0.5,
    max_concurrent: int = 8,
    rows_per_request: int = 16,
    columns: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> HttpReward:
    """A reward function that asks the endpoint at `url`.

    Args:
        timeout_s: of one request, in seconds. The pool's timeout must cover all attempts.
        attempts: requests per batch of rows at most.
        backoff_s: pause before the second attempt; it doubles, with up to half as much again at random.
        max_concurrent: requests under way at once in one worker.
        rows_per_request: completions in one request.
        columns: names of the dataset columns to send; no others leave this machine.
        headers: sent with every request. $NAME in a value stands for an environment variable: keys do not belong in
            recipes.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url {url!r} must begin with http:// or https://")
    if min(timeout_s, attempts, max_concurrent, rows_per_request) <= 0 or backoff_s < 0:
        raise ValueError("timeout_s, attempts, max_concurrent and rows_per_request must be positive")
    filled = {name: os.path.expandvars(value) for name, value in (headers or {}).items()}
    poster = JsonPoster(url, timeout_s, attempts, backoff_s, max_concurrent, filled)
    return HttpReward(poster, rows_per_request, tuple(columns))


class HttpReward:
    """What http_reward returns: an asynchronous reward function."""

    __name__ = "http"

    def __init__(self, poster: JsonPoster, rows_per_request: int, columns: tuple[str, ...]) -> None:
        self._poster = poster
        self._rows_per_request = rows_per_request
        self.required_columns = frozenset(columns)

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        sent = [{name: columns[name][i] for name in self.required_columns} for i in range(len(completions))]
        rows = [
            {"prompt": prompt, "completion": completion, "columns": own}
            for prompt, completion, own in zip(prompts, completions, sent, strict=True)
        ]
        step = self._rows_per_request
        async with self._poster.session() as post:
            parts = await asyncio.gather(*(self._ask(post, rows[i : i + step]) for i in range(0, len(rows), step)))
        return [reward for part in parts for reward in part]

    async def _ask(self, post: Post, rows: list[dict[str, Any]]) -> list[float | None]:
        answer = await post({"rows": rows})
        rewards = answer.get("rewards") if isinstance(answer, dict) else None
        if not isinstance(rewards, list) or len(rewards) != len(rows):
            raise RemoteRewardError(
                f"{self._poster.url}: expected {len(rows)} rewards, got {_excerpt(json.dumps(answer))}"
            )
        return [_check_reward(self._poster.url, reward) for reward in rewards]


class JsonPoster:
    """Posts JSON with a limit on concurrency, and again after a pause when the server is busy."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        attempts: int,
        backoff_s: float,
        max_concurrent: int,
        headers: Mapping[str, str],
    ) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._max_concurrent = max_concurrent
        self._headers = headers

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Post]:
        """A function that posts a body and returns the decoded answer, while connections are open.

        It raises RemoteRewardError after the last attempt, or at once for an answer that another attempt cannot mend.
        """
        import httpx

        slots = asyncio.Semaphore(self._max_concurrent)
        # trust_env=False: a proxy of the environment must not see responses, nor stand before a local server
        async with httpx.AsyncClient(timeout=self._timeout_s, headers=dict(self._headers), trust_env=False) as client:

            async def post(body: Mapping[str, Any]) -> Any:
                async with slots:
                    return await self._try(client, body)

            yield post

    async def _try(self, client: Any, body: Mapping[str, Any]) -> Any:
        problem: str | None = None
        for attempt in range(1, self._attempts + 1):
            answer, problem = await self._post(client, body)
            if problem is None:
                return answer
            if attempt < self._attempts:
                await asyncio.sleep(self._backoff_s * 2 ** (attempt - 1) * random.uniform(1.0, 1.5))
        raise RemoteRewardError(f"{self.url}: gave up after {self._attempts} attempts: {problem}")

    async def _post(self, client: Any, body: Mapping[str, Any]) -> tuple[Any, str | None]:
        """(answer, None), or (None, what was wrong) when another attempt may help."""
        import httpx

        try:
            response = await client.post(self.url, json=body)
        except httpx.TransportError as error:
            return None, f"{type(error).__name__}: {error}"
        if response.status_code in _TRY_AGAIN:
            return None, f"status {response.status_code}: {_excerpt(response.text)}"
        if response.status_code != 200:
            raise RemoteRewardError(f"{self.url}: status {response.status_code}: {_excerpt(response.text)}")
        try:
            return response.json(), None
        except ValueError:
            raise RemoteRewardError(f"{self.url}: the answer is not JSON: {_excerpt(response.text)}") from None


def _check_reward(url: str, reward: Any) -> float | None:
    if reward is None:
        return None
    if isinstance(reward, bool) or not isinstance(reward, (int, float)):
        raise RemoteRewardError(f"{url}: {_excerpt(json.dumps(reward))} is neither a number nor null")
    return float(reward)


def _excerpt(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
