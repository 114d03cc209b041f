"""An OpenAI-compatible chat endpoint whose answers are PaCoRe's: all rounds happen behind one request.

GET /v1/models, POST /v1/chat/completions (also streamed), GET /health. `usage` counts every token of every round.
What a request asks for and this server does not do is refused with a message, never ignored.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from rl.open_sampler import OpenModel
from rollouts.engine import Sampling
from rollouts.rounds import FinishedRound, RoundSettings, solve, solve_streaming
from rollouts.sampler import SamplingError
from rollouts.trajectory import Message, PromptContent

# Comments in the stream while the parallel rounds run, so that no proxy takes the silence for a dead connection.
_HEARTBEAT_S = 10.0
_THINK_END = "</think>"
# What clients send by themselves, with the value that asks for nothing.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1, None),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": ({}, None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "parallel_tool_calls": (True, False, None),
    "response_format": ({"type": "text"}, None),
    "user": (),  # says who asks, which changes no answer
    "metadata": (),
    "store": (False, None),
}
_UNDERSTOOD = frozenset(
    {"model", "messages", "stream", "stream_options", "temperature", "top_p", "top_k", "max_tokens",
     "max_completion_tokens", "stop", "seed"}
)  # fmt: skip


class RequestError(ValueError):
    """A request that cannot be answered as it is; HTTP 400, or the given status."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(frozen=True)
class ChatRequest:
    """A request, checked."""

    content: PromptContent
    sampling: Sampling
    seed: int
    stream: bool
    include_usage: bool


@dataclass(frozen=True)
class PacoreServer:
    """What answers: a model, its rounds, and the sampling where a request does not say."""

    model: OpenModel
    name: str
    rounds: RoundSettings
    sampling: Sampling

    def parse(self, body: object) -> ChatRequest:
        """
        Raises:
            RequestError: the request is malformed or asks for what there is not.
        """
        if not isinstance(body, dict):
            raise RequestError("the body is not a JSON object")
        _refuse_unknown(body)
        if body.get("model") != self.name:
            raise RequestError(f"there is no model {body.get('model')!r}; there is {self.name!r}", "model", 404)
        options = body.get("stream_options") or {}
        return ChatRequest(
            content=self._content(body.get("messages")),
            sampling=_sampling(body, self.sampling),
            seed=_number(body, "seed", int, None) if body.get("seed") is not None else random.getrandbits(31),
            stream=_flag(body, "stream"),
            include_usage=_flag(options, "include_usage"),
        )

    def _content(self, messages: object) -> PromptContent:
        if not isinstance(messages, list) or not messages:
            raise RequestError("messages must be a list of turns", "messages")
        turns = [_turn(turn, index) for index, turn in enumerate(messages)]
        if all(turn["role"] != "user" for turn in turns):
            raise RequestError("messages has no user turn", "messages")
        try:
            return self.model.prompt(turns)
        except ValueError as error:
            raise RequestError(str(error), "messages") from None

    async def complete(self, request: ChatRequest) -> dict[str, object]:
        """The response to a request that does not stream.

        Raises:
            SamplingError: a request of some round has no response.
        """
        rounds = await solve(request.content, self.model.sampler, self.rounds, request.sampling, seed=request.seed)
        reply = rounds[-1].replies[0]
        thoughts, content = split_thoughts(reply.text)
        message: dict[str, object] = {"role": "assistant", "content": content}
        if thoughts:
            message["reasoning_content"] = thoughts
        choice = {"index": 0, "message": message, "finish_reason": str(reply.finish_reason), "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage_of(rounds)}

    async def events(self, request: ChatRequest) -> AsyncIterator[str]:
        """The server-sent events of a request that streams: silence but for heartbeats, then the last round."""
        head = self._head("chat.completion.chunk")
        rounds: list[FinishedRound] = []
        yield _event({**head, "choices": [_delta({"role": "assistant", "content": ""})]})
        splitter = ThoughtSplitter(expects_thoughts=False)
        pieces = solve_streaming(
            request.content, self.model.sampler, self.rounds, request.sampling, seed=request.seed
        )
        try:
            async for piece in _with_heartbeats(pieces):
                if isinstance(piece, FinishedRound):
                    rounds.append(piece)
                    thought = any(_THINK_END in reply.text for reply in piece.replies)
                    splitter = splitter if splitter.started else ThoughtSplitter(expects_thoughts=thought)
                elif piece is None:
                    yield ": the parallel rounds are under way\n\n"
                else:
                    for delta in splitter.add(piece):
                        yield _event({**head, "choices": [_delta(delta)]})
        except SamplingError as error:
            yield _event({"error": _error(str(error), "server_error")})
            return
        for delta in splitter.end():
            yield _event({**head, "choices": [_delta(delta)]})
        reason = str(rounds[-1].replies[0].finish_reason)
        yield _event({**head, "choices": [{**_delta({}), "finish_reason": reason}]})
        if request.include_usage:
            yield _event({**head, "choices": [], "usage": usage_of(rounds)})
        yield "data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": self.name}


def split_thoughts(text: str) -> tuple[str, str]:
    """(thoughts, answer): what stands before and after the last </think>; all is answer where there is none."""
    thoughts, found, answer = text.rpartition(_THINK_END)
    return (thoughts.removeprefix("<think>").strip(), answer.strip()) if found else ("", text.strip())


class ThoughtSplitter:
    """Splits a streamed response into thoughts and answer at the first </think>.

    Whether a response without <think> in front begins with thoughts (many chat templates put it into the prompt)
    cannot be seen from its start; the rounds before show what the model does. Where thoughts were expected and no
    </think> came, the whole text is the answer, as compaction has it, and is sent at the end.
    """

    def __init__(self, *, expects_thoughts: bool) -> None:
        self.started = False
        self._text = ""
        self._sent = 0
        self._thinking = expects_thoughts
        self._answer_started = False

    def add(self, piece: str) -> list[dict[str, str]]:
        """The deltas that a new piece makes certain."""
        self.started = True
        self._text += piece
        if self._sent == 0 and "<think>".startswith(self._text[: len("<think>")]):
            if len(self._text) < len("<think>"):
                return []  # may become <think>
            self._thinking, self._sent = True, len("<think>")
        if not self._thinking:
            return self._answer(len(self._text))
        end = self._text.find(_THINK_END)
        if end < 0:  # the last characters may be the start of </think>
            return self._thoughts(max(len(self._text) - len(_THINK_END) + 1, self._sent))
        deltas = self._thoughts(end)
        self._thinking, self._sent = False, end + len(_THINK_END)
        return deltas + self._answer(len(self._text))

    def end(self) -> list[dict[str, str]]:
        """The deltas that are left."""
        if not self._thinking:
            return self._answer(len(self._text))
        rest = self._thoughts(len(self._text))
        return [*rest, {"content": self._text.removeprefix("<think>").strip()}]

    def _thoughts(self, end: int) -> list[dict[str, str]]:
        text, self._sent = self._text[self._sent : end], max(end, self._sent)
        return [{"reasoning_content": text}] if text else []

    def _answer(self, end: int) -> list[dict[str, str]]:
        text, self._sent = self._text[self._sent : end], end
        if not self._answer_started:
            text = text.lstrip()
        self._answer_started = self._answer_started or bool(text)
        return [{"content": text}] if text else []


def usage_of(rounds: Sequence[FinishedRound]) -> dict[str, object]:
    """Tokens over all trajectories of all rounds, and in `pacore` by round."""
    prompt = [sum(reply.prompt_tokens for reply in one.replies) for one in rounds]
    completion = [sum(reply.completion_tokens for reply in one.replies) for one in rounds]
    return {
        "prompt_tokens": sum(prompt),
        "completion_tokens": sum(completion),
        "total_tokens": sum(prompt) + sum(completion),
        "pacore": {
            "widths": [len(one.replies) for one in rounds],
            "prompt_tokens": prompt,
            "completion_tokens": completion,
        },
    }


# ---------------------------------------------------------------- requests


def _refuse_unknown(body: Mapping[str, Any]) -> None:
    for key, value in body.items():
        if key in _UNDERSTOOD:
            continue
        if key not in _NEUTRAL:
            raise RequestError(f"{key} is not supported; supported are {', '.join(sorted(_UNDERSTOOD))}", key)
        if _NEUTRAL[key] and value not in _NEUTRAL[key]:
            raise RequestError(f"{key}: {value!r} is not supported; leave it out", key)


def _turn(turn: object, index: int) -> Message:
    key = f"messages.{index}"
    if not isinstance(turn, dict) or turn.get("role") not in ("system", "developer", "user", "assistant"):
        raise RequestError("a turn has a role (system, user or assistant) and a content", key)
    role = "system" if turn["role"] == "developer" else turn["role"]
    return Message(role=role, content=_text(turn.get("content"), key))


def _text(content: object, key: str) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for part in content if isinstance(content, list) else [None]:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RequestError("a content is text or a list of text parts; images are not supported", key)
        texts.append(part["text"])
    return "".join(texts)


def _sampling(body: Mapping[str, Any], default: Sampling) -> Sampling:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    key = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
    stop = body.get("stop") or list(default.stop)
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        raise RequestError("stop is a text or a list of texts", "stop")
    return replace(
        default,
        temperature=_number(body, "temperature", float, default.temperature, low=0.0, high=2.0),
        top_p=_number(body, "top_p", float, default.top_p, low=1e-9, high=1.0),
        top_k=_number(body, "top_k", int, default.top_k, low=0),
        max_tokens=_number(body, key, int, default.max_tokens, low=1) if limit else default.max_tokens,
        stop=tuple(stop),
    )


def _number(
    body: Mapping[str, Any], key: str, kind: type, default: Any, *, low: float | None = None, high: float | None = None
) -> Any:
    value = body.get(key)
    if value is None:
        return default
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and (kind is float or isinstance(value, int))
    if not fits or (low is not None and value < low) or (high is not None and value > high):
        bounds = f" from {low:g}" if low is not None else ""
        bounds += f" to {high:g}" if high is not None else ""
        raise RequestError(f"{key}: {value!r}; a number{bounds} is allowed", key)
    return kind(value)


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if value not in (None, True, False):
        raise RequestError(f"{key}: {value!r}; true or false is allowed", key)
    return bool(value)


# ---------------------------------------------------------------- the application


def make_app(server: PacoreServer) -> FastAPI:
    """The HTTP application around a server; closes the sampler at its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await server.model.sampler.close()

    app = FastAPI(title="stepladder", lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [{"id": server.name, "object": "model", "created": 0, "owned_by": "local"}]}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(http: Request) -> JSONResponse | StreamingResponse:
        try:
            request = server.parse(await _json(http))
        except RequestError as error:
            told = _error(str(error), "invalid_request_error", error.param)
            return JSONResponse({"error": told}, status_code=error.status)
        if request.stream:
            return StreamingResponse(server.events(request), media_type="text/event-stream")
        try:
            return JSONResponse(await _unless_disconnected(http, server.complete(request)))
        except SamplingError as error:
            return JSONResponse({"error": _error(str(error), "server_error")}, status_code=502)

    return app


async def _json(http: Request) -> object:
    try:
        return await http.json()
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}") from None


async def _unless_disconnected(http: Request, answer: Any) -> Any:
    """The answer; its requests are ended where the client goes away before it is there."""
    work = asyncio.ensure_future(answer)
    try:
        while not work.done():
            await asyncio.wait([work], timeout=1.0)
            if not work.done() and await http.is_disconnected():
                raise SamplingError("the client is gone")
        return work.result()
    finally:
        work.cancel()


async def _with_heartbeats(
    pieces: AsyncIterator[FinishedRound | str], every_s: float = _HEARTBEAT_S
) -> AsyncIterator[FinishedRound | str | None]:
    """The pieces, and None for every `every_s` seconds in which there was none."""
    waiting: asyncio.Future[FinishedRound | str] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(pieces))
            done, _ = await asyncio.wait([waiting], timeout=every_s)
            if not done:
                yield None
                continue
            try:
                piece = waiting.result()
            except StopAsyncIteration:
                return
            finally:
                waiting = None
            yield piece
    finally:
        if waiting is not None:  # the client is gone: end the requests of the round
            waiting.cancel()


def _event(body: Mapping[str, object]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _delta(delta: Mapping[str, str]) -> dict[str, object]:
    return {"index": 0, "delta": dict(delta), "finish_reason": None, "logprobs": None}


def _error(message: str, kind: str, param: str | None = None) -> dict[str, object]:
    return {"message": message, "type": kind, "param": param, "code": None}


def run_server(
    model: OpenModel,
    *,
    name: str,
    rounds: RoundSettings,
    sampling: Sampling,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
) -> None:
    """Serves until a signal comes."""
    import uvicorn

    app = make_app(PacoreServer(model, name, rounds, sampling))
    on_ready(f"http://{host}:{port}/v1 as {name}")
    uvicorn.run(app, host=host, port=port, log_level="warning")
