"""The time line of iterations: events that Chrome reads, and how long things overlapped."""

import pytest

from rl.trace import Span, StageTrace, busy_s, chrome_trace, overlap_s

SPANS = [
    Span("engine 0", "sampling", 10.0, 14.0),
    Span("engine 1", "sampling", 13.0, 15.0),
    Span("learner", "learning", 14.5, 18.0),
    Span("engine 0", "sampling", 17.0, 19.0),
]


def test_overlap_counts_time_once_however_many_work_in_it():
    # engines worked in 10-15 and 17-19, the learner in 14.5-18: 0.5 s and 1 s
    assert overlap_s(SPANS, "engine", "learner") == pytest.approx(1.5)
    assert busy_s(SPANS, "engine") == pytest.approx(7.0)


def test_events_have_microseconds_from_the_first_and_a_row_for_each_lane():
    content = chrome_trace(SPANS)
    names = {event["tid"]: event["args"]["name"] for event in content["traceEvents"] if event["ph"] == "M"}
    assert names == {0: "learner", 1: "engine 0", 2: "engine 1"}
    events = [event for event in content["traceEvents"] if event["ph"] == "X"]
    assert [(event["tid"], event["ts"], event["dur"]) for event in events] == [
        (1, 0, 4_000_000), (2, 3_000_000, 2_000_000), (0, 4_500_000, 3_500_000), (1, 7_000_000, 2_000_000),
    ]  # fmt: skip


def test_only_the_first_iterations_of_a_stage_are_kept():
    trace = StageTrace(first=4, count=2)
    trace.learner_span("learning", 1.0, 2.0)
    assert not trace.is_over(4)
    trace.engine_span(3, 1.0, 2.0)
    assert trace.is_over(5)
    assert not trace.is_over(6)
    trace.reward_span("math", 1.0, 2.0)
    assert [(span.lane, span.name) for span in trace.spans()] == [("learner", "learning"), ("engine 3", "sampling")]
    untraced = StageTrace(first=4, count=0)
    untraced.reward_span("math", 1.0, 2.0)
    assert not untraced.is_over(4)
    assert untraced.content() == {"traceEvents": [], "displayTimeUnit": "ms", "otherData": {"began": 0.0}}
