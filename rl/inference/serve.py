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
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from rl.inference.chat_request import (
    ChatRequest,
    RequestError,
    flag_in,
    number_in,
    refuse_unknown,
    sampling_of,
    turn_of,
)
from rl.inference.open_sampler import OpenModel
from rl.inference.thought_splitter import THINK_END, ThoughtSplitter, split_thoughts
from rollouts.engine import Sampling
from rollouts.rounds import FinishedRound, RoundSettings, solve, solve_streaming
from rollouts.sampler import SamplingError
from rollouts.trajectory import PromptContent

# Comments in the stream while the parallel rounds run, so that no proxy takes the silence for a dead connection.
_HEARTBEAT_S = 10.0
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
        refuse_unknown(body)
        if body.get("model") != self.name:
            raise RequestError(f"there is no model {body.get('model')!r}; there is {self.name!r}", "model", 404)
        options = body.get("stream_options") or {}
        return ChatRequest(
            content=self._content(body.get("messages")),
            sampling=sampling_of(body, self.sampling),
            seed=number_in(body, "seed", int, None) if body.get("seed") is not None else random.getrandbits(31),
            stream=flag_in(body, "stream"),
            include_usage=flag_in(options, "include_usage"),
        )

    def _content(self, messages: object) -> PromptContent:
        if not isinstance(messages, list) or not messages:
            raise RequestError("messages must be a list of turns", "messages")
        turns = [turn_of(turn, index) for index, turn in enumerate(messages)]
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
                    thought = any(THINK_END in reply.text for reply in piece.replies)
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
            "messages_shown": [min(map(len, one.shown)) for one in rounds],
        },
    }


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
