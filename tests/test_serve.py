"""`stepladder serve` with the stock OpenAI client, in front of a real HTTP server."""

import json
import socket
import threading
import time

import httpx
import openai
import pytest
import uvicorn
from fakes import png
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_endpoint import ScriptedEndpoint, completion

from rl.inference.open_sampler import OpenModel, open_endpoint
from rl.inference.serve import PacoreServer, make_app
from rl.inference.thought_splitter import ThoughtSplitter, split_thoughts
from rollouts.endpoint import EndpointSettings
from rollouts.engine import Sampling
from rollouts.images import data_url
from rollouts.rounds import RoundSettings

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "6 * 7?"}]


def chunks(*texts):
    """The events of a streamed completion."""
    import json

    events = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events.append({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 9}})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"


class Served:
    """A PaCoRe server on a free port, in a thread."""

    def __init__(self, endpoint, widths=(3,)):
        settings = EndpointSettings(endpoint.url, "inner", retries=0)
        rounds = RoundSettings(widths, "{{ messages | join(', ') }}: {{ problem }}")
        model = open_endpoint(settings, on_retry=print)
        app = make_app(PacoreServer(model, "pacore", rounds, Sampling(1.0, 1.0, 0, 100)))
        self.server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)

    def __exit__(self, *exception):
        self.server.should_exit = True
        self.thread.join()


def scripted(body, n):
    if body.get("stream"):
        return 200, chunks("<think>so", "</thi", "nk>", "4", "2")
    return 200, completion(f"<think>t</think>answer {n}")


def test_an_openai_client_gets_the_answer_of_all_rounds_and_pays_for_all_tokens():
    with ScriptedEndpoint(scripted) as endpoint, Served(endpoint) as client:
        assert [model.id for model in client.models.list()] == ["pacore"]
        response = client.chat.completions.create(
            model="pacore", messages=QUESTION, temperature=0.5, max_completion_tokens=50, stop=["END"], seed=3
        )
        requests = endpoint.requests
    assert response.choices[0].message.content == "answer 3"
    assert response.choices[0].finish_reason == "stop"
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (4 * 10, 4 * 5)
    assert response.usage.total_tokens == 60
    assert [request["messages"] for request in requests[:3]] == [QUESTION] * 3
    assert requests[3]["messages"][0] == QUESTION[0]
    shown, _, problem = requests[3]["messages"][1]["content"].partition(": ")
    assert sorted(shown.split(", ")) == ["answer 0", "answer 1", "answer 2"]
    assert problem == "6 * 7?"
    assert {(r["temperature"], r["max_tokens"], tuple(r["stop"])) for r in requests} == {(0.5, 50, ("END",))}


def test_the_last_round_streams():
    with ScriptedEndpoint(scripted) as endpoint, Served(endpoint) as client:
        stream = client.chat.completions.create(
            model="pacore", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        parts = list(stream)
        assert [bool(request.get("stream")) for request in endpoint.requests] == [False] * 3 + [True]
    deltas = [part.choices[0].delta for part in parts if part.choices]
    assert [delta.content for delta in deltas if delta.content] == ["4", "2"]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "so"
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "stop"
    assert (parts[-1].usage.prompt_tokens, parts[-1].usage.completion_tokens) == (3 * 10 + 30, 3 * 5 + 9)


def test_what_is_not_done_is_refused_by_name():
    with ScriptedEndpoint(scripted) as endpoint, Served(endpoint) as client:
        for options, told in [
            ({"n": 2}, "n: 2 is not supported"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
            ({"temperature": 3}, "temperature: 3; a number from 0 to 2 is allowed"),
            ({"logprobs": True}, "logprobs"),
            ({"extra_body": {"best_of": 2}}, "best_of is not supported"),
            ({"messages": [{"role": "system", "content": "x"}]}, "no user turn"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "must be a data URL"),
        ]:
            with pytest.raises(openai.BadRequestError, match=told):
                client.chat.completions.create(**({"model": "pacore", "messages": QUESTION} | options))
        with pytest.raises(openai.NotFoundError, match="there is no model 'other'; there is 'pacore'"):
            client.chat.completions.create(model="other", messages=QUESTION)
        assert not endpoint.requests


def test_images_reach_the_model_in_every_round():
    url = data_url(png("blue"))
    content = [{"type": "text", "text": "colour?"}, {"type": "image_url", "image_url": {"url": url}}]
    with ScriptedEndpoint(scripted) as endpoint, Served(endpoint) as client:
        client.chat.completions.create(model="pacore", messages=[{"role": "user", "content": content}])
        for bad in ("/etc/passwd", "https://a.b/c.png", "data:image/png;base64,AAAA"):
            parts = [{"type": "image_url", "image_url": {"url": bad}}]
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model="pacore", messages=[{"role": "user", "content": parts}])
    sent = [request["messages"][0]["content"] for request in endpoint.requests]
    assert len(sent) == 3 + 1
    assert sent[0] == content
    assert sent[-1][0] == {"type": "image_url", "image_url": {"url": url}}
    assert sent[-1][1]["text"].endswith(": colour?")


def test_a_round_that_fails_is_an_error_and_not_an_empty_answer():
    with ScriptedEndpoint(lambda body, n: (500, {"error": "boom"}) if n == 1 else scripted(body, n)) as endpoint:
        with Served(endpoint) as client, pytest.raises(openai.InternalServerError, match="boom"):
            client.chat.completions.create(model="pacore", messages=QUESTION)
    with ScriptedEndpoint(lambda body, n: (500, {"error": "boom"})) as endpoint, Served(endpoint) as client:
        with pytest.raises(openai.APIError, match="boom"):
            list(client.chat.completions.create(model="pacore", messages=QUESTION, stream=True))


def test_requests_end_when_the_client_goes_away():
    gone = threading.Event()

    def slow(body, n):
        gone.wait(300)
        return scripted(body, n)

    with ScriptedEndpoint(slow) as endpoint:
        served = Served(endpoint)
        with served as client:
            body = json.dumps({"model": "pacore", "messages": QUESTION}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
                connection.sendall(head + body)
                while len(endpoint.requests) < 3:
                    time.sleep(0.01)
            while served.server.server_state.tasks:  # ends while no answer has come
                time.sleep(0.01)
            gone.set()
        assert len(endpoint.requests) == 3  # no synthesis for nobody


def test_a_model_without_a_chat_template_takes_one_turn():
    class NoSampler:
        async def close(self): ...

    server = PacoreServer(
        OpenModel(NoSampler(), "base", "", False, 64), "base", RoundSettings(()), Sampling(1.0, 1.0, 0, 8)
    )
    one = {"model": "base", "messages": [{"role": "user", "content": "1+1="}]}
    assert server.parse(one).content == "1+1="
    with pytest.raises(ValueError, match="no chat template"):
        server.parse({"model": "base", "messages": QUESTION})


@settings(deadline=None)
@given(st.text("ab <>/think", max_size=30), st.text("ab <>/", max_size=10), st.lists(st.integers(1, 6), max_size=20), st.booleans())
def test_a_streamed_response_splits_where_the_whole_one_does(thoughts, answer, cuts, opened):
    if "</think>" in thoughts or thoughts.startswith("<think>"):
        return
    text = f"{'<think>' if opened else ''}{thoughts}</think>{answer}"
    splitter, deltas, rest = ThoughtSplitter(expects_thoughts=True), [], text
    for cut in cuts:
        deltas += splitter.add(rest[:cut]) if rest[:cut] else []
        rest = rest[cut:]
    deltas += (splitter.add(rest) if rest else []) + splitter.end()
    joined = {key: "".join(d.get(key, "") for d in deltas) for key in ("reasoning_content", "content")}
    assert (joined["reasoning_content"].strip(), joined["content"].strip()) == split_thoughts(text)


def test_thoughts_that_never_end_are_the_answer():
    splitter = ThoughtSplitter(expects_thoughts=True)
    deltas = splitter.add("cut in the middle") + splitter.end()
    assert "".join(d.get("content", "") for d in deltas) == "cut in the middle"


def test_health_answers_without_a_model():
    with ScriptedEndpoint(scripted) as endpoint, Served(endpoint) as client:
        assert httpx.get(str(client.base_url).replace("/v1/", "/health")).json() == {"status": "ok"}
