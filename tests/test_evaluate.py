"""`stepladder evaluate` and `compare` from end to end against a real HTTP server."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import png
from scripted_endpoint import ScriptedEndpoint, completion

from rl.cli import main
from rl.inference.comparison import difference, summarize
from rl.inference.result_file import read_results
from rollouts.images import data_url

TEMPLATE = "{% for m in messages %}|{{ m }}{% endfor %} {{ problem }}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"problem": f"What is {a} + 1?", "answer": str(a + 1)} for a in range(6)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    return tmp_path


def number_in(body):
    return int(re.search(r"What is (\d+)", body["messages"][-1]["content"]).group(1))


def answers(body, n):
    """Right for even numbers at temperature 0; a synthesis is always right."""
    number = number_in(body)
    right = number % 2 == 0 or "|" in body["messages"][-1]["content"]
    return 200, completion(rf"<think>...</think>\boxed{{{number + (1 if right else 5)}}}", completion_tokens=7)


def evaluate(endpoint, *options, data="sums.jsonl", out="out.jsonl"):
    return main(
        ["evaluate", data, "--model", "m", "--endpoint", endpoint.url, "--template", "t.jinja", "--retries", "0",
         "--out", out, "--reward", "rewards.math_answer:math_reward", *options]  # math, without its slow start
    )  # fmt: skip


def test_pacore_answers_are_graded_and_every_round_is_in_the_file(folder, capsys):
    with ScriptedEndpoint(answers) as endpoint:
        assert evaluate(endpoint, "--widths", "3,2") == 0
        assert len(endpoint.requests) == 6 * (3 + 2 + 1)
    results = read_results(folder / "out.jsonl")
    assert len(results.answers) == 6
    for answer in results.answers:
        assert [len(one.responses) for one in answer.rounds] == [3, 2, 1]
        assert answer.completion_tokens == 6 * 7
        assert answer.reward == 1.0
        assert answer.rounds[0].rewards == [float(answer.row % 2 == 0)] * 3
        assert answer.rounds[0].prompts == []
        assert answer.rounds[1].prompts[0][-1]["content"].count("|") == 3
        assert answer.seconds >= max(one.seconds for one in answer.rounds) > 0
    shown = capsys.readouterr().out
    assert "PaCoRe [3, 2], avg@1" in shown
    assert "1.000" in shown


def test_messages_without_room_are_told_and_not_taken_to_be_read(folder, capsys):
    # A token per three characters. Of eight messages of 128 tokens and more, 700 - 64 have room for four at most.
    def counted(body, n):
        prompt = body["messages"][-1]["content"]
        if len(prompt) // 3 + body["max_tokens"] > 700:
            return 400, {"error": "too long"}
        wrong = "|" not in prompt and body["seed"] % 2
        text = rf"{'so we add them one by one and then compare. ' * 9}\boxed{{{number_in(body) + (5 if wrong else 1)}}}"
        return 200, completion(text, prompt_tokens=len(prompt) // 3, completion_tokens=len(text) // 3)

    with ScriptedEndpoint(counted) as endpoint:
        assert evaluate(endpoint, "--widths", "8", "--context", "700", "--max-tokens", "64") == 0
    answers = read_results(folder / "out.jsonl").answers
    measures = {measure.name: measure.estimate.value for measure in summarize(read_results(folder / "out.jsonl")).measures}
    shown = [answer.rounds[1].shown[0] for answer in answers]
    assert all(0 < len(places) <= 4 for places in shown)
    assert measures["messages left out, no room"] == pytest.approx(sum(8 - len(places) for places in shown) / 6)
    read = [[answer.rounds[0].rewards[place] for place in places] for answer, places in zip(answers, shown)]
    assert measures["messages read, mean"] == pytest.approx(sum(sum(own) / len(own) for own in read) / 6)
    assert "messages left out, no room" in capsys.readouterr().out


def test_requests_that_were_tried_again_are_counted(folder, capsys):
    def sometimes(body, n):
        return (503, {"error": "busy"}) if n in (1, 4) else answers(body, n)

    with ScriptedEndpoint(sometimes) as endpoint:
        assert evaluate(endpoint, "--widths", "2", "--retries", "3") == 0
        assert len(endpoint.requests) == 6 * 3 + 2
    results = read_results(folder / "out.jsonl")
    assert sum(sum(one.attempts) for answer in results.answers for one in answer.rounds) == 6 * 3 + 2
    assert "2 requests tried again" in " ".join(capsys.readouterr().out.split())


def test_the_first_reward_decides_and_the_mean_of_the_others_is_told(folder, capsys):
    (folder / "terse.py").write_text(
        "def terse(completions, *, limit=100, **columns):\n    return [float(len(str(c)) < limit) for c in completions]\n"
    )
    more = ["--reward", "terse.py:terse", "--reward", "format", "--arg", "terse.py:terse.limit=5"]
    more += ["--arg", "format.pattern=(?s).*8.*", "--success", "0.5"]
    with ScriptedEndpoint(answers) as endpoint:
        assert evaluate(endpoint, "--mode", "sere", *more) == 0
        assert evaluate(endpoint, "--mode", "sere", *more) == 0  # it is all there
        assert len(endpoint.requests) == 6
    results = read_results(folder / "out.jsonl")
    assert {answer.row: answer.further_rewards["format"] for answer in results.answers} == {
        0: 0.0, 1: 0.0, 2: 0.0, 3: 1.0, 4: 0.0, 5: 0.0
    }  # fmt: skip
    assert all(answer.further_rewards["terse.py:terse"] == 0.0 for answer in results.answers)
    measures = {measure.name: measure.estimate.value for measure in summarize(results).measures}
    assert measures["one chain, avg@1"] == 0.5
    assert measures["format, mean"] == pytest.approx(1 / 6)
    assert measures["terse.py:terse, mean"] == 0.0
    capsys.readouterr()
    assert evaluate(endpoint, "--arg", "other.x=1") == 2
    assert "there is no --reward other" in capsys.readouterr().err


def test_images_of_rows_are_shown_and_their_bytes_stay_out_of_the_file(folder):
    (folder / "red.png").write_bytes(png("red"))
    url = data_url(png("blue"))
    rows = [{"prompt": f"What is {n} + 1?", "solution": str(n + 1), "image": image} for n, image in ((0, "red.png"), (2, url))]
    (folder / "seen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def look(body, n):
        parts = body["messages"][-1]["content"]
        assert [part["type"] for part in parts] == ["image_url", "text"]
        number = int(re.search(r"What is (\d+)", parts[1]["text"]).group(1))
        return 200, completion(rf"\boxed{{{number + 1}}}")

    with ScriptedEndpoint(look) as endpoint:
        assert evaluate(endpoint, "--widths", "2", data="seen.jsonl") == 0
        assert len(endpoint.requests) == 2 * 3
    with ScriptedEndpoint(lambda body, n: (200, completion(str(number_in(body) + 1)))) as endpoint:
        assert evaluate(endpoint, "--mode", "sere", "--no-images", data="seen.jsonl", out="blind.jsonl") == 0
    assert all(answer.reward == 1.0 for answer in read_results(folder / "out.jsonl").answers)
    assert "base64" not in (folder / "out.jsonl").read_text()


def test_problems_of_a_task_are_always_the_same(folder):
    def add(body, n):
        a, b = map(int, re.findall(r"\d+", body["messages"][-1]["content"]))
        return 200, completion(rf"\boxed{{{a + b}}}")

    with ScriptedEndpoint(add) as endpoint:
        assert evaluate(endpoint, "--limit", "3", data="task:addition") == 0
        assert evaluate(endpoint, "--limit", "5", data="task:addition", out="more.jsonl") == 0
        assert evaluate(endpoint, "--task-arg", "digits=1", "--limit", "4", data="task:addition", out="short.jsonl") == 0
        assert max(map(int, re.findall(r"\d+", endpoint.requests[-1]["messages"][-1]["content"]))) < 10
    few, more = (read_results(folder / name).answers for name in ("out.jsonl", "more.jsonl"))
    assert [answer.reward for answer in few] == [1.0] * 3
    assert {answer.prompt_id for answer in few} < {answer.prompt_id for answer in more}


def test_columns_of_another_name_are_asked_for_and_mapped(folder, capsys):
    rows = [{"q": f"What is {n} + 1?", "gold": str(n + 1)} for n in (0, 2)]
    (folder / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ScriptedEndpoint(answers) as endpoint:
        assert evaluate(endpoint, "--mode", "sere", data="odd.jsonl") == 2
        assert capsys.readouterr().err.strip() == (
            "odd.jsonl: row 1: is of no known layout and has no column 'prompt'; it has: q, gold. "
            "Map one with --column prompt=NAME"
        )
        columns = ["--column", "prompt=q", "--column", "solution=gold"]
        assert evaluate(endpoint, "--mode", "sere", *columns, data="odd.jsonl") == 0
    assert [answer.reward for answer in read_results(folder / "out.jsonl").answers] == [1.0, 1.0]


def test_a_vote_elects_the_answer(folder):
    def split(body, n):  # by the request's seed: sometimes 3 = 2 + 1, sometimes another number every time
        return 200, completion(rf"\boxed{{{number_in(body) + 1 if body['seed'] % 2 else body['seed']}}}")

    with ScriptedEndpoint(split) as endpoint:
        assert evaluate(endpoint, "--mode", "majority", "--widths", "9") == 0
    results = read_results(folder / "out.jsonl")
    for answer in results.answers:
        assert len(answer.rounds[0].responses) == 9
        # Wrong numbers are all different, so two right ones win the vote.
        assert (answer.reward == 1.0) == (sum(answer.rounds[0].rewards) >= 2 or answer.rounds[0].rewards[0] == 1.0)


def test_an_interrupted_evaluation_goes_on_where_it_was(folder, capsys):
    def broken(body, n):
        return (500, {}) if number_in(body) >= 4 else answers(body, n)

    with ScriptedEndpoint(broken) as endpoint:
        assert evaluate(endpoint, "--samples", "2") == 1
    assert "4 of 12 answers failed" in capsys.readouterr().err
    assert len(read_results(folder / "out.jsonl").failures) == 4
    file = folder / "out.jsonl"
    file.write_bytes(file.read_bytes() + b'{"record": "answer", "row": 3')  # half a line, as a kill leaves it
    with ScriptedEndpoint(answers) as endpoint:
        assert evaluate(endpoint, "--samples", "2") == 0
        assert sorted(number_in(request) for request in endpoint.requests) == [4, 4, 5, 5]
        assert evaluate(endpoint, "--samples", "3") == 0  # more samples of the same
        assert len(endpoint.requests) == 4 + 6
        assert evaluate(endpoint, "--samples", "3") == 0  # nothing left to do
        assert len(endpoint.requests) == 4 + 6
    results = read_results(file)
    assert len(results.answers) == 18
    assert not results.failures


def test_ctrl_c_keeps_what_was_answered(folder):
    def slow_from_the_third(body, n):
        time.sleep(900 if n >= 3 else 0)
        return answers(body, n)

    root = str(Path(__file__).parent.parent)
    with ScriptedEndpoint(slow_from_the_third) as endpoint:
        command = [
            sys.executable, "-m", "rl.cli", "evaluate", "sums.jsonl", "--model", "m", "--endpoint", endpoint.url,
            "--out", "out.jsonl", "--reward", "rewards.math_answer:math_reward",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": root}, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        )  # fmt: skip
        end = time.monotonic() + 600
        while not (folder / "out.jsonl").exists() or len((folder / "out.jsonl").read_text().splitlines()) < 4:
            assert time.monotonic() < end, process.poll()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130
        assert b"run the same command to continue" in process.stderr.read()
    assert len(read_results(folder / "out.jsonl").answers) == 3


def test_answers_do_not_depend_on_what_was_interrupted(folder):
    def by_seed(body, n):
        return 200, completion(rf"\boxed{{{body['seed']}}}")

    with ScriptedEndpoint(by_seed) as endpoint:
        assert evaluate(endpoint, "--samples", "2", out="a.jsonl") == 0
        assert evaluate(endpoint, "--samples", "1", out="b.jsonl") == 0
        assert evaluate(endpoint, "--samples", "2", out="b.jsonl") == 0
    a, b = (read_results(folder / name).answers for name in ("a.jsonl", "b.jsonl"))
    assert {(x.row, x.sample, x.answer) for x in a} == {(x.row, x.sample, x.answer) for x in b}


@pytest.mark.parametrize(
    ("options", "difference"),
    [(["--temperature", "0.5"], "temperature: 1.0 in the file, 0.5 now"), (["--widths", "2"], "mode: 'sere' in the file, 'pacore' now"),
     (["--limit", "2"], "data_fingerprint")],
)  # fmt: skip
def test_a_file_of_another_configuration_is_refused(folder, capsys, options, difference):
    with ScriptedEndpoint(answers) as endpoint:
        assert evaluate(endpoint) == 0
        before = (folder / "out.jsonl").read_bytes()
        capsys.readouterr()
        assert evaluate(endpoint, *options) == 2
    assert difference in capsys.readouterr().err
    assert (folder / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "sere", "--widths", "3"], "--widths: one chain has none"),
        (["--mode", "majority"], "--mode majority needs --widths"),
        (["--mode", "pacore"], "--mode pacore needs --widths"),
        (["--widths", "3,0"], "positive numbers such as 32,4, or one of light-2"),
        (["--reward", "maths"], "did you mean 'math'"),
        (["--reward", "gui_click"], "no column 'image_size'"),
        (["--conclusion", "("], "not a regular expression"),
        (["--column", "solution"], "expected NAME=VALUE"),
        (["--column", "solution=reference"], "no column 'reference'"),
        (["--layout", "aime"], "no layout 'aime'"),
        (["--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
        (["--temperature", "-1"], "a number from 0 on"),
        (["--no-such"], "unrecognized arguments: --no-such"),
    ],
)
def test_mistakes_are_told_and_leave_no_file(folder, capsys, options, message):
    with ScriptedEndpoint(answers) as endpoint:
        assert evaluate(endpoint, *options) == 2
        assert not endpoint.requests
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (folder / "out.jsonl").exists()


def test_a_file_that_holds_something_else_is_not_overwritten(folder, capsys):
    (folder / "out.jsonl").write_text('{"a": 1}\n')
    with ScriptedEndpoint(answers) as endpoint:
        assert evaluate(endpoint) == 2
    assert "not a line of a result file" in capsys.readouterr().err
    assert (folder / "out.jsonl").read_text() == '{"a": 1}\n'


def test_measures_of_chains_and_of_syntheses_by_hand(folder):
    # One chain is right on the even numbers, 3 of 6; a synthesis on all: 3 of them from messages that are all wrong.
    with ScriptedEndpoint(answers) as endpoint:
        evaluate(endpoint, "--widths", "2", out="pacore.jsonl")
        evaluate(endpoint, "--samples", "4", out="sere.jsonl")
    pacore, sere = (summarize(read_results(folder / name)) for name in ("pacore.jsonl", "sere.jsonl"))
    values = {measure.name: measure.estimate.value for measure in pacore.measures}
    assert values["PaCoRe [2], avg@1"] == 1.0
    assert values["messages read, mean"] == values["messages read, majority"] == 0.5
    assert values["gain over the messages' mean"] == values["gain over their majority"] == 0.5
    assert values["no message right"] == 0.5
    assert values["right where no message is"] == 1.0
    assert values["repeats a message"] == 0.5
    assert {m.name: m.tokens_per_answer for m in pacore.measures}["PaCoRe [2], avg@1"] == 21  # 3 x 7
    values = {measure.name: (measure.estimate.value, measure.tokens_per_answer) for measure in sere.measures}
    assert values["one chain, avg@4"] == (0.5, 7)
    assert values["maj@4"] == (0.5, 28)
    assert values["pass@4"] == (0.5, None)
    gain, count = difference(pacore, sere)
    assert (gain.value, count) == (0.5, 6)


def test_compare_draws_accuracy_against_tokens(folder, capsys):
    with ScriptedEndpoint(answers) as endpoint:
        evaluate(endpoint, "--widths", "light-2", out="pacore.jsonl")
        evaluate(endpoint, "--samples", "4", out="sere.jsonl")
    assert main(["compare", "sere.jsonl", "pacore.jsonl", "--plot", "p/out.png", "--json", "out.json"]) == 0
    assert (folder / "p/out.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "pacore.jsonl minus sere.jsonl: 0.500" in " ".join(capsys.readouterr().out.split())
    (sere, pacore) = json.loads((folder / "out.json").read_text())
    assert sere["measures"][0]["estimate"]["value"] == 0.5
    assert pacore["completion_tokens"]["value"] == 21


def test_the_curves_are_the_three_ways_of_answering(folder):
    from rl.inference.comparison_plot import curves

    with ScriptedEndpoint(answers) as endpoint:
        for widths in ("2", "4"):
            evaluate(endpoint, "--widths", widths, out=f"{widths}.jsonl")
        evaluate(endpoint, "--samples", "8", out="sere.jsonl")
    found = curves([summarize(read_results(folder / name)) for name in ("4.jsonl", "2.jsonl", "sere.jsonl")])
    points = {curve.kind: [(label, m.tokens_per_answer) for label, m in zip(curve.labels, curve.measures)] for curve in found}
    assert points["one chain"] == [("one chain", 7)]
    assert points["majority vote"] == [("maj@2", 14), ("maj@4", 28), ("maj@8", 56)]
    assert points["PaCoRe"] == [("PaCoRe [2]", 21), ("PaCoRe [4]", 35)]


def test_models_of_the_same_name_are_told_apart_in_the_legend(folder):
    from rl.inference.comparison_plot import figure, short_names

    with ScriptedEndpoint(answers) as endpoint:
        evaluate(endpoint, "--widths", "2", out="a.jsonl")
    before, after = read_results(folder / "a.jsonl"), read_results(folder / "a.jsonl")
    before, after = (
        dataclasses.replace(results, settings=dataclasses.replace(results.settings, model=model))
        for results, model in ((before, "runs/a/checkpoints/sft/final"), (after, "runs/a/final"))
    )
    legend = figure([summarize(before), summarize(after)]).axes[0].get_legend()
    assert {text.get_text() for text in legend.get_texts()} == {
        "one chain, sft/final", "majority vote, sft/final", "PaCoRe, sft/final", "one chain, a/final",
        "majority vote, a/final", "PaCoRe, a/final",
    }  # fmt: skip
    assert short_names(["a/x", "a/y"]) == {"a/x": "x", "a/y": "y"}
    assert short_names(["x", "a/x"]) == {"x": "x", "a/x": "a/x"}


def test_solve_prints_the_conclusion_and_traces_the_rounds(folder, capsys):
    with ScriptedEndpoint(answers) as endpoint:
        code = main(["solve", "--model", "m", "--endpoint", endpoint.url, "--widths", "3", "--template", "t.jinja", "What is 3 + 1?"])
        assert code == 0
        assert len(endpoint.requests) == 4
    captured = capsys.readouterr()
    assert captured.out == "\\boxed{4}\n"
    assert "round 1: 3 responses, 21 tokens" in captured.err
    assert "\\boxed{8}" in captured.err


def test_solve_reads_standard_input_and_prints_json(folder, capsys, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("What is 2 + 1?"))
    with ScriptedEndpoint(answers) as endpoint:
        assert main(["solve", "--model", "m", "--endpoint", endpoint.url, "--json"]) == 0
        assert endpoint.requests[0]["messages"] == [{"role": "user", "content": "What is 2 + 1?"}]
    (only,) = json.loads(capsys.readouterr().out)
    assert only["messages"] == ["\\boxed{3}"]


def test_solve_says_why_there_is_no_answer(folder, capsys):
    with ScriptedEndpoint(lambda body, n: (500, {"error": "boom"})) as endpoint:
        assert main(["solve", "--model", "m", "--endpoint", endpoint.url, "--retries", "0", "x"]) == 1
    assert "boom" in capsys.readouterr().err


def test_the_report_of_a_run_shows_its_result_files(folder):
    from rl.reporting.evaluations import evaluations

    assert evaluations(folder) is None
    with ScriptedEndpoint(answers) as endpoint:
        evaluate(endpoint, "--widths", "2", out="run/pacore.jsonl")
    (folder / "run" / "other.jsonl").write_text("{}\n")
    shown = evaluations(folder / "run")
    (line,) = shown.lines
    assert (line.file, line.way, line.num_problems, line.tokens) == ("pacore.jsonl", "PaCoRe [2], avg@1", 6, 21)
    assert line.accuracy.value == 1.0
    assert ">[2]<" in shown.svg and ">maj@2<" in shown.svg


def test_a_task_that_is_not_there_is_told(folder, capsys):
    with ScriptedEndpoint(answers) as endpoint:
        assert evaluate(endpoint, data="task:sums") == 2
        assert evaluate(endpoint, "--task-arg", "digit=3", data="task:addition") == 2
    told = capsys.readouterr().err
    assert "unknown task 'sums'; allowed: addition" in told
    assert "task 'addition' has no argument 'digit'" in told
