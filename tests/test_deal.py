"""Dealing requests to engines, without engines: whatever breaks, every request is delivered once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.deal import MAX_ATTEMPTS, Deal
from rollouts.engine import Begun, Generation, GivenUp, Progress, Request, Sampling
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


def begun(number):
    return Begun(np.array([number]), np.zeros(1, np.float32), np.zeros(1, np.int32))


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
        for mover, numbers in deal.to_move().items():
            some = [number for number in numbers if data.draw(st.booleans())]  # the others finish before they are asked
            delivered += [index for index, _ in deal.take(mover, answer(*(set(numbers) - set(some))))]
            deal.given_back(mover, [(number, begun(number)) for number in some])
            holding[mover] = [number for number in holding[mover] if number not in numbers]
        if not holding[engine]:
            continue
        if what == "finish":
            count = data.draw(st.integers(1, len(holding[engine])))
            done, holding[engine] = holding[engine][:count], holding[engine][count:]
            delivered += [index for index, _ in deal.take(engine, answer(*done))]
        elif what == "crash":
            delivered += [index for index, _ in deal.broken(engine, "killed")]  # alone at three: given up
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


def test_where_all_is_dealt_what_is_left_moves_to_the_engine_with_the_fewest_with_its_tokens():
    deal = Deal(requests(6, 4), engines=3, capacity=8, rule="load")
    deal.next_for([0, 1, 2])
    assert deal.to_move() == {}
    deal.take(1, answer(4, 5, 6, 7, 16, 17, 18))  # 8, 1 and 8 are left: 5 or 6 each
    assert deal.to_move() == {0: [15, 14], 2: [23, 22]}
    assert deal.to_move() == {}  # not before these are there
    deal.take(2, answer(23))  # meanwhile it has finished
    deal.given_back(0, [(15, begun(15)), (14, begun(14))])
    deal.given_back(2, [(22, begun(22))])
    assert deal.next_for([0, 1, 2]) == {1: [15, 14, 22]}
    assert deal.requests[14].token_ids.tolist() == [3, 14]
    assert deal.to_move() == {}
    assert deal.moved == 3


def test_a_fixed_deal_is_repeated_as_a_whole_and_with_its_seed():
    deal = Deal(requests(2, 4), engines=2, capacity=1, rule="fixed")
    assert deal.next_for([0, 1]) == {0: [0, 1, 2, 3], 1: [4, 5, 6, 7]}
    assert deal.seed_for(1, 10) == 11
    assert [index for index, _ in deal.take(1, answer(5))] == [5]
    deal.broken(1, "killed")
    assert deal.dealt_again == 3
    assert deal.next_for([0, 1]) == {1: [4, 5, 6, 7]}  # the same batch gives the same bits
    assert deal.seed_for(1, 10) == 11
    assert [index for index, _ in deal.take(1, answer(4, 5, 6, 7))] == [4, 6, 7]


def test_new_work_of_an_engine_has_a_seed_of_its_own_where_the_deal_is_by_load():
    deal = Deal(requests(2, 4), engines=2, capacity=1, rule="load")
    assert len({deal.seed_for(engine, 10) for engine in (0, 1, 0, 1)}) == 4


def test_a_request_that_is_refused_again_and_again_is_given_up_and_the_others_go_on():
    deal = Deal(requests(2, 1), engines=2, capacity=4, rule="load")
    assert deal.next_for([0, 1]) == {0: [0], 1: [1]}
    given_up = deal.take(0, answer(failed=[(0, "too long")]))
    for _ in range(MAX_ATTEMPTS - 1):
        assert deal.next_for([0, 1]) == {0: [0]}
        given_up += deal.take(0, answer(failed=[(0, "too long")]))
    assert given_up == [(0, GivenUp("it was refused 3 times: too long"))]
    assert not deal.complete
    assert [index for index, _ in deal.take(1, answer(1))] == [1]
    assert deal.complete


@settings(max_examples=150, deadline=None)
@given(
    prompts=st.integers(1, 40),
    samples=st.integers(1, 4),
    engines=st.integers(1, 4),
    rule=st.sampled_from(["load", "fixed"]),
    poisoned=st.sets(st.integers(0, 159), max_size=2),
    data=st.data(),
)
def test_a_request_that_breaks_every_engine_is_found_and_the_others_are_delivered(
    prompts, samples, engines, rule, poisoned, data
):
    poisoned = {number for number in poisoned if number < prompts * samples}
    deal = Deal(requests(prompts, samples), engines=engines, capacity=16, rule=rule)
    holding = [set() for _ in range(engines)]
    delivered, given_up, breaks = [], [], 0
    while not deal.complete:
        for engine, numbers in deal.next_for(list(range(engines))).items():
            assert not deal.is_apart(engine) or not holding[engine]
            holding[engine] |= set(numbers)
        engine = data.draw(st.sampled_from([engine for engine in range(engines) if holding[engine]]))
        if holding[engine] & poisoned:
            breaks += 1
            given_up += deal.broken(engine, "CUDA error")
            holding[engine] = set()
        else:
            done = data.draw(st.integers(1, len(holding[engine])))
            numbers = sorted(holding[engine])[:done]
            holding[engine] -= set(numbers)
            delivered += [index for index, _ in deal.take(engine, answer(*numbers))]
    assert sorted(delivered) == sorted(set(range(prompts * samples)) - poisoned)
    assert {number for number, _ in given_up} == poisoned
    assert all(one.breaks >= MAX_ATTEMPTS and "last time alone" in one.reason for _, one in given_up)
    assert breaks <= 6 * max(len(poisoned), 1)  # two of a whole, then of pieces of an eighth: 160, 20, 2, 1
