"""Scoring a file of responses."""

import json
from pathlib import Path

import pytest

from rewards.result import RewardStatus
from rewards.score_file import ScoreFileError, score_file

FUNCTIONS = Path(__file__).parent / "data" / "reward_functions.py"


def write(path: Path, *rows) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_rows_come_back_with_reward_status_and_message(tmp_path):
    rows = [{"completion": text, "note": i} for i, text in enumerate(["2", "4", "raise", "none", "nan"])]
    source, out, progress = write(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl", []
    summary = score_file(source, f"{FUNCTIONS}:obey", out=out, timeout_s=120, on_progress=progress.append)
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["reward"], row["status"]) for row in scored] == [
        (2.0, "ok"), (4.0, "ok"), (None, "error"), (None, "not_applicable"), (None, "invalid"),
    ]  # fmt: skip
    assert [row["note"] for row in scored] == [0, 1, 2, 3, 4]
    assert "a bad row" in scored[2]["message"]
    assert (summary.num_rows, summary.mean, summary.lowest, summary.highest) == (5, 3.0, 2.0, 4.0)
    assert summary.counts[RewardStatus.OK] == 2
    assert summary.first_failures[0].startswith("line 3: error: ValueError: a bad row")
    assert str(summary) == "5 rows: 2 ok, 1 error, 1 not_applicable, 1 invalid; mean 3.0000, from 2 to 4"
    assert progress == [5]


def test_what_a_reward_logs_is_averaged_over_the_file(tmp_path):
    target = [0, 0, 10, 10]
    common = {"image_size": [100, 100], "target_boxes": [target]}
    rows = [
        {"completion": ["click(5, 5)"], "completed": True, **common},
        {"completion": ["click(50, 50)"], "completed": False, **common},
        {"completion": ["click(5, 5)"], "completed": None, **common},
    ]
    summary = score_file(write(tmp_path / "in.jsonl", *rows), "gui_episode")
    assert summary.metrics["gui/grounding_accuracy"] == 0.5
    assert summary.metrics["gui/task_completion_rate"] == 0.5
    assert summary.mean == (3.0 - 1.0) / 2


def test_mathematics_is_scored_from_a_file(tmp_path):
    rows = [{"completion": rf"\boxed{{{i}}}", "solution": "3", "prompt": "1 + 2"} for i in range(4)]
    assert score_file(write(tmp_path / "in.jsonl", *rows), "math").mean == 0.25


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"completion": ', "line 2: not JSON"),
        ("[1, 2]", "line 2: expected a JSON object, found list"),
        ('{"solution": "1"}', r"line 2: no 'completion' \(every row needs one\)"),
        ('{"completion": "1"}', r"line 2: no 'solution' \(reward 'math' needs it\); the row has \['completion'\]"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, message):
    source = write(tmp_path / "in.jsonl", {"completion": "1", "solution": "1"}, bad)
    with pytest.raises(ScoreFileError, match=message) as error:
        score_file(source, "math")
    assert str(source) in str(error.value)


def test_a_missing_file_and_an_output_over_the_input_are_named(tmp_path):
    with pytest.raises(ScoreFileError, match="cannot be read"):
        score_file(tmp_path / "missing.jsonl", "math")
    source = write(tmp_path / "in.jsonl", {"completion": "1", "solution": "1"})
    with pytest.raises(ScoreFileError, match="overwrite the input"):
        score_file(source, "math", out=source)


def test_blank_lines_are_skipped_and_an_empty_file_has_no_mean(tmp_path):
    summary = score_file(write(tmp_path / "in.jsonl", "", ""), "math")
    assert (summary.num_rows, summary.mean, str(summary)) == (0, None, "0 rows: nothing to score")
