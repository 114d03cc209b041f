"""A running OpenAI-compatible vLLM server as an engine, where weights do not change.

Requests carry token ids and the server answers with token ids and log-probs (vLLM's `return_token_ids`), so that a
trajectory is as exact as one of an engine of ours.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from rollouts.endpoint import EndpointSampler, EndpointSettings
from rollouts.engine import EngineStart, Generation, Paused, Request
from rollouts.sampler import SamplerUnusable, SamplingError
from rollouts.trajectory import FinishReason


class ServerEngine:
    """Implements `rollouts.engine.Engine` but for weights, which it does not take."""

    def __init__(self, settings: EndpointSettings) -> None:
        """`settings.url` goes up to and with /v1."""
        self._settings = settings

    def wait_ready(self) -> list[EngineStart]:
        """Returns when the server has told its models; nothing was started.

        Raises:
            SamplerUnusable: it does not answer, or has no model of that name.
        """
        settings = self._settings
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        try:
            response = httpx.get(f"{settings.url.rstrip('/')}/models", headers=headers, timeout=30.0)
            names = [model["id"] for model in response.raise_for_status().json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise SamplerUnusable(f"{settings.url}: no server answers as expected: {error}") from None
        if settings.model not in names:
            raise SamplerUnusable(f"{settings.url}: serves no model {settings.model!r}; it serves {', '.join(names)}")
        return []

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """See `Engine.generate`; a server repeats itself only as far as its batches do."""
        found = dict(self.stream(requests, seed=seed))
        return [found[index] for index in range(len(requests))]

    def stream(self, requests: Sequence[Request], *, seed: int) -> Iterator[tuple[int, Generation]]:
        """See `Engine.stream`.

        Raises:
            SamplingError: a request failed for good; the others are given up.
        """
        arrived: queue.SimpleQueue[tuple[int, Generation] | Exception] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._ask(requests, seed, arrived))
        thread = threading.Thread(target=_run, args=(loop, work), name="server", daemon=True)
        thread.start()
        try:
            for _ in requests:
                outcome = arrived.get()
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
        finally:
            loop.call_soon_threadsafe(work.cancel)
            thread.join()
            loop.close()

    async def _ask(
        self,
        requests: Sequence[Request],
        seed: int,
        arrived: queue.SimpleQueue[tuple[int, Generation] | Exception],
    ) -> None:
        sampler = EndpointSampler(self._settings)
        url = f"{self._settings.url.rstrip('/')}/completions"

        async def one(index: int) -> None:
            body = _body(requests[index], seed + index, self._settings.model)
            try:
                arrived.put((index, await sampler.post(url, body, lambda answer, _: _generation(answer))))
            except Exception as error:  # whatever it is, the stream raises it
                arrived.put(error)

        try:
            await asyncio.gather(*(one(index) for index in range(len(requests))))
            await asyncio.Event().wait()  # the stream cancels this when it has everything
        finally:
            await sampler.close()

    def pause(self) -> Paused:
        """A stage that pauses responses changes weights, which a server does not take."""
        raise NotImplementedError("responses of a server cannot be paused")

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        """See the head of this module."""
        raise NotImplementedError("a server keeps its weights")

    def sleep(self) -> None:
        """A server keeps its memory."""

    def fault_metrics(self) -> dict[str, float]:
        """None: a server looks after itself."""
        return {}


def _run(loop: asyncio.AbstractEventLoop, work: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(work)
    except asyncio.CancelledError:
        loop.run_until_complete(loop.shutdown_asyncgens())


def _body(request: Request, seed: int, model: str) -> dict[str, Any]:
    sampling = request.remaining
    body: dict[str, Any] = {
        "model": model,
        "prompt": request.token_ids.tolist(),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
        "logprobs": 0,
        "return_token_ids": True,
    }
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    return body | ({"stop": list(sampling.stop)} if sampling.stop else {})


def _generation(answer: Mapping[str, Any]) -> Generation:
    """What the server answered.

    Raises:
        SamplingError: it gives no token ids or log-probs.
    """
    try:
        choice = answer["choices"][0]
        token_ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    except (KeyError, IndexError, TypeError):
        raise SamplingError(
            f"the server gives no token ids and log-probs, which vLLM's does: {str(answer)[:200]}"
        ) from None
    reason = FinishReason.LENGTH if choice["finish_reason"] == "length" else FinishReason.STOP
    return Generation(
        np.asarray(token_ids, np.int64),
        np.asarray(logprobs, np.float32),
        choice["text"],
        reason,
        np.zeros(len(token_ids), np.int32),
    )
