"""What a recipe with a model that takes images cannot have is told by `validate`, and what it lacks before a start."""

import importlib.util
import json
from pathlib import Path

import pytest
from fakes import tiny_model, tiny_vision_model
from tiny_qwen_vl import tiny_qwen_vl

from rl.cli import main
from rl.eyes import vision_problems
from rl.recipe.file import read_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
PACKED = "learner.packing: true: a model that takes images is not packed; false is expected"


def with_model(path, **learner):
    recipe = read_recipe(RECIPES / "gui_tiny.yaml")
    model = recipe.model.model_copy(update={"path": str(path), "create": None})
    return recipe.model_copy(update={"model": model, "learner": recipe.learner.model_copy(update=learner)})


def test_validate_refuses_packing_of_a_model_with_eyes(capsys):
    assert main(["validate", str(RECIPES / "gui_tiny.yaml"), "learner.packing=true"]) == 2
    assert PACKED in capsys.readouterr().err
    assert main(["validate", str(RECIPES / "quickstart.yaml"), "learner.packing=true"]) == 0


def test_packing_and_the_processor_of_a_model_in_a_folder(tmp_path):
    eyes, blind = tiny_vision_model(tmp_path / "eyes"), tiny_model(tmp_path / "blind")
    assert list(vision_problems(with_model(eyes, packing=True), load=True)) == [PACKED]
    assert list(vision_problems(with_model(eyes), load=True)) == []
    assert list(vision_problems(with_model(blind, packing=True), load=True)) == []
    (tmp_path / "eyes" / "processor_config.json").unlink()
    (problem,) = vision_problems(with_model(eyes), load=True)
    assert problem.startswith(f"model.path: the processor of {eyes} cannot be loaded")
    assert list(vision_problems(with_model(eyes), load=False)) == []


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_processor_that_needs_torchvision_is_told_before_anything_starts(tmp_path, capsys):
    path = tiny_qwen_vl(tmp_path / "model", "qwen2_5_vl")
    config = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(config))
    overrides = ["model.create=null", f"model.path={path}"]
    assert main(["run", str(RECIPES / "gui_tiny.yaml"), *overrides, "--run-dir", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "requires the Torchvision library" in told and "pip install torchvision" in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
