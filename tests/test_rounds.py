"""PaCoRe's rounds: published semantics against a real HTTP server, failures, budgets, sharing of the engine."""

import asyncio
import base64
import math
import threading

import pytest
from fakes import png
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_endpoint import ScriptedEndpoint, completion

from rollouts.endpoint import EndpointSampler, EndpointSettings
from rollouts.engine import Sampling
from rollouts.pacore import PRESETS, compact, coordinate, fitting_messages
from rollouts.rounds import RoundSettings, solve
from rollouts.sampler import Reply, SamplerUnusable, SamplingError
from rollouts.token_estimate import TokenEstimate
from rollouts.trajectory import FinishReason

SAMPLING = Sampling(1.0, 1.0, 0, 64)
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "What is 6 * 7?"},
]
TEMPLATE = "P={{ problem }}{% for m in messages %}|{{ m }}{% endfor %}"


def run(endpoint, problem, rounds, **kwargs):
    async def go():
        sampler = EndpointSampler(EndpointSettings(endpoint.url, "m", first_pause_s=0.01, **kwargs))
        try:
            return await solve(problem, sampler, rounds, SAMPLING, seed=0)
        finally:
            await sampler.close()

    return asyncio.run(go())


def test_the_published_rounds_send_the_published_requests():
    # widths [32, 4]: 32 requests with x, 4 with P(x, 32 messages), 1 with P(x, 4 messages).
    # A message is what follows the last </think>; only the last user turn changes; one shuffle for a whole round.
    # No trajectory is answered before all of its round have asked: they are side by side.
    first, second = threading.Barrier(32), threading.Barrier(4)

    def answer(body, n):
        if n < 36:
            (first if n < 32 else second).wait(timeout=120)
        return 200, completion(f"<think>{n}</think>t</think> answer {n}")

    with ScriptedEndpoint(answer) as endpoint:
        rounds = run(endpoint, CONVERSATION, RoundSettings(PRESETS["high"], TEMPLATE), concurrency=64)
        requests = [request["messages"] for request in endpoint.requests]
        others = [{k: v for k, v in request.items() if k not in ("messages", "seed")} for request in endpoint.requests]
    assert all(other == others[0] for other in others)  # every round samples alike
    assert len(requests) == 32 + 4 + 1
    assert all(messages == CONVERSATION for messages in requests[:32])
    assert all(messages[:3] == CONVERSATION[:3] and messages[3]["role"] == "user" for messages in requests)
    (second,) = {messages[3]["content"] for messages in requests[32:36]}
    problem, *shown = second.split("|")
    assert problem == "P=What is 6 * 7?"
    assert sorted(shown) == sorted(f"answer {n}" for n in range(32))
    assert shown != list(rounds[0].messages)  # shuffled
    problem, *shown = requests[36][3]["content"].split("|")
    assert sorted(shown) == sorted(f"answer {n}" for n in range(32, 36))
    assert rounds[-1].messages == ("answer 36",)
    assert [len(one.replies) for one in rounds] == [32, 4, 1]
    assert rounds[0].shown == ((),) * 32
    assert [rounds[1].messages[place] for place in rounds[2].shown[0]] == shown


@pytest.mark.parametrize(("preset", "requests"), [("low", [4, 1]), ("medium", [16, 1]), ("light-2", [2, 1]), ("light-3", [3, 1]), ("light-4", [4, 1])])
def test_presets_and_the_prompt_of_our_own(preset, requests):
    # What the paper's prompt has: that attempts follow, the problem, each attempt under its number, the task at the end.
    with ScriptedEndpoint(lambda body, n: (200, completion(f"<think>t</think>answer {n}"))) as endpoint:
        rounds = run(endpoint, "What is 6 * 7?", RoundSettings(PRESETS[preset]), concurrency=64)
        asked = [request["prompt"] for request in endpoint.requests]
    assert [len(one.replies) for one in rounds] == requests
    assert asked[:-1] == ["What is 6 * 7?"] * requests[0]
    shown = [rounds[0].messages[place] for place in rounds[1].shown[0]]
    assert sorted(shown) == sorted(f"answer {n}" for n in range(requests[0]))
    assert asked[-1] == (
        "Below are a problem and several independent attempts at it. The attempts may be wrong, incomplete or in conflict.\n\n"
        "## Problem\nWhat is 6 * 7?\n\n"
        + "".join(f"## Attempt {number}\n{message}\n\n" for number, message in enumerate(shown, start=1))
        + "Weigh the attempts against each other, check their steps, and write your own complete solution to the problem.\n"
    )


def test_one_chain_sends_the_problem_once_and_unchanged():
    with ScriptedEndpoint(lambda body, n: (200, completion("42"))) as endpoint:
        rounds = run(endpoint, CONVERSATION, RoundSettings(()))
        assert [request["messages"] for request in endpoint.requests] == [CONVERSATION]
    assert rounds[0].messages == ("42",)


def test_plain_text_goes_to_the_completions_route():
    def answer(body, n):
        return 200, {"choices": [{"text": "42", "finish_reason": "length"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}

    with ScriptedEndpoint(answer) as endpoint:
        rounds = run(endpoint, "6*7=", RoundSettings(()))
        assert endpoint.requests[0]["path"] == "/v1/completions"
        assert endpoint.requests[0]["prompt"] == "6*7="
    assert rounds[0].replies[0].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    "bad", [(500, {}), (429, {}), (0, None), (200, b"not json"), (200, {"choices": []}), (200, completion(None)),
            (200, completion("cut off", finish_reason="abort"))]
)  # fmt: skip
def test_a_failed_request_is_tried_again_and_never_becomes_empty_text(bad):
    # Requests 0 and 3 of the first round fail once: 4 + 2 + 1 requests, and 4 messages in the synthesis.
    def answer(body, n):
        return bad if n in (0, 3) else (200, completion(f"answer {n}"))

    with ScriptedEndpoint(answer) as endpoint:
        rounds = run(endpoint, CONVERSATION, RoundSettings((4,), TEMPLATE))
        assert len(endpoint.requests) == 7
        assert len(endpoint.requests[-1]["messages"][3]["content"].split("|")) == 5
    assert sum(reply.attempts for reply in rounds[0].replies) == 6


def test_a_request_that_fails_for_good_fails_its_problem_with_the_reason():
    def answer(body, n):
        return (503, {"error": "full"}) if n >= 3 else (200, completion("x"))

    with ScriptedEndpoint(answer) as endpoint, pytest.raises(SamplingError, match=r"503.*tried 3 times"):
        run(endpoint, CONVERSATION, RoundSettings((4,)), retries=2, concurrency=1)


def test_a_refused_key_is_not_tried_again():
    with ScriptedEndpoint(lambda body, n: (401, {"error": "no"})) as endpoint:
        with pytest.raises(SamplerUnusable, match="401"):
            run(endpoint, CONVERSATION, RoundSettings((2,)), api_key="k", concurrency=1)
        assert len(endpoint.requests) == 1
        assert endpoint.headers[0]["authorization"] == "Bearer k"


def test_a_prompt_that_the_server_refuses_is_not_tried_again():
    with ScriptedEndpoint(lambda body, n: (400, {"error": "too long"})) as endpoint:
        with pytest.raises(SamplingError, match="too long"):
            run(endpoint, CONVERSATION, RoundSettings(()))
        assert len(endpoint.requests) == 1


def test_thoughts_that_the_server_splits_off_are_kept_apart_from_the_message():
    with ScriptedEndpoint(lambda body, n: (200, completion("42", reasoning_content="6*7"))) as endpoint:
        rounds = run(endpoint, CONVERSATION, RoundSettings(()))
    assert rounds[0].replies[0].text == "<think>6*7</think>42"
    assert rounds[0].messages == ("42",)


def test_no_more_requests_at_once_than_allowed():
    three_at_once = threading.Barrier(3)

    def answer(body, n):
        if n < 21:
            three_at_once.wait(timeout=120)
        return 200, completion("x")

    with ScriptedEndpoint(answer) as endpoint:
        run(endpoint, CONVERSATION, RoundSettings((21,)), concurrency=3)
        assert endpoint.most_at_once == 3


class HeldSampler:
    """Answers at once, but prompts that say "slow" only when it is let go."""

    def __init__(self, room=None):
        self.go_on = asyncio.Event()
        self.log = []
        self.seeds = []
        self._room = room

    async def sample(self, content, sampling, *, seed):
        self.seeds.append(seed)
        self.log.append(content)
        text = f"said {len(self.log)}"
        if "slow" in content:
            await self.go_on.wait()
        return Reply(text, len(content), 1, FinishReason.STOP, 0.0)

    def room(self, content):
        return None if self._room is None else self._room - len(content)


def test_a_problem_goes_on_while_another_is_in_its_first_round():
    async def go():
        sampler = HeldSampler()
        settings = RoundSettings((2,), TEMPLATE)
        slow = asyncio.create_task(solve("slow", sampler, settings, SAMPLING, seed=0))
        await solve("fast", sampler, settings, SAMPLING, seed=0)
        assert not slow.done()
        sampler.go_on.set()
        await slow
        return sampler.log

    log = asyncio.run(go())
    assert [entry.startswith("P=") for entry in log] == [False] * 4 + [True, True]
    assert "fast" in log[4]


def test_equal_seeds_give_equal_requests_and_all_requests_differ_in_seed():
    async def seeds(seed):
        sampler = HeldSampler()
        await solve("0 p", sampler, RoundSettings((3, 2), TEMPLATE), SAMPLING, seed=seed)
        return sampler.seeds

    first, again, other = (asyncio.run(seeds(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 6


def test_messages_that_leave_no_room_for_the_response_are_dropped():
    # "P=0 p" has 5 characters and each message 7 ("|said 1"); 5 + 2 * 7 + 64 = 83 is the room for two of four.
    async def last_round(overflow, room):
        sampler = HeldSampler(room=room)
        rounds = await solve("0 p", sampler, RoundSettings((4,), TEMPLATE, overflow=overflow), SAMPLING, seed=0)
        return sampler.log[-1], rounds[0].messages, rounds[1].shown

    prompt, messages, ((first, second),) = asyncio.run(last_round("drop", 83))
    assert prompt == f"P=0 p|{messages[first]}|{messages[second]}"
    # shorten: four messages of "|" and n characters behind "...": 5 + 4 * (1 + 3 + n) <= 19 has no n from 1 on.
    assert asyncio.run(last_round("shorten", 83)) == ("0 p", messages, ((),))
    prompt, messages, (shown,) = asyncio.run(last_round("shorten", 64 + 5 + 4 * 5))  # n = 1
    assert prompt == "P=0 p" + "".join(f"|...{messages[place][-1]}" for place in shown)
    assert sorted(shown) == [0, 1, 2, 3]


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=6), st.integers(0, 80), st.sampled_from(["drop", "shorten"]))
def test_what_is_left_of_messages_fits_and_is_as_much_as_fits(messages, limit, overflow):
    def fits(told):
        return sum(map(len, told)) <= limit

    left = fitting_messages(messages, fits, overflow=overflow)
    assert fits(left)
    if fits(messages):
        assert left == messages
    elif overflow == "drop":
        assert left == messages[: len(left)]
        assert not fits(messages[: len(left) + 1])
    elif left:
        assert len(left) == len(messages)
        assert all(m == a or (a.startswith("...") and m.endswith(a[3:])) for m, a in zip(messages, left))


def test_an_empty_conclusion_is_not_shown():
    seen = []

    def generate(prompts):
        seen.extend(prompts)
        return ["a</think>", "b</think>B"] if len(prompts) == 2 else ["c"]

    coordinate("x", generate, [2], template=TEMPLATE)
    assert seen == ["x", "x", "P=x|B"]


def test_each_trajectory_may_have_an_order_of_its_own():
    seen = []

    def generate(prompts):
        seen.append(list(prompts))
        return [f"m{i}" for i in range(len(prompts))]

    coordinate("x", generate, [8, 6], template=TEMPLATE, shuffle="trajectory")
    assert len(set(seen[1])) > 1
    assert {tuple(sorted(prompt.split("|")[1:])) for prompt in seen[1]} == {tuple(f"m{i}" for i in range(8))}
    seen.clear()
    coordinate("x", generate, [8, 6], template=TEMPLATE)
    assert len(set(seen[1])) == 1


@pytest.mark.parametrize(
    ("text", "conclusion", "expected"),
    [("a</think>b</think> c ", None, "c"), (" no thought ", None, "no thought"), (r"\boxed{1} \boxed{2} x", r"\\boxed\{\d\}", r"\boxed{2}"),
     ("a</think>b", r"\\boxed\{\d\}", "b")],
)  # fmt: skip
def test_compaction_keeps_the_conclusion(text, conclusion, expected):
    assert compact(text, conclusion=conclusion) == expected


def test_the_async_rounds_ask_what_the_plain_ones_ask():
    asked = []

    def generate(prompts):
        asked.extend(prompts)
        return [f"said {i}" for i in range(len(asked) - len(prompts) + 1, len(asked) + 1)]

    coordinate("0 p", generate, [5, 3], template=TEMPLATE, seed=7)
    sampler = HeldSampler()
    asyncio.run(solve("0 p", sampler, RoundSettings((5, 3), TEMPLATE), SAMPLING, seed=7))
    assert sampler.log == asked


# An endpoint whose server counts a token per three characters of English text, and eight per turn of its template.
WORDS = "the sum of the digits is what the problem asks for, so we add them one by one and then compare. "


def counted(body, n):
    text = WORDS * 4
    prompt = "".join(turn["content"] for turn in body["messages"])
    tokens = len(prompt) // 3 + 8 * len(body["messages"])
    if tokens + body["max_tokens"] > 700:
        return 400, {"error": f"maximum context length is 700 tokens, the prompt has {tokens}"}
    return 200, completion(text, prompt_tokens=tokens, completion_tokens=len(text) // 3)


@pytest.mark.parametrize("overflow", ["drop", "shorten"])
def test_a_context_that_is_named_makes_messages_fit_an_endpoint(overflow):
    rounds = RoundSettings((8,), TEMPLATE, overflow=overflow)
    with ScriptedEndpoint(counted) as endpoint:
        with pytest.raises(SamplingError, match="maximum context length"):
            run(endpoint, CONVERSATION, rounds)
        refused = len(endpoint.requests)
        run(endpoint, CONVERSATION, rounds, context=700)
    shown = endpoint.requests[-1]["messages"][-1]["content"].split("|")[1:]
    assert len(endpoint.requests) == refused + 8 + 1
    if overflow == "drop":  # a message has 128 tokens; 700 - 64 hold four of them, three with a sixth to spare
        assert len(shown) in (3, 4)
        assert all(message == (WORDS * 4).strip() for message in shown)
    else:
        assert len(shown) == 8
        assert all(message.startswith("...") and (WORDS * 4).strip().endswith(message[3:]) for message in shown)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(1, 400), min_size=3, max_size=12),
    st.floats(0.05, 1.0),
    st.integers(0, 12),
    st.lists(st.integers(0, 3_000), min_size=1, max_size=4),
)
def test_an_estimate_learned_from_replies_is_never_below_what_such_text_has(lengths, ratio, overhead, turns):
    estimate = TokenEstimate()
    for length in lengths:  # at least one of them long enough to tell
        text = "x" * (length + 200)
        tokens = math.ceil(ratio * len(text))
        estimate.learn("problem", Reply(text, 2, tokens + 1, FinishReason.STOP, 0.0))
    content = [{"role": "user", "content": "x" * length} for length in turns]
    real = sum(math.ceil(ratio * length) + overhead for length in turns)
    rounding = 1.2 * sum(turns) * 2 / 201  # a reply of 201 bytes tells its ratio to two tokens
    assert real <= estimate.tokens(content) <= 1.2 * real + rounding + 17 * (len(turns) + 1) + 1


def test_images_are_sent_in_every_round_and_count_as_the_server_counts_them(tmp_path):
    (tmp_path / "a.png").write_bytes(png("red"))
    problem = [
        {"role": "user", "content": [{"type": "image", "image": str(tmp_path / "a.png")}, {"type": "text", "text": "colour?"}]}
    ]

    def answer(body, n):
        return 200, completion("red" * 100, prompt_tokens=900 + 40, completion_tokens=100)

    with ScriptedEndpoint(answer) as endpoint:
        run(endpoint, problem, RoundSettings((2,), TEMPLATE))
        sampler = EndpointSampler(EndpointSettings(endpoint.url, "m", context=4000))
        before = sampler.room(problem)
        asyncio.run(sampler.sample(problem, SAMPLING, seed=0))
        after = sampler.room(problem)
    contents = [request["messages"][0]["content"] for request in endpoint.requests]
    assert [part["type"] for part in contents[0]] == ["image_url", "text"]
    url = "data:image/png;base64," + base64.b64encode(png("red")).decode()
    assert all(content[0] == {"type": "image_url", "image_url": {"url": url}} for content in contents)
    assert contents[2][1]["text"] == "P=colour?" + ("|" + "red" * 100) * 2
    assert 4000 - 1500 - 60 < before < 4000 - 1500
    assert 4000 - 1200 < after < 4000 - 900


def test_an_image_that_is_gone_fails_its_request_with_its_name(tmp_path):
    problem = [{"role": "user", "content": [{"type": "image", "image": str(tmp_path / "gone.png")}]}]
    with ScriptedEndpoint(counted) as endpoint:
        with pytest.raises(SamplingError, match="gone.png: there is no such image"):
            run(endpoint, problem, RoundSettings(()))
        assert not endpoint.requests
