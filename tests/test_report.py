"""report.html: everything that a run left behind, safe to open, from whatever state the run is in."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rl.cli import main
from rl.errors import UserError
from rl.reporting.charts import Group, series, smoothed
from rl.reporting.report import write_report

HOSTILE = "<script>alert('x')</script> $x_1 & \"quotes\" </pre>"
RECIPE = f"""\
name: small
seed: 3
model: {{path: organisation/name}}
stages:
  sft: {{kind: sft}}
  rlvr:
    kind: rl
    rewards: [{{fn: math}}, {{fn: "mine.py:brevity", name: null}}]
  later: {{kind: rl, rewards: [{{fn: math}}]}}
# {HOSTILE}
"""


class Page(HTMLParser):
    """Tags that are open, all text, and everything that a browser would fetch."""

    _VOID = {"meta", "br", "link", "img", "use", "path", "rect"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in self._VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "srcset", "action") or "url(" in (value or ""):
                self.fetched.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self._VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def words(self) -> str:
        """The text with one blank between any two cells and words."""
        return " ".join(" ".join(self.texts).split())


def metrics(stage: str, iteration: int, **values: float) -> dict[str, object]:
    return {"stage": stage, "iteration": iteration, "time": 1_700_000_000 + iteration, **values}


def rl_metrics(iteration: int) -> dict[str, object]:
    values = {
        "reward_mean": 0.1 * iteration,
        "reward_mean/addition": 0.1,
        "reward_mean/<b>screen $5$": 0.2,
        "accuracy": 0.5,
        "entropy": math.nan,
        "reward/math": float(iteration),
        "rollout_gap_mean": 1e-6,
        "rollout_gap_max": 1e-5,
        "time/rollout_s": 3.0,
        "time/learning_s": 1.0,
        "time/iteration_s": 4.0,
    }
    return metrics("rlvr", iteration, **values)


def rollout(iteration: int, number: int, **changes: object) -> dict[str, object]:
    return {
        "iteration": iteration,
        "prompt_id": f"p{number}",
        "origin": "addition",
        "prompt": f"prompt {iteration}.{number}",
        "completion": f"completion {iteration}.{number}",
        "finish_reason": "stop",
        "policy_version": iteration,
        "num_tokens": 5,
        "reward": 1.0,
        "terms": {"math": 1.0},
    } | changes


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def make_run(path: Path) -> Path:
    """A run with one finished stage, one that is under way, and one that has not begun."""
    path.mkdir()
    (path / "recipe.yaml").write_text(RECIPE)
    record = {"kind": "sft", "iterations": 60, "seconds": 75.0, "before": {"addition": 0.125}, "after": {"addition": 0.5}}
    (path / "state.json").write_text(json.dumps({"stages": {"sft": {**record, "details": {"loss": 0.25}}}}))
    rows = [metrics("sft", step, loss=1 / (step + 1)) for step in range(60)] + [rl_metrics(i) for i in range(20)]
    write_lines(path / "metrics.jsonl", rows)
    samples = [rollout(i, n) for i in range(20) for n in range(8)]
    samples[0]["completion"] = HOSTILE
    samples[1]["prompt"] = [{"role": "user", "content": HOSTILE}]
    write_lines(path / "rollouts/rlvr/iterations.jsonl", samples)
    failure = {"reward": "brevity", "status": "timeout", "message": HOSTILE, "prompt_id": "p", "completion": "c"}
    write_lines(path / "rollouts/rlvr/failures.jsonl", [failure, failure, {**failure, "status": "error"}])
    return path


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "run")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source) -> Page:
    return Page(source)


def test_the_page_is_well_formed(page):
    assert page.open == []


def test_the_page_loads_nothing_and_runs_nothing(page, source):
    assert all(re.fullmatch(r"#[\w-]+|.*url\(#[\w-]+\).*", target, re.DOTALL) for target in page.fetched), page.fetched
    assert "script" not in page.seen
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of XML vocabularies
    assert "@import" not in source


def test_hostile_text_is_shown_as_text(page):
    assert page.text.count(HOSTILE) >= 4  # completion, prompt, failure, recipe
    assert "<b>screen $5$" in page.text


def test_every_stage_stands_in_the_table_with_its_state_and_scores(page):
    words = page.words
    assert "sft sft done 60 1 min 15 s 0.125 \N{RIGHTWARDS ARROW} 0.500 +0.375" in words
    assert "rlvr rl not finished 20 -" in words
    assert "later rl not started 0 -" in words


def test_curves_are_drawn_for_what_was_measured(page):
    assert {"Loss", "Reward", "Accuracy", "Log-prob gap", "Time"} <= set(page.texts)
    assert {"Entropy", "Clip fraction"}.isdisjoint(page.texts)  # only not-a-number, not logged
    assert page.seen.count("svg") == 5


def test_rewards_show_their_means_and_failures_by_status(page):
    words = page.words
    # 20 iterations, the reward is the index: tenths are (0, 1) and (18, 19)
    assert "math 0.500 18.500 none" in words
    assert "brevity - - 1 error, 2 timeout <script>" in words


def test_a_handful_of_different_rollouts_is_shown_early_and_late(page):
    assert "completion 19.2" in page.text
    assert "completion 10.0" not in page.text
    assert sum(text.startswith("completion 1") for text in page.texts) == 4


def test_damaged_lines_and_a_last_one_cut_within_a_character_change_nothing(run_dir):
    whole = write_report(run_dir).read_text()
    damage = '\x00\x00\n[1]\n7\n\n{"stage": "rlvr"\n{"stage": "\xe9'.encode()[:-1]
    for name in ("metrics.jsonl", "rollouts/rlvr/iterations.jsonl", "rollouts/rlvr/failures.jsonl"):
        with (run_dir / name).open("ab") as file:
            file.write(damage)
    assert write_report(run_dir).read_text() == whole


def test_separators_of_lines_within_text_do_not_cut_a_rollout(run_dir):
    write_lines(run_dir / "rollouts/rlvr/iterations.jsonl", [rollout(0, 0, completion="one\u2028two\x85three")])
    assert "one\u2028two\x85three" in write_report(run_dir).read_text()


def test_a_long_completion_is_cut_in_the_middle(run_dir):
    write_lines(run_dir / "rollouts/rlvr/iterations.jsonl", [rollout(0, 0, completion="a" * 5000 + "b" * 5000)])
    text = write_report(run_dir).read_text()
    assert "[... 4,000 characters are left out ...]" in text
    assert "b" * 3000 + "<" in text


def test_a_run_that_has_only_begun(run_dir):
    for name in ("state.json", "metrics.jsonl"):
        (run_dir / name).unlink()
    assert "not started" in write_report(run_dir).read_text()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("recipe.yaml", None, "not a run directory: it has no recipe.yaml"),
        ("recipe.yaml", "a: [", "cannot be read"),
        ("recipe.yaml", "- a", "not the recipe of a run: it has no stages"),
        ("state.json", "{", "not the state of a run"),
        ("state.json", '{"stages": {"sft": {}}}', "not the state of a run"),
    ],
)
def test_a_folder_that_is_not_a_run(name, text, told, run_dir):
    (run_dir / name).unlink()
    if text is not None:
        (run_dir / name).write_text(text)
    with pytest.raises(UserError, match=told):
        write_report(run_dir)
    assert not (run_dir / "report.html").exists()


def test_a_folder_that_does_not_exist_is_the_users_mistake(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "there is no such run directory" in capsys.readouterr().err


def test_the_command_says_where_the_report_is(run_dir, capsys):
    assert main(["report", str(run_dir)]) == 0
    assert str(run_dir / "report.html") in capsys.readouterr().out.replace("\n", "")


# ---------------------------------------------------------------- curves


def test_one_source_alone_is_not_drawn_beside_the_whole():
    rows = [{"iteration": 0, "reward_mean": 1.0, "reward_mean/only": 1.0}]
    group = Group("Reward", ("reward_mean",), prefix="reward_mean")
    assert [curve.label for curve in series(rows, group, first=1)] == ["mean"]
    rows[0]["reward_mean/other"] = 2.0
    assert [curve.label for curve in series(rows, group, first=1)] == ["mean", "only", "other"]


def test_of_many_curves_an_even_choice_is_drawn():
    rows = [{"iteration": 0} | {f"synthesis_accuracy/{n}_correct_messages": 0.5 for n in range(25)}]
    curves = series(rows, Group("Synthesis", (), prefix="synthesis_accuracy"), first=1)
    assert [curve.label for curve in curves] == ["0", "4", "8", "12", "16", "20", "24"]


def test_a_long_curve_is_thinned_to_means_of_neighbours():
    rows = [{"iteration": i, "loss": float(i)} for i in range(800)]
    (curve,) = series(rows, Group("Loss", ("loss",)), first=1)
    assert len(curve.x) == 400
    assert (curve.x[:2], curve.y[:2]) == ((1.5, 3.5), (0.5, 2.5))


def test_smoothing_keeps_short_curves_lines_and_both_ends():
    assert smoothed([1.0, 5.0, 3.0]) == [1.0, 5.0, 3.0]
    line = [float(i) for i in range(100)]
    assert smoothed(line) == pytest.approx(line)
    assert smoothed([9.0] + [0.0] * 99)[0] == 9.0


def test_the_calibration_of_a_reward_model_is_drawn(run_dir):
    from rl.reward_model.quality import PairScores, write_calibration

    assert "Calibration" not in Page(write_report(run_dir).read_text()).words
    folder = run_dir / "checkpoints" / "later" / "final"
    write_calibration(folder, PairScores((1.0, 2.0, 0.5), (0.0, 0.0, 0.7)))
    page = Page(write_report(run_dir).read_text())
    assert page.words.count("Calibration") == 1
    assert "confidence of the model" in page.words
    assert page.open == []


def test_an_over_optimised_reward_is_plotted_over_kl_and_named(run_dir):
    recipe = RECIPE.replace('{fn: math}, {fn: "mine', '{fn: preference, gold: requests}, {fn: "mine')
    (run_dir / "recipe.yaml").write_text(recipe)
    golds = [0.5, 0.8, 0.6, 0.4]
    rows = [
        metrics("rlvr", i, **{"kl_ref_per_response": float(i), "reward/preference": float(i), "held_out/requests": gold,
                              "held_out_error/requests": 0.02})
        for i, gold in enumerate(golds)
    ]  # fmt: skip
    write_lines(run_dir / "metrics.jsonl", rows)
    page = Page(write_report(run_dir).read_text())
    assert page.words.count("Proxy and gold") == 1
    assert "over-optimisation: the reward 'preference' rose from 1.000 to 3.000" in page.words
    write_lines(run_dir / "metrics.jsonl", [{**row, "held_out/requests": 0.5} for row in rows])
    assert "over-optimisation" not in Page(write_report(run_dir).read_text()).words


def test_a_score_with_an_interval_is_shown_with_it(run_dir):
    state = json.loads((run_dir / "state.json").read_text())
    state["stages"]["sft"]["details"] |= {"addition/score_low": 0.437, "addition/score_high": 0.563}
    (run_dir / "state.json").write_text(json.dumps(state))
    assert "0.437 to 0.563" in Page(write_report(run_dir).read_text()).words
