"""Dealing requests to engines, without engines: whatever breaks, every request is delivered once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.deal import MAX_ATTEMPTS, Deal, RequestFailed
from rollouts.engine import Generation, Progress, Request, Sampling
from rollouts.trajectory import FinishReason


def requests(prompts, samples):
    asked = []
    for index in range(prompts):
        prompt = np.array([index])
        asked += [Request(prompt, Sampling(1.0, 1.0, 0, 4))] * samples
    return asked


def answer(*numbers, failed=()):
    generation = Generation(np.array([1]), np.zeros(1, np.float32), "", FinishReason.STOP, np.zeros(1, np.int32))
    return Progress([(number, generation) for number in numbers], failed, 0.0, 0.0)


@settings(max_examples=200, deadline=None)
@given(
    prompts=st.integers(1, 12),
    samples=st.integers(1, 4),
    engines=st.integers(1, 4),
    rule=st.sampled_from(["load", "fixed"]),
    data=st.data(),
)
def test_every_request_is_delivered_once_whatever_breaks_and_when(prompts, samples, engines, rule, data):
    deal = Deal(requests(prompts, samples), engines=engines, capacity=4, rule=rule, first=100)
    holding = [[] for _ in range(engines)]  # the oracle: what each engine would sample
    delivered = []
    crashes = 0
    while not deal.complete:
        for engine, numbers in deal.next_for(list(range(engines))).items():
            holding[engine] += numbers
        busy = [engine for engine in range(engines) if holding[engine]]
        assert busy == [engine for engine in range(engines) if deal.busy(engine)]
        engine = data.draw(st.sampled_from(busy))
        what = data.draw(st.sampled_from(["finish", "crash", "refuse"])) if crashes < 6 else "finish"
        if what == "finish":
            count = data.draw(st.integers(1, len(holding[engine])))
            done, holding[engine] = holding[engine][:count], holding[engine][count:]
            delivered += [index for index, _ in deal.take(engine, answer(*done))]
        elif what == "crash":
            deal.broken(engine)
            holding[engine] = []
            crashes += 1
        else:
            number = holding[engine].pop()
            crashes += MAX_ATTEMPTS  # at most one request is refused, and not too often
            deal.take(engine, answer(failed=[(number, "no")]))
    assert sorted(delivered) == list(range(prompts * samples))


def test_samples_of_a_prompt_stay_together_and_engines_are_filled_evenly():
    deal = Deal(requests(6, 4), engines=3, capacity=8, rule="load")
    hands = deal.next_for([0, 1, 2])
    assert hands == {0: [0, 1, 2, 3, 12, 13, 14, 15], 1: [4, 5, 6, 7, 16, 17, 18, 19], 2: [8, 9, 10, 11, 20, 21, 22, 23]}


def test_what_does_not_fit_waits_for_the_engine_that_is_free_first():
    deal = Deal(requests(5, 4), engines=2, capacity=8, rule="load")
    assert deal.next_for([0, 1]) == {0: [0, 1, 2, 3, 8, 9, 10, 11], 1: [4, 5, 6, 7, 12, 13, 14, 15]}
    assert deal.next_for([0, 1]) == {}
    deal.take(1, answer(4, 5, 6))
    assert deal.next_for([0, 1]) == {1: [16, 17, 18, 19]}  # 5 + 4 <= 8 + 1


def test_a_fixed_deal_is_repeated_as_a_whole_and_with_its_seed():
    deal = Deal(requests(2, 4), engines=2, capacity=1, rule="fixed")
    assert deal.next_for([0, 1]) == {0: [0, 1, 2, 3], 1: [4, 5, 6, 7]}
    assert deal.seed_for(1, 10) == 11
    assert [index for index, _ in deal.take(1, answer(5))] == [5]
    deal.broken(1)
    assert deal.dealt_again == 3
    assert deal.next_for([0, 1]) == {1: [4, 5, 6, 7]}  # the same batch gives the same bits
    assert deal.seed_for(1, 10) == 11
    assert [index for index, _ in deal.take(1, answer(4, 5, 6, 7))] == [4, 6, 7]


def test_new_work_of_an_engine_has_a_seed_of_its_own_where_the_deal_is_by_load():
    deal = Deal(requests(2, 4), engines=2, capacity=1, rule="load")
    assert len({deal.seed_for(engine, 10) for engine in (0, 1, 0, 1)}) == 4


def test_a_request_that_is_refused_again_and_again_ends_the_stream_with_the_reason():
    deal = Deal(requests(1, 1), engines=2, capacity=4, rule="load")
    with pytest.raises(RequestFailed, match="request 0 of 1 was refused 3 times: too long"):
        for _ in range(MAX_ATTEMPTS):
            ((engine, numbers),) = deal.next_for([0, 1]).items()
            deal.take(engine, answer(failed=[(numbers[0], "too long")]))
