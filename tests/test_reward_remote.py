"""The remote reward and the judge against a real HTTP server on this machine."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rewards import load_reward
from rewards.http import RemoteRewardError
from rewards.judge import JudgeError, read_score, read_verdict
from rewards.worker import RewardPool


class Server:
    """Answers each POST with the next item of `script`: (status, body) or a function of the request."""

    def __init__(self, answer):
        self.requests, self.under_way, self.most_under_way = [], 0, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.under_way += 1
                outer.most_under_way = max(outer.most_under_way, outer.under_way)
                outer.requests.append((self.path, dict(self.headers), body))
                status, reply = answer(body, len(outer.requests))
                outer.under_way -= 1
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/score"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()


def lengths(body, number):
    return 200, {"rewards": [float(len(row["completion"])) for row in body["rows"]]}


def call(reward, completions, **columns):
    return asyncio.run(reward(prompts=["q"] * len(completions), completions=completions, **columns))


def test_rows_are_sent_in_requests_and_rewards_come_back_in_order():
    with Server(lengths) as server:
        reward = load_reward("http", url=server.url, rows_per_request=2, columns=["solution"], headers={"X-Team": "a"})
        assert call(reward, ["a", "bb", "ccc"], solution=["1", "2", "3"], secret=["s"] * 3) == [1.0, 2.0, 3.0]
    bodies = sorted((body for _, _, body in server.requests), key=lambda body: -len(body["rows"]))
    assert bodies[0]["rows"][0] == {"prompt": "q", "completion": "a", "columns": {"solution": "1"}}
    assert [len(body["rows"]) for body in bodies] == [2, 1]
    assert server.requests[0][1]["X-Team"] == "a"


def test_a_busy_server_is_asked_again_after_a_pause():
    with Server(lambda body, number: (503, {"error": "busy"}) if number < 3 else lengths(body, number)) as server:
        start = time.monotonic()
        assert call(load_reward("http", url=server.url, backoff_s=0.05), ["a"]) == [1.0]
        assert time.monotonic() - start >= 0.05 + 0.10
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_or_away_is_an_error():
    with Server(lambda body, number: (429, {"error": "slow down"})) as server:
        with pytest.raises(RemoteRewardError, match="gave up after 2 attempts: status 429.*slow down"):
            call(load_reward("http", url=server.url, attempts=2, backoff_s=0.01), ["a"])
    with pytest.raises(RemoteRewardError, match="ConnectError"):
        call(load_reward("http", url=server.url, attempts=2, backoff_s=0.01), ["a"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {"rewards": [1.0, 2.0]}), "expected 1 rewards"),
        ((200, {"reward": 1.0}), "expected 1 rewards"),
        ((200, {"rewards": ["high"]}), "neither a number nor null"),
        ((200, {"rewards": [True]}), "neither a number nor null"),
        ((200, b"<html>"), "not JSON"),
        ((400, {"error": "no such model"}), "status 400: .*no such model"),
    ],
)
def test_an_answer_outside_the_contract_is_an_error_at_once(answer, message):
    with Server(lambda body, number: answer) as server, pytest.raises(RemoteRewardError, match=message):
        call(load_reward("http", url=server.url), ["a"])
    assert len(server.requests) == 1


def test_no_more_requests_than_allowed_are_under_way():
    def slow(body, number):
        time.sleep(0.03)
        return lengths(body, number)

    with Server(slow) as server:
        call(load_reward("http", url=server.url, rows_per_request=1, max_concurrent=3), ["a"] * 12)
    assert server.most_under_way <= 3


def test_null_does_not_apply_and_a_remote_nan_is_invalid():
    with Server(lambda body, number: (200, b'{"rewards": [null, NaN, 0.5]}')) as server:
        with RewardPool("http", args={"url": server.url}, timeout_s=120) as pool:
            results = pool.score(["q"] * 3, ["a", "b", "c"], {})
    assert [r.status for r in results] == ["not_applicable", "invalid", "ok"]


def chat(said: str):
    return lambda body, number: (200, {"choices": [{"message": {"content": said}}]})


def judge(server: Server, **args):
    return load_reward("judge", url=server.url.removesuffix("/score") + "/v1", model="grader", **args)


def test_the_judge_is_asked_with_question_reference_and_answer():
    with Server(chat("The results agree.\n\nVerdict: correct")) as server:
        assert call(judge(server), ["It is 4."], solution=["4"]) == [1.0]
    path, _, body = server.requests[0]
    text = body["messages"][0]["content"]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"]) == ("grader", 0.0)
    assert "[QUESTION]\nq\n" in text and "[REFERENCE]\n4\n" in text and "[ANSWER]\nIt is 4.\n" in text


def test_the_template_verdicts_and_scale_are_the_recipes():
    with Server(chat("Score: 7.5")) as server:
        reward = judge(
            server, template="Rate {{ completion }} by {{ rubric }}", columns=["rubric"], score_range=(0, 10)
        )
        assert call(reward, ["x"], rubric=["clarity"]) == [7.5]
        assert server.requests[0][2]["messages"][0]["content"] == "Rate x by clarity"
    with Server(chat("**Verdict: Partly**")) as server:
        assert call(judge(server, verdicts={"fully": 1, "partly": 0.5}), ["x"], solution=["y"]) == [0.5]


def test_an_answer_cannot_reach_into_the_template():
    with Server(chat("Verdict: incorrect")) as server:
        assert call(judge(server), ["{{ 7 * 7 }} {% raw %}"], solution=["4"]) == [0.0]
    assert "{{ 7 * 7 }} {% raw %}" in server.requests[0][2]["messages"][0]["content"]


def test_the_template_runs_in_a_sandbox_and_unknown_names_are_errors():
    from jinja2.exceptions import SecurityError, UndefinedError

    with Server(chat("Verdict: correct")) as server:
        with pytest.raises(SecurityError):
            call(judge(server, template="{{ prompt.__class__.__mro__ }}"), ["x"], solution=["y"])
        with pytest.raises(UndefinedError, match="referense"):
            call(judge(server, template="{{ referense }}"), ["x"], solution=["y"])


@pytest.mark.parametrize(
    "said",
    [
        "",
        None,
        "I think it is correct.",
        "Verdict: correct\nBut then again",
        "Verdict: correct or incorrect",
        "Verdict: perhaps",
    ],
)
def test_a_verdict_that_cannot_be_read_is_a_failure_not_a_zero(said):
    with (
        Server(chat(said)) as server,
        RewardPool("judge", args={"url": server.url, "model": "m"}, timeout_s=120) as pool,
    ):
        result = pool.score(["q"], ["a"], {"solution": ["b"]})[0]
    assert (result.value, result.status) == (None, "error")
    assert "JudgeError" in result.message


def test_verdicts_and_scores_are_read_strictly():
    verdicts = {"correct": 1.0, "incorrect": 0.0}
    assert read_verdict("<think>Verdict: correct</think>\nVerdict: incorrect.", verdicts) == 0.0
    assert read_verdict(r"So \boxed{\text{correct}}", verdicts) == 1.0
    assert read_score("Fine.\nScore: 8", (0, 10)) == 8.0
    for text in ("Score: 7/10", "Score: eleven", "Score: 11", "Score: nan", "8"):
        with pytest.raises(JudgeError):
            read_score(text, (0, 10))
