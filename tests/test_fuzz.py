"""Mutated recipes and datasets end with a valid recipe or a message. The long run is `python benchmarks/fuzz.py`."""

import pytest

from benchmarks import fuzz
from rl.cli import main

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
HOSTILE = {
    "an object that runs a command": (f"seed: !!python/object/apply:os.system ['touch {fuzz.CANARY}']", "python/object"),
    "aliases of aliases": (LAUGHS, "at most 50,000 values"),
    "an endless parent": ("extends: /dev/zero", "at most 4,000,000 characters"),
    "brackets without end": ("[" * 20_000, "not valid YAML"),
    "an anchor that holds itself": ("seed: &a [*a]", "not valid YAML"),
    "a tag that does not fit": ("seed: !!bool x", "not valid YAML"),
    "a set": ("seed: !!set {a}", "has no use in a recipe"),
    "a date": ("seed: !!timestamp x", "has no use in a recipe"),
    "very many mistakes": ("".join(f"k{i}: 1\n" for i in range(5000)), "and 4,903 more mistakes"),
}


def test_the_files_that_are_mutated_are_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fuzz.write_valid(tmp_path)
    for recipe in (*fuzz.RECIPES, tmp_path / "recipe.yaml"):
        if recipe.name == "base.yaml":  # a parent of others, no recipe by itself
            continue
        assert fuzz.outcome(fuzz.Case("valid", recipe)) == "valid"


def test_mutated_recipes_and_datasets_end_with_a_recipe_or_a_message():
    summary = fuzz.fuzz(120, seed=7, keep=None, say=lambda text: None)
    assert summary["failures"] == []
    outcomes = {name for counts in summary["by_kind"].values() for name in counts}
    assert outcomes == {"valid", "message"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, tmp_path, capsys):
    text, told = HOSTILE[name]
    (tmp_path / "recipe.yaml").write_text(text)
    assert fuzz.outcome(fuzz.Case("hostile", tmp_path / "recipe.yaml")) == "message"
    assert main(["validate", str(tmp_path / "recipe.yaml")]) == 2
    assert told in capsys.readouterr().err
