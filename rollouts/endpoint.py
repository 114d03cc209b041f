"""An OpenAI-compatible server as a sampler: chat completions for conversations, completions for plain text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from rollouts.chat_parts import as_openai
from rollouts.engine import Sampling
from rollouts.rows import DatasetError
from rollouts.sampler import Reply, SamplerUnusable, SamplingError
from rollouts.token_estimate import TokenEstimate
from rollouts.trajectory import FinishReason, PromptContent, images_of

T = TypeVar("T")
_WORTH_A_RETRY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_HOPELESS = frozenset({401, 403, 404})
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class EndpointSettings:
    """Where requests go and how hard they are tried."""

    url: str
    """up to and with /v1"""
    model: str
    api_key: str | None = None
    concurrency: int = 64
    """requests under way at the same time; the others wait"""
    timeout_s: float = 3600.0
    """without a byte from the server"""
    retries: int = 5
    """after the first try, with growing pauses between"""
    first_pause_s: float = 1.0
    context: int | None = None
    """tokens of prompt and response together that the server holds; None: unknown, and no message is left out"""


class _Again(Exception):
    """This try failed, another may not; after `pause_s` seconds where the server said so."""

    def __init__(self, message: str, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class EndpointSampler:
    """Implements `rollouts.sampler.Sampler`. A request that fails for good raises; its text is never made up."""

    def __init__(self, settings: EndpointSettings, *, on_retry: Callable[[str], None] = lambda message: None) -> None:
        """`on_retry`: told why, before a request is sent again."""
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._settings = settings
        self._on_retry = on_retry
        self._estimate = TokenEstimate()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(settings.timeout_s, connect=min(30.0, settings.timeout_s), pool=None),
            limits=httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency),
        )

    async def sample(self, content: PromptContent, sampling: Sampling, *, seed: int) -> Reply:
        """See `Sampler.sample`."""
        start = time.monotonic()
        body = await _body(content, sampling, seed, self._settings.model)

        def read(answer: Mapping[str, Any], attempts: int) -> Reply:
            reply = _reply(answer, seconds=time.monotonic() - start, attempts=attempts)
            self._estimate.learn(content, reply)
            return reply

        return await self.post(self._url(content), body, read)

    async def post(self, url: str, body: Mapping[str, Any], read: Callable[[Mapping[str, Any], int], T]) -> T:
        """What `read` makes of the answer and of the number of tries, with as many tries as are allowed.

        Raises:
            SamplingError: there is no answer.
        """
        for attempt in range(self._settings.retries + 1):
            try:
                async with self._slots:
                    response = await self._client.post(url, json=body)
                return read(_checked(response), attempt + 1)
            except (_Again, httpx.TransportError) as error:
                await self._pause(error, attempt)
        raise AssertionError("the last try raises")

    async def stream(self, content: PromptContent, sampling: Sampling, *, seed: int) -> AsyncIterator[str | Reply]:
        """See `Sampler.stream`. A stream that broke off after its first piece is not tried again."""
        body = await _body(content, sampling, seed, self._settings.model)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        start = time.monotonic()
        for attempt in range(self._settings.retries + 1):
            gathered = _Gathered()
            try:
                async with self._slots, self._client.stream("POST", self._url(content), json=body) as response:
                    if response.status_code != 200:
                        await response.aread()
                        _checked(response)
                    async for event in _events(response):
                        piece = gathered.add(event)
                        if piece:
                            yield piece
                gathered.check_end()
                reply = gathered.reply(seconds=time.monotonic() - start, attempts=attempt + 1)
                self._estimate.learn(content, reply)
                yield reply
                return
            except (_Again, httpx.TransportError) as error:
                if gathered.text:
                    raise SamplingError(f"the stream broke off: {_told(error)}") from None
                await self._pause(error, attempt)

    def room(self, content: PromptContent) -> int | None:
        """See `Sampler.room`: by the context that the settings name, and tokens as the replies so far let expect."""
        if self._settings.context is None:
            return None
        return self._settings.context - self._estimate.tokens(content)

    async def close(self) -> None:
        """See `Sampler.close`."""
        await self._client.aclose()

    def _url(self, content: PromptContent) -> str:
        base = self._settings.url.rstrip("/").removesuffix("/chat/completions")
        return f"{base}/completions" if isinstance(content, str) else f"{base}/chat/completions"

    async def _pause(self, error: Exception, attempt: int) -> None:
        """Waits before the next try.

        Raises:
            SamplingError: this was the last one.
        """
        if attempt == self._settings.retries:
            raise SamplingError(f"{self._settings.url}: {_told(error)} (tried {attempt + 1} times)") from None
        pause = min(self._settings.first_pause_s * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
        if isinstance(error, _Again) and error.pause_s is not None:
            pause = min(error.pause_s, _LONGEST_PAUSE_S)
        self._on_retry(f"{_told(error)}; trying again in {pause:.1f} s")
        await asyncio.sleep(pause)


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__  # some of httpx's errors have no text


async def _body(content: PromptContent, sampling: Sampling, seed: int, model: str) -> dict[str, Any]:
    """The request.

    Raises:
        SamplingError: an image cannot be read.
    """
    body: dict[str, Any] = {"model": model, "max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
    body |= {"top_p": sampling.top_p, "seed": seed}
    if sampling.top_k:
        body["top_k"] = sampling.top_k  # not OpenAI's, but vLLM, SGLang and llama.cpp know it
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if isinstance(content, str):
        return body | {"prompt": content}
    if not images_of(content):
        return body | {"messages": content}
    try:
        return body | {"messages": await asyncio.to_thread(as_openai, content)}
    except DatasetError as error:
        raise SamplingError(str(error)) from None


def _checked(response: httpx.Response) -> Mapping[str, Any]:
    """The body of a response that succeeded."""
    status = response.status_code
    if status in _WORTH_A_RETRY:
        raise _Again(f"HTTP {status}: {response.text[:200]}", _retry_after(response))
    if status in _HOPELESS:
        raise SamplerUnusable(f"{response.url}: HTTP {status}: {response.text[:200]}")
    if status != 200:
        raise SamplingError(f"{response.url}: HTTP {status}: {response.text[:500]}")
    try:
        body = response.json()
    except ValueError:
        raise _Again(f"not JSON: {response.text[:200]!r}") from None
    if not isinstance(body, dict):
        raise _Again(f"not a JSON object: {response.text[:200]!r}")
    return body


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait; None where it names none (or a date)."""
    with contextlib.suppress(ValueError):
        return max(float(response.headers.get("retry-after", "")), 0.0)
    return None


def _reply(body: Mapping[str, Any], *, seconds: float, attempts: int) -> Reply:
    """A whole response; one that lacks its text is worth another try."""
    try:
        choice = body["choices"][0]
        spoken: Mapping[str, Any] = choice.get("message") or {"content": choice["text"]}
        thoughts = spoken.get("reasoning_content") or spoken.get("reasoning") or ""
        content = spoken.get("content")
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _Again(f"a response without a choice: {str(body)[:200]}") from None
    if not isinstance(content, str) and not thoughts:
        raise _Again(f"a response without text: {str(body)[:200]}")
    prompt_tokens, completion_tokens = _usage(body.get("usage"))
    text = with_thoughts(thoughts, content or "")
    return Reply(text, prompt_tokens, completion_tokens, _finish_reason(reason), seconds, attempts)


def with_thoughts(thoughts: str, content: str) -> str:
    """A response as the model wrote it, from the two parts that a server made of it."""
    if not thoughts:
        return content
    return f"<think>{thoughts}</think>{content}" if content else f"<think>{thoughts}"


def _usage(usage: Any) -> tuple[int, int]:
    try:
        return int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (KeyError, TypeError, ValueError):
        raise SamplerUnusable(f"the endpoint does not say how many tokens it used: usage is {usage!r}") from None


def _finish_reason(reason: object) -> FinishReason:
    if reason in ("abort", "error"):
        raise _Again(f"the server broke the response off: finish_reason is {reason!r}")
    return FinishReason.LENGTH if reason == "length" else FinishReason.STOP


async def _events(response: httpx.Response) -> AsyncIterator[Mapping[str, Any]]:
    """The JSON objects of a server-sent event stream, up to [DONE]."""
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            return
        if data:
            try:
                event = json.loads(data)
            except ValueError:
                raise _Again(f"not JSON in the stream: {data[:200]!r}") from None
            if "error" in event:
                raise _Again(f"the stream reports an error: {event['error']}")
            yield event


class _Gathered:
    """What a stream has brought so far. Thoughts that come apart are put into <think></think>."""

    def __init__(self) -> None:
        self.text = ""
        self._thinking = False
        self._reason: object = None
        self._usage: Any = None

    def add(self, event: Mapping[str, Any]) -> str:
        """The new piece of text in an event, "" where it has none."""
        self._usage = event.get("usage") or self._usage
        piece = ""
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {"content": choice.get("text")}
            thoughts, content = delta.get("reasoning_content") or delta.get("reasoning"), delta.get("content")
            if thoughts:
                piece += thoughts if self._thinking else f"<think>{thoughts}"
                self._thinking = True
            if content:
                piece += f"</think>{content}" if self._thinking else content
                self._thinking = False
            self._reason = choice.get("finish_reason") or self._reason
        self.text += piece
        return piece

    def check_end(self) -> None:
        """Raises _Again where the stream broke off."""
        if self._reason is None:
            raise _Again("the stream ended without a finish_reason")

    def reply(self, *, seconds: float, attempts: int) -> Reply:
        """The whole response."""
        prompt_tokens, completion_tokens = _usage(self._usage)
        return Reply(self.text, prompt_tokens, completion_tokens, _finish_reason(self._reason), seconds, attempts)
