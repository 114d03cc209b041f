"""Any `Engine` behind the asynchronous view: what waits while a batch runs is the next batch.

For engines without continuous batching, such as hf_engine.py, and for tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from rollouts.collect import encode_content, encode_request
from rollouts.engine import Generates, Generation, Request, Sampling
from rollouts.processing import Processing
from rollouts.rows import DatasetError
from rollouts.sampler import Reply, SamplerUnusable, SamplingError
from rollouts.trajectory import PromptContent


@dataclass(frozen=True)
class _Waiting:
    request: Request
    seed: int
    answer: asyncio.Future[Generation]


class BatchSampler:
    """Implements `rollouts.sampler.Sampler`.

    An engine takes one seed per batch, so a response depends on which requests came together: sampling is seeded,
    but not reproducible request by request. `stream` yields the response in one piece.
    """

    def __init__(self, engine: Generates, tokenizer: Processing, *, max_model_len: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._waiting: list[_Waiting] = []
        self._runner: asyncio.Task[None] | None = None

    async def sample(self, content: PromptContent, sampling: Sampling, *, seed: int) -> Reply:
        """See `Sampler.sample`."""
        start = time.monotonic()
        try:
            ids, images = encode_request(self._tokenizer, content)
        except DatasetError as error:  # of an image
            raise SamplingError(str(error)) from None
        if len(ids) >= self._max_model_len:
            raise SamplingError(f"the prompt has {len(ids)} tokens; the context holds {self._max_model_len}")
        answer: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(Request(ids, sampling, images), seed, answer))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        generation = await answer
        seconds = time.monotonic() - start
        return Reply(generation.text, len(ids), len(generation.token_ids), generation.finish_reason, seconds)

    async def stream(self, content: PromptContent, sampling: Sampling, *, seed: int) -> AsyncIterator[str | Reply]:
        """See `Sampler.stream`."""
        reply = await self.sample(content, sampling, seed=seed)
        if reply.text:
            yield reply.text
        yield reply

    def room(self, content: PromptContent) -> int | None:
        """See `Sampler.room`."""
        return self._max_model_len - len(encode_content(self._tokenizer, content))

    async def close(self) -> None:
        """See `Sampler.close`; waits for the batch that runs."""
        if self._runner is not None:
            await self._runner

    async def _run(self) -> None:
        await asyncio.sleep(0)  # what is asked in the same moment comes along
        while self._waiting:
            batch, self._waiting = [one for one in self._waiting if not one.answer.done()], []
            if batch:
                await self._answer(batch)

    async def _answer(self, batch: list[_Waiting]) -> None:
        requests = [one.request for one in batch]
        try:
            generations = await asyncio.to_thread(self._engine.generate, requests, seed=batch[0].seed)
        except Exception as error:  # whatever broke the engine, every request must hear of it
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(SamplerUnusable(f"the engine failed: {type(error).__name__}: {error}"))
            return
        for one, generation in zip(batch, generations):
            if not one.answer.done():
                one.answer.set_result(generation)
