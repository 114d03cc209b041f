"""The message cache: streamed, continued, filtered, imported and exported; and the prompts made from it."""

import dataclasses
import json

import pytest
import torch
from fakes import TorchEngine, scored, tiny_model, trajectory
from transformers import AutoConfig, AutoTokenizer

import rl.message_cache as filling
from rl.inference.voting import elected_message
from rl.message_cache import GradedFile, MessageCacheFiller, count, passes, told
from rl.metrics import trajectory_metrics
from rl.recipe import MessageCacheStage
from rl.reward_pools import RewardPools
from rl.scoring import ScoredTrajectory, Scorer
from rollouts.layouts import converted
from rollouts.message_cache import CachedMessage, CachedProblem, CacheFile, export_published, write_cache
from rollouts.pacore import PacorePrompts
from rollouts.prompts import MixedSource, RowStream, ShuffledRows
from rollouts.rows import DatasetError, read_rows
from rollouts.trajectory import prompt_id_of

REWARD = """
def even_length(completions, **columns):
    return [float(len(completion) % 2 == 0) for completion in completions]
def says_right(completions, solution, **columns):
    texts = [completion[0]["content"] for completion in completions]
    return [float(text.endswith(str(gold))) for text, gold in zip(texts, solution)]
"""


def problem(number, rights, **columns):
    messages = tuple(CachedMessage(f"{number}.{i}", float(right), right, 3) for i, right in enumerate(rights))
    return CachedProblem(f"id{number}", f"p{number}", {"solution": number, **columns}, messages)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tiny_model(tmp_path_factory.mktemp("model") / "m")
    return folder, AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def make(tmp_path, model):
    """A filler with chunks of four problems, and its counting engine."""
    (tmp_path / "reward.py").write_text(REWARD)
    folder, tokenizer = model
    pools = RewardPools({})

    def made(rows, *, reward="even_length", synthesized=None, source=None, **changes):
        stage = MessageCacheStage.model_validate({
            "kind": "message_cache", "prompts": {"source": source or {"dataset": "x.jsonl"}}, "num_problems": 10, "problems_at_once": 4,
            "samples_per_prompt": 3, "sampling": {"max_tokens": 5}, "rewards": [{"fn": f"{tmp_path}/reward.py:{reward}"}], **changes,
        })  # fmt: skip
        torch.manual_seed(0)
        engine = TorchEngine(AutoConfig.from_pretrained(folder), tokenizer)
        engine.calls = []
        generate = engine.generate
        engine.generate = lambda requests, *, seed: engine.calls.append(len(requests)) or generate(requests, seed=seed)
        stream = RowStream([MixedSource(rows, 1.0, "rows")], held_out=frozenset())
        scorer = Scorer(stage.rewards, pools)
        return MessageCacheFiller(stage, engine, scorer, stream, tokenizer, 0, 64, synthesized)

    with pools:
        yield made


ROWS = ShuffledRows([{"prompt": f"say {i % 12}"} for i in range(30)], seed=0)  # 12 different problems, repeated


def nothing(drawn):
    pass


def test_each_problem_is_sampled_once_in_chunks_that_are_on_disk_at_once(make, tmp_path):
    filler = make(ROWS)
    graded = GradedFile(tmp_path / "g.jsonl")
    lines_at_chunk = []
    repeated = filler.fill(graded, lambda drawn: lines_at_chunk.append((drawn, len((tmp_path / "g.jsonl").read_text().splitlines()))))
    assert lines_at_chunk == [(4, 5), (8, 10), (10, 13)]  # every chunk with its line of end
    assert filler.engine.calls == [12, 12, 6]
    problems = [one.problem for one in graded]
    assert len({problem.prompt_id for problem in problems}) == len(problems) == 10
    assert all(len(problem.messages) == 3 for problem in problems)
    assert repeated > 0
    assert all(one.accuracy == one.problem.accuracy for one in graded)


def test_an_interrupted_stage_goes_on_after_its_last_whole_chunk_to_the_same_answers(make, tmp_path):
    straight, broken = GradedFile(tmp_path / "straight.jsonl"), GradedFile(tmp_path / "broken.jsonl")
    make(ROWS).fill(straight, nothing)

    def stop(drawn):
        if drawn == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(ROWS).fill(broken, stop)
    with broken.path.open("a") as file:
        file.write('{"accuracy": 0.5, "problem": {"prompt_id"')  # half a chunk, as a kill leaves it
    filler = make(ROWS)
    filler.fill(GradedFile(broken.path), nothing)
    assert filler.engine.calls == [6]
    assert broken.path.read_bytes() == straight.path.read_bytes()


def test_a_source_with_fewer_problems_than_wanted_is_told(make, tmp_path):
    filler = make(ShuffledRows([{"prompt": f"say {i}"} for i in range(7)], seed=0))
    graded = GradedFile(tmp_path / "g.jsonl")
    repeated = filler.fill(graded, nothing)
    assert repeated == 10 * 10 - 7
    told_lines = told(filler.stage, count(filler.stage, graded, repeated=repeated))
    assert told_lines.endswith("; num_problems asks for 10, the source has no more that are different")
    assert told_lines.startswith("kept ")
    assert " of 7 problems" in told_lines


def test_ready_responses_are_graded_instead_of_sampled(make, tmp_path):
    published = [{"conversation": [{"role": "user", "content": f"{i} + 0"}], "responses": [f"<think>x</think>it is {i}", "no"], "ground_truth": i} for i in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in published))
    rows = ShuffledRows(converted(read_rows(str(tmp_path / "train.jsonl")), "train.jsonl"), seed=0)
    filler = make(rows, reward="says_right", grade_responses=True)
    graded = GradedFile(tmp_path / "g.jsonl")
    filler.fill(graded, nothing)
    assert filler.engine.calls == []
    found = sorted((one.problem.messages[0].conclusion, one.accuracy, "responses" in one.problem.columns) for one in graded)
    # "no" ends with no solution; "it is 0" is right.
    assert found == [(f"it is {i}", 0.5, False) for i in range(3)]
    # And back: what is exported is read as the same problems.
    assert export_published((one.problem for one in graded), tmp_path / "out.jsonl") == 3
    again = converted(read_rows(str(tmp_path / "out.jsonl")), "out.jsonl")
    assert sorted(row["solution"] for row in again) == [0, 1, 2]
    assert again[0]["responses"] == [f"it is {again[0]['solution']}", "no"]
    assert again[0]["prompt"] == [{"role": "user", "content": f"{again[0]['solution']} + 0"}]


def test_a_second_pass_filters_the_problems_by_their_syntheses(make, tmp_path):
    problems = [CachedProblem(prompt_id_of(f"p{i}"), f"p{i}", {}, problem(i, [True, False]).messages) for i in range(6)]
    write_cache(tmp_path / "first.jsonl", problems)
    cache = CacheFile(tmp_path / "first.jsonl")
    prompts = PacorePrompts(cache, 1, 2, "{{ problem }}{% for m in messages %} {{ m }}{% endfor %}", seed=0)
    filler = make(prompts, synthesized=cache, source={"message_cache": "first", "messages": [1, 2]}, samples_per_prompt=4, below=1.0)
    graded = GradedFile(tmp_path / "g.jsonl")
    filler.fill(graded, nothing)
    assert filler.engine.calls == [16, 8]  # each of the six problems once, though ten were asked for
    assert sorted(one.problem.prompt_id for one in graded) == sorted(p.prompt_id for p in problems)
    assert all(one.problem == cache.by_id(one.problem.prompt_id) for one in graded)  # the messages are those of the first pass
    assert {one.accuracy for one in graded} <= {0, 0.25, 0.5, 0.75, 1}
    assert len({one.accuracy for one in graded}) > 1
    counts = count(filler.stage, graded, repeated=0)
    assert counts.kept == sum(0 < one.accuracy < 1 for one in graded)
    assert told(filler.stage, counts).startswith(f"kept {counts.kept} of 6 problems: 0 < share of right syntheses < 1")


def test_the_filter_has_limits_by_domain_and_counts_before_and_after(make, tmp_path):
    stage = make(ROWS, below=9 / 24, domain_column="domain", below_by_domain={"code": 15 / 24}).stage
    graded = GradedFile(tmp_path / "g.jsonl")
    half, quarter, none = [True, False], [True, False, False, False], [False, False]
    graded.add_chunk([
        filling.Graded(p, p.accuracy) for p in (
            problem(0, half, domain="math"), problem(1, half, domain="code"), problem(2, quarter, domain="math"), problem(3, none, domain="code"),
        )
    ])  # fmt: skip
    assert [passes(stage, one) for one in graded] == [False, True, True, False]
    counts = count(stage, graded, repeated=7)
    assert (counts.seen, counts.kept, counts.accuracy) == (4, 2, (0.5 + 0.5 + 0.25 + 0) / 4)
    assert told(stage, counts) == (
        "kept 2 of 4 problems: 0 < share of right answers < 0.375; 7 rows repeated a problem and were passed over; "
        "domain code: kept 1 of 2, below 0.625; domain math: kept 1 of 2, below 0.375"
    )


def test_a_cache_is_read_problem_by_problem(tmp_path):
    problems = [problem(i, [True, False, i == 3]) for i in range(5)]
    write_cache(tmp_path / "c.jsonl", problems)
    cache = CacheFile(tmp_path / "c.jsonl")
    assert list(cache) == problems
    assert cache[-1] == problems[-1]
    assert cache[1:3] == problems[1:3]
    assert cache.by_id("id3") == problems[3]
    with pytest.raises(IndexError):
        cache[5]
    (tmp_path / "bad.jsonl").write_text((tmp_path / "c.jsonl").read_text() + "{}\n")
    with pytest.raises(DatasetError, match=r"bad\.jsonl:6: not a cached problem"):
        CacheFile(tmp_path / "bad.jsonl")


def test_synthesis_prompts_show_messages_of_one_problem_and_stay_within_the_budget():
    problems = [problem(i, [True] * 3 + [False] * 5) for i in range(3)]
    free = PacorePrompts(problems, 4, 6, "{{ problem }}{% for m in messages %} {{ m }}{% endfor %}", 0)
    tight = PacorePrompts(problems, 4, 6, free.template, 0, lambda prompt: len(prompt) <= 2 + 3 * 4)
    sizes = set()
    for index in range(40):
        row, cut = free.row(index), tight.row(index)
        shown = row["shown_messages"]
        sizes.add(len(shown))
        assert row["prompt"] == " ".join([row["problem"], *shown])
        assert row["correct_messages"] == sum(message[-1] in "012" for message in shown)
        assert len(set(shown)) == len(shown)
        assert cut["shown_messages"] == shown[:3]  # the first three of the same, each a space and three characters
        assert cut["correct_messages"] == sum(message[-1] in "012" for message in shown[:3])
    assert sizes == {4, 5, 6}
    assert sorted(free.row(i)["problem"] for i in range(3)) == ["p0", "p1", "p2"]


def test_the_number_of_messages_is_uniform_and_fixed_by_the_seed():
    problems = [problem(i, [False] * 24) for i in range(2)]
    prompts = PacorePrompts(problems, 16, 24, "{{ problem }}", seed=3)
    rows = [prompts.row(index) for index in range(1800)]
    counts = [sum(len(row["shown_messages"]) == size for row in rows) for size in range(16, 25)]
    # 200 of each are expected, with a standard deviation of sqrt(1800 * 1/9 * 8/9) = 13.3.
    assert sum(counts) == 1800
    assert all(abs(number - 200) < 5 * 13.3 for number in counts)
    again = dataclasses.replace(prompts).row(7)
    other = dataclasses.replace(prompts, seed=4).row(7)
    assert again == rows[7] != other
    assert rows[7]["shown_messages"] != sorted(rows[7]["shown_messages"])  # shuffled


def test_a_majority_is_of_equal_answers_not_of_equal_texts():
    # 1/2, 0.5 and \\frac{1}{2} are three of five votes, though no two texts are equal; letter by letter the first wins.
    texts = ["So 3.", r"Half: \boxed{1/2}", r"Thus \boxed{0.5}", r"\boxed{\frac{1}{2}}", r"\boxed{4}"]
    messages = tuple(CachedMessage(text, 0.0, "2" in text or "0.5" in text, 1) for text in texts)
    cached = CachedProblem("id", "p", {}, messages)
    by_text = PacorePrompts([cached], 5, 5, "{{ messages }}", 0)
    by_value = dataclasses.replace(by_text, vote=elected_message)
    assert all(by_value.row(index)["majority_correct"] for index in range(20))
    assert 0 < sum(bool(by_text.row(index)["majority_correct"]) for index in range(20)) < 20
    assert elected_message(["no answer here", "nor here", "nor here"]) == 1


def synthesized(reward, completion, shown, correct, majority):
    made = trajectory([1], [2])
    columns = {"shown_messages": shown, "correct_messages": correct, "majority_correct": majority}
    prompt = dataclasses.replace(made.prompt, columns=columns)
    return ScoredTrajectory(dataclasses.replace(made, prompt=prompt, completion=completion), reward, {})


def test_metrics_of_syntheses_by_hand():
    metrics = trajectory_metrics(
        [
            synthesized(1.0, "so 7", ["1", "2"], 0, False),  # right from nothing, and no copy
            synthesized(0.0, "so 2", ["1", "2"], 0, False),
            synthesized(1.0, "so 7", ["7", "7", "3", "4"], 2, True),
            synthesized(0.0, "so 4", ["7", "7", "3", "4"], 2, True),
        ],
        success=1.0,
    )
    assert metrics["emergent_correctness_rate"] == 0.5
    assert metrics["synthesis_accuracy/0_correct_messages"] == metrics["synthesis_accuracy/2_correct_messages"] == 0.5
    assert metrics["synthesis_accuracy"] == 0.5
    assert metrics["synthesis_gain/over_mean"] == 0.5 - (0 + 0 + 0.5 + 0.5) / 4
    assert metrics["synthesis_gain/over_majority"] == 0.5 - 0.5
    assert metrics["synthesis_messages"] == 3
    assert metrics["copying_rate"] == 0.75
    assert "synthesis_accuracy" not in trajectory_metrics([scored(1.0, [1], [2])], success=1.0)


def test_limits_of_domains_need_a_column(make):
    with pytest.raises(ValueError, match="needs domain_column"):
        make(ROWS, below_by_domain={"code": 0.5})


def test_the_export_command(tmp_path, capsys):
    from rl.cli import main

    write_cache(tmp_path / "c.jsonl", [problem(i, [True, False]) for i in range(3)])
    assert main(["export-cache", str(tmp_path / "c.jsonl"), str(tmp_path / "out.jsonl")]) == 0
    assert "wrote 3 problems" in capsys.readouterr().out
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first == {"conversation": [{"role": "user", "content": "p0"}], "responses": ["0.0", "0.1"], "ground_truth": 0}
    assert main(["export-cache", str(tmp_path / "c.jsonl"), str(tmp_path / "c.jsonl")]) == 2
    assert main(["export-cache", str(tmp_path / "none.jsonl"), str(tmp_path / "out.jsonl")]) == 2
