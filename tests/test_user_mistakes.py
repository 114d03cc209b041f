"""What a user can get wrong: one message with file, key, value and what is allowed; exit code 2; nothing touched."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rl.cli import main
from rl.model_hub import hub_problem

RECIPE = """\
model: {path: start}
engine: {kind: hf, max_model_len: 512}
stages:
  rlvr:
    kind: rl
    iterations: 3
    prompts: [{source: {dataset: train.jsonl}}]
    prompts_per_iteration: 4
    samples_per_prompt: 3
    sampling: {max_tokens: 32}
    rewards: [{fn: "reward.py:exact"}]
    policy: {learning_rate: 1e-6}
    critic: {optimizer: {learning_rate: 5e-6}}
"""
REWARD = "def exact(completions, answer, **columns):\n    return [float(c == a) for c, a in zip(completions, answer)]\n"
ROW = '{"prompt": "1+1=", "answer": "2"}\n'


class Folder:
    """A working directory with a recipe that is right, before something is made wrong."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = path, capsys
        self.write("recipe.yaml", RECIPE)
        self.write("reward.py", REWARD)
        self.write("train.jsonl", ROW * 3)
        self.write("start/config.json", "{}")

    def write(self, name: str, text: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def mistake(self, *arguments: str) -> str:
        """The message of a command that must end with exit code 2 and leave every file as it is."""
        before = self.files()
        code = main(arguments)
        printed = self._capsys.readouterr()
        assert code == 2, printed.out + printed.err
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert self.files() == before
        return printed.err

    def files(self) -> dict[str, bytes]:
        files = (path for path in self.path.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files}


@pytest.fixture
def folder(tmp_path, capsys, monkeypatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path, capsys)


def test_the_recipe_of_these_tests_is_right(folder, capsys):
    assert main(["validate", "recipe.yaml"]) == 0
    assert "trajectories per iteration" in capsys.readouterr().out


# ---------------------------------------------------------------- each for `validate` and `run`

Change = Callable[[Folder], None]


def in_recipe(old: str, new: str) -> Change:
    assert old in RECIPE
    return lambda folder: folder.write("recipe.yaml", RECIPE.replace(old, new))


def in_file(name: str, text: str) -> Change:
    return lambda folder: folder.write(name, text)


MISTAKES = {
    "misspelled key": (
        in_recipe("iterations: 3", "iteratons: 3"),
        ["recipe.yaml: stages.rlvr.iterations: required, but not given",
         "recipe.yaml: stages.rlvr.iteratons: unknown key; did you mean 'iterations'? Allowed: algorithm, critic, "
         "episodes, iterations, keep_best, kind, long_tail, online_messages, policy, prompts, prompts_per_iteration, rewards, samples_per_prompt, sampling, success"],
    ),
    "wrong type": (
        in_recipe("iterations: 3", "iterations: three"),
        ["recipe.yaml: stages.rlvr.iterations: 'three': a whole number is expected, this is text"],
    ),
    "batch sizes that do not divide": (
        in_recipe("    critic: {", "    critic: {minibatches: 5, "),
        ["recipe.yaml: stages.rlvr.critic.minibatches: 5 does not divide prompts_per_iteration * samples_per_prompt "
         "= 4 * 3 = 12"],
    ),
    "dataset file that does not exist": (
        in_recipe("train.jsonl", "data/trian.jsonl"),
        ["recipe.yaml: stages.rlvr.prompts.0.source.dataset: data/trian.jsonl: there is no such file"],
    ),
    "dataset without prompts": (
        in_file("train.jsonl", '{"question": "1+1=", "answer": "2"}\n'),
        ["recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl: row 1 has no column 'prompt'; "
         "it has: question, answer. Name it under `columns`"],
    ),
    "column that a reward needs": (
        in_file("train.jsonl", '{"prompt": "1+1=", "solution": "2"}\n'),
        ["recipe.yaml: stages.rlvr.prompts.0.source: 'train.jsonl' has no column answer, which the reward 'exact' "
         "needs; it has: prompt, solution"],
    ),
    "column that a reward needs, missing further down": (
        in_file("train.jsonl", ROW * 2 + '{"prompt": "1+1=", "solution": "2"}\n'),
        ["recipe.yaml: stages.rlvr.prompts.0.source: 'train.jsonl': row 3 has no column answer, which the reward "
         "'exact' needs; it has: prompt, solution"],
    ),
    "prompt that is no text, further down": (
        in_file("train.jsonl", ROW * 2 + '{"prompt": 7, "answer": "2"}\n'),
        ["recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl: row 3: column 'prompt' is '7'; text or a "
         "list of {role, content} with text is expected"],
    ),
    "renamed column that does not exist": (
        in_recipe("{dataset: train.jsonl}", "{dataset: train.jsonl, columns: {answer: result}}"),
        ["recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl: has no column 'result' (for 'answer'); "
         "there are: prompt, answer"],
    ),
    "line that is not JSON": (
        in_file("train.jsonl", ROW + "{'prompt': 1}\n"),
        ["recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl:2: not JSON: Expecting property name enclosed "
         "in double quotes: line 1 column 2 (char 1)"],
    ),
    "line that is no row": (
        in_file("train.jsonl", ROW + ROW + "[1]\n"),
        ["recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl:3: a row is a JSON object, this is list"],
    ),
    "empty dataset": (
        in_file("train.jsonl", "\n"),
        ["recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl: has no rows"],
    ),
    "prompt that is not text": (
        in_file("train.jsonl", '{"prompt": 3, "answer": "2"}\n'),
        ["recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl: column 'prompt' is '3'; text or a list of "
         "{role, content} with text is expected"],
    ),
    "reward file that does not exist": (
        in_recipe("reward.py:", "rewards/mine.py:"),
        ["recipe.yaml: stages.rlvr.rewards.0.fn: reward 'rewards/mine.py:exact': "
         "there is no file {cwd}/rewards/mine.py"],
    ),
    "function that is not in the reward file": (
        in_recipe("reward.py:exact", "reward.py:exct"),
        ["recipe.yaml: stages.rlvr.rewards.0.fn: reward 'reward.py:exct': reward.py has no 'exct' "
         "(did you mean 'exact'?)"],
    ),
    "reward module that cannot be imported": (
        in_recipe("reward.py:exact", "no_such_package.rewards:exact"),
        ["recipe.yaml: stages.rlvr.rewards.0.fn: reward 'no_such_package.rewards:exact': cannot import "
         "no_such_package.rewards: No module named 'no_such_package'"],
    ),
    "reward file that raises": (
        in_file("reward.py", "import os\nraise SystemExit(3)\n"),
        ["recipe.yaml: stages.rlvr.rewards.0.fn: reward 'reward.py:exact': loading it raised SystemExit: 3"],
    ),
    "task that does not exist": (
        in_recipe("{dataset: train.jsonl}", "{task: adition}"),
        ["recipe.yaml: stages.rlvr.prompts.0.source.task: unknown task 'adition'; allowed: addition, "],
    ),
    "model folder that does not exist": (
        in_recipe("path: start", "path: ./strat"),
        ["recipe.yaml: model.path: './strat': there is no such folder; a folder with a model or a hub name "
         "organisation/name is expected"],
    ),
    "model folder without a model": (
        lambda folder: (folder.path / "start/config.json").unlink(),
        ["recipe.yaml: model.path: 'start': the folder has no config.json; a folder with a model or a hub name "
         "organisation/name is expected"],
    ),
    "not YAML": (
        in_recipe("stages:", "stages"),
        ["recipe.yaml:4: not valid YAML: could not find expected ':'"],
    ),
    "more held-out problems than there are": (
        in_recipe(
            "stages:\n",
            "evaluations: {own: {prompts: {dataset: train.jsonl}, num_prompts: 2, sampling: {max_tokens: 8}, "
            "rewards: [{fn: 'reward.py:exact'}]}}\nstages:\n",
        ),
        ["recipe.yaml: evaluations.own.num_prompts: 2: has only 1 different problems"],
    ),
    "several mistakes in several parts": (
        lambda folder: (folder.write("train.jsonl", "{\n"), folder.write("reward.py", "x = 1\n"))[0],
        ["recipe.yaml: stages.rlvr.rewards.0.fn: reward 'reward.py:exact': reward.py has no 'exact'",
         "recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl:1: not JSON"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_recipe_or_what_it_names(name, command, folder):
    change, told = MISTAKES[name]
    change(folder)
    lines = folder.mistake(command, "recipe.yaml").splitlines()
    assert len(lines) == len(told)
    for line, expected in zip(lines, told):
        assert line.startswith(expected.format(cwd=folder.path) if "{cwd}" in expected else expected)


# ---------------------------------------------------------------- other mistakes


def test_a_recipe_that_does_not_exist(folder):
    assert folder.mistake("run", "recipy.yaml") == "recipy.yaml: there is no such file\n"


def test_a_mistake_on_the_command_line_names_the_command_line(folder):
    override = "stages.rlvr.prompts.0.source.dataset=none.jsonl"
    told = folder.mistake("run", "recipe.yaml", override, "--run-dir", "out", "seed=1")
    assert told == "command line: stages.rlvr.prompts.0.source.dataset: none.jsonl: there is no such file\n"


def test_a_mistake_in_a_parent_names_the_parent(folder):
    folder.write("child.yaml", "extends: recipe.yaml\nmodel: {path: ./nowhere}\n")
    (folder.path / "train.jsonl").unlink()
    told = folder.mistake("validate", "child.yaml").splitlines()
    assert told[0].startswith("child.yaml: model.path: './nowhere'")
    assert told[1].startswith("recipe.yaml: stages.rlvr.prompts.0.source.dataset: train.jsonl")


def test_demonstrations_without_a_completion(folder):
    stage = (
        "{kind: sft, batch_size: 1, max_length: 8, optimizer: {learning_rate: 1e-3}, "
        "phases: [{steps: 1, sources: [{source: {dataset: train.jsonl}}]}]}"
    )
    folder.write("sft.yaml", f"extends: recipe.yaml\nstages: {{sft: {stage}}}\n")
    assert folder.mistake("validate", "sft.yaml").startswith(
        "sft.yaml: stages.sft.phases.0.sources.0.source.dataset: train.jsonl: row 1 has no column 'completion'"
    )


def test_pairs_without_a_rejected_response(folder):
    folder.write("pairs.jsonl", '{"prompt": "a", "chosen": "b"}\n')
    stage = (
        "{kind: preference_model, pairs: {dataset: pairs.jsonl}, num_pairs: 1, num_held_out: 1, batch_size: 1, "
        "learning_rate: 1e-3, max_length: 8}"
    )
    folder.write("rm.yaml", f"extends: recipe.yaml\nstages: {{rm: {stage}}}\n")
    assert folder.mistake("validate", "rm.yaml").startswith(
        "rm.yaml: stages.rm.pairs.dataset: pairs.jsonl: row 1 has no column 'rejected'; it has: prompt, chosen"
    )


def test_synthesis_prompts_with_more_messages_than_the_cache_has(folder):
    cache = (
        "{kind: message_cache, prompts: {source: {dataset: train.jsonl}}, num_problems: 1, samples_per_prompt: 8, "
        "sampling: {max_tokens: 8}, rewards: [{fn: 'reward.py:exact'}]}"
    )
    synthesis = RECIPE.replace("{dataset: train.jsonl}", "{message_cache: cache, messages: [4, 12]}")
    folder.write("pacore.yaml", synthesis.replace("stages:\n", f"stages:\n  cache: {cache}\n"))
    assert folder.mistake("validate", "pacore.yaml") == (
        "pacore.yaml: stages.rlvr.prompts.0.source.messages: [4, 12]: 'cache' keeps 8 answers per problem "
        "(its samples_per_prompt), which is the highest number allowed\n"
    )


def test_a_second_pass_with_more_messages_than_the_first_made(folder):
    first = (
        "{kind: message_cache, prompts: {source: {dataset: train.jsonl}}, num_problems: 1, samples_per_prompt: 8, "
        "sampling: {max_tokens: 8}, rewards: [{fn: 'reward.py:exact'}]}"
    )
    second = first.replace("{dataset: train.jsonl}", "{message_cache: first, messages: [4, 8]}")
    rlvr = RECIPE.replace("{dataset: train.jsonl}", "{message_cache: second, messages: [4, 9]}")
    folder.write("pacore.yaml", rlvr.replace("stages:\n", f"stages:\n  first: {first}\n  second: {second}\n"))
    assert "stages.rlvr.prompts.0.source.messages: [4, 9]: 'second' keeps 8 answers" in folder.mistake(
        "validate", "pacore.yaml"
    )


def test_responses_to_grade_that_are_not_there(folder):
    cache = (
        "{kind: message_cache, prompts: {source: {dataset: train.jsonl}}, num_problems: 1, samples_per_prompt: 8, "
        "sampling: {max_tokens: 8}, rewards: [{fn: 'reward.py:exact'}], grade_responses: true}"
    )
    folder.write("cache.yaml", f"extends: recipe.yaml\nstages: {{cache: {cache}}}\n")
    assert "stages.cache.grade_responses: the rows have no column 'responses' to grade; they have: prompt" in (
        folder.mistake("validate", "cache.yaml")
    )


def test_a_best_policy_by_a_set_that_is_never_measured(folder):
    assert folder.mistake("validate", "recipe.yaml", "stages.rlvr.keep_best=aime") == (
        "command line: stages.rlvr.keep_best: 'aime' is not an evaluation with the key every; there are: none\n"
    )


def test_a_preference_reward_without_a_preference_model(folder):
    told = folder.mistake("validate", "recipe.yaml", "stages.rlvr.rewards=[{fn: preference}]")
    assert told == (
        "command line: stages.rlvr.rewards.0.from_stage: 'preference' needs an earlier preference_model stage, "
        "or args.model\n"
    )


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("ray", "recipe.yaml: ray: Ray is not installed; install it with: pip install ray\n"),
        ("vllm", "recipe.yaml: engine.kind: 'vllm': vLLM is not installed. Install it"),
    ],
)
def test_a_package_that_is_not_installed(missing, told, folder, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == missing else find_spec(name, *a))
    folder.write("recipe.yaml", RECIPE.replace("kind: hf", "kind: vllm"))
    assert folder.mistake("run", "recipe.yaml").startswith(told)
    assert main(["validate", "recipe.yaml"]) == 0  # can also be checked where it is not run


def test_a_model_that_the_hub_does_not_have(folder, monkeypatch):
    monkeypatch.setattr("rl.preflight.hub_problem", lambda name: "the hub does not answer")
    told = folder.mistake("run", "recipe.yaml", "model.path=organisation/nowhere")
    assert told == (
        "command line: model.path: 'organisation/nowhere': there is no such folder, and the hub does not answer\n"
    )


def test_without_an_answer_of_the_hub_a_model_is_looked_for_in_its_cache():
    # conftest.py takes the hub off line
    assert hub_problem("organisation/nowhere") == "the hub does not answer, and its cache here does not hold the model"
    assert "not a hub name" in hub_problem("a/b/c")


@pytest.fixture
def taken(folder) -> Folder:
    """With a run directory of the same recipe, but another seed."""
    import yaml

    from rl.recipe.file import read_recipe

    other = read_recipe("recipe.yaml", ["seed=7"]).model_dump(mode="json")
    folder.write("runs/recipe/recipe.yaml", yaml.safe_dump(other, sort_keys=False))
    folder.write("runs/recipe/metrics.jsonl", '{"stage": "rlvr", "iteration": 0}\n')
    return folder


def test_a_run_directory_of_another_recipe(taken):
    told = taken.mistake("run", "recipe.yaml")
    assert "runs/recipe: this run directory belongs to another recipe; give another one with --run-dir" in told
    assert "-seed: 7" in told
    assert "+seed: 0" in told


def test_a_run_directory_that_holds_something_else(folder):
    folder.write("thesis/chapter.tex", "years of work")
    assert "thesis: not empty and not a run directory" in folder.mistake("run", "recipe.yaml", "--run-dir", "thesis")
    told = folder.mistake("run", "recipe.yaml", "--run-dir", "thesis/chapter.tex")
    assert "chapter.tex: the run directory is a file" in told


# ---------------------------------------------------------------- the command itself


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    assert "validate" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("stepladder ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rnu", "recipe.yaml"], "invalid choice: 'rnu' (choose from"),
        (["run"], "the following arguments are required: RECIPE"),
        (["run", "recipe.yaml", "--rundir", "x"], "unrecognized arguments: --rundir x"),
        (["validate", "recipe.yaml", "--run-dir=x"], "unrecognized arguments: --run-dir=x"),
        (["report", "x", "seed=3"], "unrecognized arguments: seed=3"),
    ],
)
def test_a_command_line_that_is_not_understood(arguments, told, folder):
    assert told in folder.mistake(*arguments)


def test_overrides_may_stand_on_both_sides_of_an_option(folder):
    told = folder.mistake("run", "recipe.yaml", "sed=1", "--run-dir", "out", "iterations=2")
    assert [line.split(": ")[1] for line in told.splitlines()] == ["sed", "iterations"]


def test_validate_imports_neither_torch_nor_ray_nor_vllm(folder):
    code = (
        "import sys; from rl.cli import main; code = main(['validate', 'recipe.yaml']); "
        "print([name for name in ('torch', 'ray', 'vllm', 'transformers', 'sympy') if name in sys.modules], code)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder.path, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[] 0", result.stderr


def test_separators_of_lines_within_text_are_part_of_a_row(folder):
    folder.write("train.jsonl", '{"prompt": "1+1=\u2028 or\x85", "answer": "2"}\n')
    assert main(["validate", "recipe.yaml"]) == 0


def test_a_reward_that_cannot_be_loaded_is_told_by_score(folder):
    folder.write("rows.jsonl", '{"prompt": "a", "completion": "b"}\n')
    told = folder.mistake("score", "rows.jsonl", "--reward", "preference", "--arg", "model=nowhere")
    assert "preference reward: 'nowhere' is not the directory of a model (no config.json)" in told
