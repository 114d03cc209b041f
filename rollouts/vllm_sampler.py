"""vLLM in this process, shared by all requests of an event loop.

One thread owns the engine: it takes requests and cancellations from a queue, steps the engine, and hands back what
is done. So a request joins the running batch at the next step, whichever problem or round it belongs to.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollouts.collect import encode_request
from rollouts.engine import Request, Sampling
from rollouts.processing import Processing
from rollouts.rows import DatasetError
from rollouts.sampler import Reply, SamplerUnusable, SamplingError
from rollouts.trajectory import FinishReason, PromptContent, PromptImages
from rollouts.vllm_engine import VllmSettings, engine_arguments, engine_prompt, sampling_parameters


@dataclass(frozen=True)
class _Waiting:
    """Where the outputs of one request go."""

    loop: asyncio.AbstractEventLoop
    outputs: asyncio.Queue[Any]
    """vLLM outputs, at the end one that is finished, or an exception"""

    def put(self, output: Any) -> None:
        """From the engine's thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.outputs.put_nowait, output)


@dataclass(frozen=True)
class _Encoded:
    """A prompt as tokens."""

    ids: NDArray[np.int64]
    images: PromptImages | None
    pictures: dict[int, dict[str, Any]]
    """what `engine_prompt` has decoded of them"""


class VllmSampler:
    """Implements `rollouts.sampler.Sampler`. The environment of vllm_engine.py must be set before."""

    def __init__(self, settings: VllmSettings, tokenizer: Processing) -> None:
        self.num_steps = 0
        """forward passes so far: sampled tokens per step say how full the engine was"""
        self._tokenizer = tokenizer
        self._max_model_len = settings.max_model_len
        self._numbers = itertools.count()
        self._waiting: dict[str, _Waiting] = {}
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._last: tuple[PromptContent, _Encoded] | None = None
        self._failure: str | None = None
        self._closing = False
        self._engine: Any = None
        self._started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._own_engine, args=(settings,), name="vllm", daemon=True)
        self._thread.start()
        error = self._started.get()
        if error is not None:
            raise error

    # ------------------------------------------------------------ the event loop's side

    async def sample(self, content: PromptContent, sampling: Sampling, *, seed: int) -> Reply:
        """See `Sampler.sample`."""
        async for piece in self._outputs(content, sampling, seed, streamed=False):
            if isinstance(piece, Reply):
                return piece
        raise AssertionError("a request ends with its reply")

    def stream(self, content: PromptContent, sampling: Sampling, *, seed: int) -> AsyncIterator[str | Reply]:
        """See `Sampler.stream`."""
        return self._outputs(content, sampling, seed, streamed=True)

    def room(self, content: PromptContent) -> int | None:
        """See `Sampler.room`."""
        return self._max_model_len - len(self._encoded(content).ids)

    def _encoded(self, content: PromptContent) -> _Encoded:
        """The trajectories of a round share their prompt, so the last one is kept.

        Raises:
            SamplingError: an image cannot be read, or the model takes none.
        """
        if self._last is None or self._last[0] != content:
            try:
                self._last = content, _Encoded(*encode_request(self._tokenizer, content), {})
            except DatasetError as error:
                raise SamplingError(str(error)) from None
        return self._last[1]

    async def close(self) -> None:
        """See `Sampler.close`."""
        self._closing = True
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _outputs(
        self, content: PromptContent, sampling: Sampling, seed: int, *, streamed: bool
    ) -> AsyncIterator[str | Reply]:
        if self._closing:
            raise SamplerUnusable("the engine is closed")
        start = time.monotonic()
        request_id = str(next(self._numbers))
        encoded = self._encoded(content)
        prompt = engine_prompt(Request(encoded.ids, sampling, encoded.images), encoded.pictures)
        waiting = _Waiting(asyncio.get_running_loop(), asyncio.Queue())
        parameters = _parameters(sampling, seed, streamed=streamed)
        self._commands.put(lambda: self._add(request_id, prompt, parameters, waiting))
        text, num_tokens, finished = "", 0, False
        try:
            while not finished:
                output = await waiting.outputs.get()
                if isinstance(output, Exception):
                    raise output
                completion = output.outputs[0]
                text += completion.text
                num_tokens += len(completion.token_ids)
                finished = output.finished
                if streamed and completion.text:
                    yield completion.text
            reason = FinishReason.LENGTH if completion.finish_reason == "length" else FinishReason.STOP
            yield Reply(text, len(encoded.ids), num_tokens, reason, time.monotonic() - start)
        finally:
            if not finished:
                self._commands.put(lambda: self._abort(request_id))

    # ------------------------------------------------------------ the thread's side

    def _own_engine(self, settings: VllmSettings) -> None:
        try:
            from vllm import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine

            arguments = engine_arguments(settings) | {"disable_log_stats": True, "use_tqdm_on_load": False}
            if not settings.on_gpu:
                # A prompt computed in parts makes vLLM rewind the request's generator, which a CPU's cannot.
                tokens_at_once = max(settings.max_model_len, 8192)
                arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": tokens_at_once}
            self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        except BaseException as error:  # whatever it is, the constructor raises it
            self._started.put(error)
            return
        self._started.put(None)
        try:
            while self._obey():
                self.num_steps += 1
                for output in self._engine.step():
                    self._deliver(output)
            self._failure = "the engine is closed"
        except Exception as error:  # a broken engine: every request must hear of it
            self._failure = f"the engine died: {type(error).__name__}: {error}"
        for waiting in self._waiting.values():
            waiting.put(SamplerUnusable(self._failure))
        if not self._closing:
            while (command := self._commands.get()) is not None:
                command()  # which tells a new request of the failure

    def _obey(self) -> bool:
        """Carries out what is asked, waiting while there is nothing else to do; False: end."""
        while True:
            try:
                command = self._commands.get(block=not self._engine.has_unfinished_requests())
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            if self._commands.empty() and self._engine.has_unfinished_requests():
                return True

    def _add(self, request_id: str, prompt: Any, parameters: Any, waiting: _Waiting) -> None:
        from vllm.exceptions import VLLMClientError

        if self._failure is not None:
            waiting.put(SamplerUnusable(self._failure))
            return
        try:
            self._engine.add_request(request_id, prompt, parameters)
        except (ValueError, VLLMClientError) as error:  # of this request: a prompt that is too long, say
            waiting.put(SamplingError(str(error)))
        else:
            self._waiting[request_id] = waiting

    def _abort(self, request_id: str) -> None:
        if self._waiting.pop(request_id, None) is not None and self._failure is None:
            self._engine.abort_request([request_id])

    def _deliver(self, output: Any) -> None:
        waiting = self._waiting.get(output.request_id)
        if waiting is not None:
            if output.finished:  # before the event loop can hear of it
                del self._waiting[output.request_id]
            waiting.put(output)


def _parameters(sampling: Sampling, seed: int, *, streamed: bool) -> Any:
    from vllm.sampling_params import RequestOutputKind

    return sampling_parameters(
        sampling,
        seed=seed if sampling.temperature > 0 else None,
        output_kind=RequestOutputKind.DELTA if streamed else RequestOutputKind.FINAL_ONLY,
    )
