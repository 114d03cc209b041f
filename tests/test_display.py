"""What is printed at the end of a run: nothing of it is cut, whatever the width."""

import io

import pytest
from rich.console import Console

from rl.display import LiveDisplay, PlainDisplay
from rl.run_directory import StageRecord

NAMES = [f"a_held_out_set_of_some_length_{i}" for i in range(8)]
RECORDS = {
    "sft": StageRecord("sft", 700, 12.5, {}, dict.fromkeys(NAMES, 0.25), {}),
    "preference": StageRecord("preference_model", 200, 10.0, {}, {}, {}),
    "a_stage_of_reinforcement": StageRecord("rl", 20, 99.0, dict.fromkeys(NAMES, 0.25), dict.fromkeys(NAMES, 0.5), {}),
}


@pytest.mark.parametrize("display", [PlainDisplay, LiveDisplay])
@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_table_at_the_end_is_whole_at_every_width(display, width, count):
    out = io.StringIO()
    shown = {
        name: StageRecord(r.kind, r.iterations, r.seconds, dict(list(r.before.items())[:count]),
                          dict(list(r.after.items())[:count]), {})
        for name, r in RECORDS.items()
    }
    display(Console(file=out, width=width)).table(shown)
    text = out.getvalue()
    assert "\u2026" not in text  # the mark that something was cut
    for part in (*NAMES[:count], *RECORDS, "preference_model", "12.5 s"):
        assert part in text
    assert text.count("0.250 -> 0.500") == count
    assert text.count("- -> 0.250") == count
