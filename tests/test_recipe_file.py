"""Reading recipes: parents, merging, overrides, numbers, and mistakes with the file that they stand in."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from rl.preflight import check
from rl.recipe.file import RecipeError, read_raw, read_recipe

MINIMAL = """\
model: {path: organisation/name}
engine: {max_model_len: 512}
stages:
  sft:
    kind: sft
    phases: [{steps: 4, sources: [{source: {task: addition}}]}]
    batch_size: 2
    max_length: 64
    optimizer: {learning_rate: 1e-3}
  rlvr:
    kind: rl
    iterations: 3
    prompts:
      - source: {task: addition}
      - source: {task: text_screen}
        weight: 2
    prompts_per_iteration: 4
    samples_per_prompt: 3
    sampling: {max_tokens: 32}
    rewards: [{fn: format}]
    policy: {learning_rate: 1e-6}
    critic: {optimizer: {learning_rate: 5e-6}}
"""


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def base(write) -> Path:
    return write("base.yaml", MINIMAL)


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        read_recipe(path, overrides)
    return list(raised.value.problems)


# ---------------------------------------------------------------- parents and merging


def test_mappings_merge_by_key_and_lists_are_replaced(base, write):
    text = "extends: base.yaml\nstages: {rlvr: {iterations: 9, prompts: [{source: {task: requests}}]}}"
    child = write("child.yaml", text)
    stage = read_recipe(child).stages["rlvr"]
    assert (stage.iterations, stage.prompts_per_iteration) == (9, 4)
    assert [mixed.label for mixed in stage.prompts] == ["requests"]


def test_a_parent_is_found_beside_its_child(base, write):
    child = write("leaves/child.yaml", "extends: ../base.yaml\nseed: 7")
    assert read_recipe(child).seed == 7


def test_the_name_is_that_of_the_file_in_characters_that_a_folder_may_have(write):
    assert read_recipe(write("my first run.yaml", MINIMAL)).name == "my-first-run"


def test_a_stage_that_is_null_is_left_out(base, write):
    child = write("child.yaml", "extends: base.yaml\nstages: {sft: null}")
    assert list(read_recipe(child).stages) == ["rlvr"]
    assert list(read_recipe(base, ["stages.rlvr=null"]).stages) == ["sft"]


def test_stages_keep_the_order_of_the_parent(base, write):
    child = write("child.yaml", "extends: base.yaml\nstages: {rlvr: {iterations: 1}, sft: {batch_size: 1}}")
    assert list(read_recipe(child).stages) == ["sft", "rlvr"]


def test_two_uses_of_an_anchor_do_not_change_together(write):
    text = MINIMAL.replace("  rlvr:\n", "  rlvr: &ppo\n") + "  again: *ppo\n  third:\n    <<: *ppo\n    iterations: 8\n"
    recipe = read_recipe(write("anchors.yaml", text), ["stages.again.policy.learning_rate=0.5"])
    rates = [recipe.stages[name].policy.learning_rate for name in ("rlvr", "again", "third")]
    assert rates == [1e-6, 0.5, 1e-6]
    assert [recipe.stages[name].iterations for name in ("rlvr", "third")] == [3, 8]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("extends: nowhere.yaml", "{path}: extends: {folder}/nowhere.yaml: there is no such file"),
        ("extends: [base.yaml]", "{path}: extends: ['base.yaml']: the path of one recipe is expected"),
        ("extends: child.yaml", "{path}: extends: the chain of parents comes back to {path}"),
        ("", "{path}: a recipe is a mapping of keys to values, this one is empty"),
        ("- a", "{path}: a recipe is a mapping of keys to values, this is list"),
        ("seed: 1\nseed: 2", "{path}:2: not valid YAML: the key 'seed' is given twice"),
        ("stages:\n  a: {b: 1, b: 2}", "{path}:2: not valid YAML: the key 'b' is given twice"),
        ("1: 2", "{path}:1: not valid YAML: the key 1 is not text; put it in quotes"),
        ("a: [1", "{path}:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: !!python/name:os.system x", "{path}:1: not valid YAML: could not determine a constructor for the tag"),
        ("day: !!timestamp 2024-01-01", "{path}:1: not valid YAML: the tag 'tag:yaml.org,2002:timestamp' has no use in a recipe"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_file_and_line(text, told, base, write):
    path = write("child.yaml", text)
    (problem,) = problems(path)
    assert problem.startswith(told.format(path=path, folder=path.parent))


def test_a_file_that_does_not_exist(tmp_path):
    assert problems(tmp_path / "none.yaml") == [f"{tmp_path / 'none.yaml'}: there is no such file"]


# ---------------------------------------------------------------- numbers and types


@pytest.mark.parametrize("text", ["1e-6", "1E-6", "1.0e-6", "0.000001", ".000001", "1e-06"])
def test_small_numbers_are_read_however_they_are_written(text, base):
    assert read_recipe(base, [f"stages.rlvr.policy.learning_rate={text}"]).stages["rlvr"].policy.learning_rate == 1e-6


def test_a_whole_number_is_taken_for_a_number_and_a_list_for_a_pair(base):
    recipe = read_recipe(base, ["engine.cpus=2", "stages.rlvr.policy.betas=[0, 0.9]"])
    assert (recipe.engine.cpus, recipe.stages["rlvr"].policy.betas) == (2.0, (0.0, 0.9))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed='3'", "seed: '3': a whole number is expected, this is text"),
        ("seed=true", "seed: True: a whole number is expected"),
        ("seed=3.0", "seed: 3.0: a whole number is expected"),
        ("seed=-1", "seed: -1: should be greater than or equal to 0"),
        ("engine.cpus=many", "engine.cpus: 'many': a number is expected, this is text"),
        ("engine.cpus=.inf", "engine.cpus: inf: a finite number is expected"),
        ("engine.kind=sglang", "engine.kind: 'sglang': should be 'vllm', 'hf' or 'server'"),
        ("engine=hf", "engine: 'hf': a mapping of keys to values is expected, this is text"),
        ("model.trust_remote_code='yes'", "model.trust_remote_code: 'yes': true or false is expected, this is text"),
        ("model.path=3", "model.path: 3: text is expected"),
        ("name=a/b", "name: 'a/b': does not match ^[A-Za-z0-9._-]+$"),
        ("stages={}", "stages: {}: at least 1 is needed"),
        ("stages.rlvr.rewards=[]", "stages.rlvr.rewards: []: at least 1 is needed"),
        ("stages.rlvr.rewards=3", "stages.rlvr.rewards: 3: a list is expected"),
        (
            "stages.rlvr.kind=ppo",
            "stages.rlvr.kind: 'ppo': the kind of a stage is sft, rl, preference_model or message_cache",
        ),
        (
            "stages.x.iterations=3",
            "stages.x: has the keys iterations; needs the key kind: sft, rl, preference_model or message_cache",
        ),
        (
            "stages.rlvr.prompts.1.source={task: addition, dataset: x}",
            "stages.rlvr.prompts.1.source: has the keys task, dataset; "
            "a source needs exactly one of the keys: task, dataset, message_cache",
        ),
    ],
)
def test_a_wrong_value_is_told_with_key_value_and_what_is_allowed(override, told, base):
    assert problems(base, override) == [f"command line: {told}"]


# ---------------------------------------------------------------- overrides


def test_overrides_reach_into_mappings_and_lists(base):
    recipe = read_recipe(
        base, ["stages.rlvr.prompts.1.weight=5", "learner.threads=2", "stages.rlvr.sampling.stop=[x, y]"]
    )
    assert recipe.stages["rlvr"].prompts[1].weight == 5
    assert recipe.learner.threads == 2
    assert recipe.stages["rlvr"].sampling.stop == ["x", "y"]


def test_a_later_override_wins(base):
    assert read_recipe(base, ["seed=1", "seed=2"]).seed == 2


def test_an_override_makes_mappings_that_are_missing(base):
    assert read_recipe(base, ["ray.object_store_gb=2"]).ray.object_store_gb == 2


def test_an_override_with_an_equals_sign_in_its_value(base):
    assert read_recipe(base, ["stages.rlvr.sampling.stop=['a=b']"]).stages["rlvr"].sampling.stop == ["a=b"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed", "'seed' is not of the form key.path=value"),
        ("=3", "'=3' is not of the form key.path=value"),
        ("a..b=3", "'a..b=3' is not of the form key.path=value"),
        ("seed=[1", "seed: '[1' is not a YAML value: expected ',' or ']', but got '<stream end>'"),
        ("seed=2024-99-99", "seed: '2024-99-99': a whole number is expected, this is text"),
        (
            "stages.rlvr.prompts.2.weight=1",
            "stages.rlvr.prompts.2.weight: stages.rlvr.prompts is a list of 2; '2' is not an index from 0 to 1",
        ),
        ("engine.max_model_len.x=1", "engine.max_model_len.x: engine.max_model_len is 512, which has no keys"),
    ],
)
def test_an_override_that_cannot_be_applied(override, told, base):
    assert problems(base, override) == [f"command line: {told}"]


def test_every_override_that_cannot_be_applied_is_told_at_once(base):
    assert len(problems(base, "seed", "=3", "seed=1")) == 2


# ---------------------------------------------------------------- where a mistake stands


def test_two_mistakes_in_two_files_each_name_their_own_file(base, write):
    parent = write("parent.yaml", "extends: base.yaml\nlearner: {rnks: 2}\n")
    child = write("child.yaml", "extends: parent.yaml\nlearner: {thread: 2}\n")
    told = problems(child, "learner.cpu=3")
    assert told[0].startswith(f"{parent}: learner.rnks: unknown key; did you mean 'ranks'?")
    assert told[1].startswith(f"{child}: learner.thread: unknown key; did you mean 'threads'?")
    assert told[2].startswith("command line: learner.cpu: unknown key; did you mean 'cpus'?")
    assert len(told) == 3


def test_a_mistake_that_two_places_make_together_names_both(base):
    (told,) = problems(base, "model.create=null", "model.path=null")
    assert told.startswith(f"{base} and command line: model: needs exactly one of the keys: path")
    (told,) = problems(base, "stages.rlvr.prompts.1.source.dataset=x")
    assert told.startswith(f"{base} and command line: stages.rlvr.prompts.1.source: has the keys task, dataset;")


def test_a_list_that_a_child_replaces_is_the_childs(base, write):
    child = write("child.yaml", "extends: base.yaml\nstages: {rlvr: {rewards: [{fnn: math}]}}")
    told = problems(child)
    assert told[0].startswith(f"{child}: stages.rlvr.rewards.0.fn: required, but not given")
    assert told[1].startswith(f"{child}: stages.rlvr.rewards.0.fnn: unknown key; did you mean 'fn'?")


def test_an_unknown_key_lists_what_its_own_section_allows(base):
    (told,) = problems(base, "stages.rlvr.prompts.0.source.argz={}")
    key = "stages.rlvr.prompts.0.source.argz"
    assert told == f"command line: {key}: unknown key; did you mean 'args'? Allowed: args, task"


def test_a_key_like_no_other_gets_no_guess(base):
    (told,) = problems(base, "zzz=1")
    assert told.startswith("command line: zzz: unknown key; allowed: engine, evaluations, extends, learner")


def test_a_missing_section_says_what_it_holds(write):
    told = problems(write("empty.yaml", "seed: 1"))
    expected = "empty.yaml: model: required, but not given; a section with some of: create, path, trust_remote_code"
    assert told[0].endswith(expected)


def test_batch_sizes_that_do_not_divide_are_told_together_with_the_arithmetic(base):
    told = problems(base, "stages.rlvr.algorithm.minibatches=5", "stages.rlvr.critic.minibatches=7")
    arithmetic = "does not divide prompts_per_iteration * samples_per_prompt = 4 * 3 = 12"
    assert told == [
        f"command line: stages.rlvr.algorithm.minibatches: 5 {arithmetic}",
        f"command line: stages.rlvr.critic.minibatches: 7 {arithmetic}",
    ]


def test_a_stage_that_is_referred_to_must_come_earlier(base):
    (told,) = problems(base, "stages.rlvr.rewards.0.from_stage=sft")
    assert told == (
        "command line: stages.rlvr.rewards.0.from_stage: 'sft' is not an earlier preference_model stage; "
        "there are: none"
    )


def test_every_response_must_leave_room_for_its_prompt(base):
    (told,) = problems(base, "engine.max_model_len=32")
    assert told.endswith("stages.rlvr.sampling.max_tokens: 32 leaves no room for a prompt in engine.max_model_len = 32")


# ---------------------------------------------------------------- anything at all

_JUNK: list[Any] = [
    None, True, 0, -1, 3.5, 1e400, float("nan"), 10**30, "", "x", "a/b", "../..", "\x00", "\ud800", "[", "rl", "{{ x",
    [], {}, [[]], [None], {"a": 1}, {"": {}}, {"kind": "rl"}, {"task": "addition"}, {"dataset": "x.jsonl"},
    {"message_cache": "sft", "messages": [3, 1]}, [{"source": {"task": "addition", "args": {"digits": "x"}}}],
]  # fmt: skip


def _places(values: Any) -> list[tuple[Any, Any]]:
    """(mapping or list, key or index) of every value in a tree."""
    steps = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [place for key, value in steps for place in [(values, key), *_places(value)]]


def _mutated(rng: random.Random) -> dict[str, Any]:
    values = yaml.safe_load(MINIMAL)
    for _ in range(rng.randint(1, 3)):
        places = _places(values)
        if not places:
            return values
        container, key = rng.choice(places)
        action = rng.choice(("replace", "delete", "rename"))
        if action == "replace":
            container[key] = rng.choice(_JUNK)
        elif action == "delete":
            del container[key]
        elif isinstance(container, dict):
            container[str(key) + rng.choice(("s", "", ".", ".0"))] = container.pop(key)
    return values


@pytest.mark.parametrize("seed", range(4))
def test_any_mutation_of_a_recipe_passes_or_is_told_in_lines(seed, write):
    rng = random.Random(seed)
    for _ in range(100):
        path = write("fuzz.yaml", yaml.safe_dump(_mutated(rng), allow_unicode=False))
        try:
            recipe = read_recipe(path)
        except RecipeError as error:
            assert all(str(path) in line for line in error.problems), error
        else:
            assert all(": " in line for line in check(recipe, on_this_machine=False))


@pytest.mark.parametrize("seed", range(4))
def test_any_damage_to_the_text_of_a_recipe_passes_or_is_told_in_lines(seed, write):
    rng = random.Random(seed)
    damage = ("", " ", "\n", ":", "{", "}", "[", "&a ", "*a", "!", "\t", "'", "1", "\xe9")
    for _ in range(100):
        text = list(MINIMAL)
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(len(text))] = rng.choice(damage)
        try:
            read_recipe(write("fuzz.yaml", "".join(text)))
        except RecipeError as error:
            assert error.problems


@pytest.mark.parametrize("seed", range(4))
def test_any_override_passes_or_is_told_in_lines(seed, base):
    rng = random.Random(seed)
    keys = ["seed", "stages", "rlvr", "prompts", "0", "source", "-1", "9" * 20, "\xb2", "engine", "x", "", "task"]
    values = ["1", "null", "[", "{}", "!!set {a}", "&a [*a]", "2024-01-01", "!!binary aGk=", "\x00", "1e999"]
    values.append("9" * 5000)
    for _ in range(100):
        key = ".".join(rng.choices(keys, k=rng.randint(1, 5)))
        override = key + rng.choice(("=", "==", "", " =")) + rng.choice(values)
        try:
            read_recipe(base, [override])
        except RecipeError as error:
            assert error.problems


def test_where_each_value_came_from_is_kept(base, write):
    child = write("child.yaml", "extends: base.yaml\nengine: {cpus: 2}")
    raw = read_raw(child, ["seed=1"])
    assert raw.origin(("engine", "cpus")) == str(child)
    assert raw.origin(("engine", "max_model_len")) == str(base)
    assert raw.origin(("seed",)) == "command line"
    assert raw.origin(("nothing",)) == str(child)


def test_a_watched_reward_needs_an_evaluation_during_the_stage_and_a_reference(base):
    told = problems(base, "stages.rlvr.rewards.0.gold=addition")
    assert any("rewards.0.gold: 'addition' is not an evaluation with the key every; there are: none" in t for t in told)
    assert any("algorithm.measure_kl: a reward with gold is watched over KL; set it to true" in t for t in told)


def test_a_reset_needs_a_reference(base):
    (told,) = problems(base, "stages.rlvr.algorithm.reference_reset_every=5")
    assert told.endswith("algorithm.reference_reset_every: there is no reference; set a KL coefficient or measure_kl")


def test_running_normalisation_belongs_to_what_is_learned_from():
    quickstart = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
    told = problems(quickstart, "evaluations.addition.rewards.0.normalise={}")
    assert any("evaluations.addition.rewards.0.normalise: only rewards of an rl stage" in t for t in told)
    told = problems(quickstart, "stages.rlvr.rewards=[{fn: preference, args: {model: m, running: true}}]")
    assert any("in a recipe, use normalise: {}" in t for t in told)
