"""A model with eyes whose code comes with it, whose auto class is AutoModelForCausalLM, and whose files have other names
than its modules: as STEP3-VL-10B is published."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import picture_prompt, tiny_vision_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rl.batch import pad_tokens
from rl.errors import UserError
from rl.eyes import vision_problems
from rl.learner import Learner
from rl.models import load_language_model
from rl.parts import PARTS, parts_of
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection
from rl.recipe.file import read_recipe
from rollouts.collect import collect, tokenized
from rollouts.engine import Sampling
from rollouts.hf_engine import HfEngine
from rollouts.load_model import load_model
from rollouts.processing import load_processing

CODE = """\
from transformers import Idefics3Config, Idefics3ForConditionalGeneration


class EyesConfig(Idefics3Config):
    model_type = "eyes"


class EyesForCausalLM(Idefics3ForConditionalGeneration):
    config_class = EyesConfig
"""
AUTO = {"AutoConfig": "eyes.EyesConfig", "AutoModelForCausalLM": "eyes.EyesForCausalLM"}
# Of the form of the published one; the modules are named as Idefics3 names them.
MAPPING = {
    "^vision_model": "model.vision_model",
    r"^model(?!\.(text_model|vision_model|connector))": "model.text_model",
    "^vit_large_projector": "model.connector",
}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "eyes"
    tiny_vision_model(folder)
    (folder / "eyes.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "eyes", "architectures": ["EyesForCausalLM"], "auto_map": AUTO, "key_mapping": MAPPING}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({published(name): x for name, x in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def published(name):
    name = name.replace("model.vision_model.", "vision_model.", 1).replace("model.text_model.", "model.", 1)
    return name.replace("model.connector.", "vit_large_projector.", 1)


def names_in(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def test_it_is_sampled_from_trained_and_saved_under_the_names_of_its_files(model_path, tmp_path):
    path = str(model_path)
    processing = load_processing(path, trust_remote_code=True)
    learner = Learner(LearnerSection(), path, trust_remote_code=True, device="cpu")
    optimizer = OptimizerSection(learning_rate=1e-2)
    learner.begin_rl(optimizer, CriticSection(optimizer=optimizer), AlgorithmSection(), 1.0)
    assert set(parts_of(learner.policy.backbone).values()) == set(PARTS)
    with torch.no_grad():  # another policy than the one on disk
        for parameter in learner.policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert set(learner.weights()) == names_in(model_path)

    engine = HfEngine(path, max_num_seqs=8, device="cpu", trust_remote_code=True)
    prompts = [tokenized(processing, picture_prompt(*some)) for some in (("red",), ("red", "blue"), ())]

    def gap():
        found = collect(engine, prompts, samples_per_prompt=1, sampling=Sampling(1.0, 1.0, 0, 6), seed=0)
        inputs = [t.model_inputs for t in found]
        batch = pad_tokens([t.token_ids for t in found], [t.action_mask for t in found], inputs)
        scores = learner.evaluate(batch)
        assert scores.values.isfinite().all()
        rows = enumerate(found)
        return max(np.abs(scores.logprobs[i, : len(t.token_ids)].numpy() - t.rollout_logprobs).max() for i, t in rows)

    assert gap() > 1e-2
    engine.load_weights(learner.weights(), 0)
    assert gap() < 1e-4

    learner.save_model(tmp_path)
    assert names_in(tmp_path) == names_in(model_path) and (tmp_path / "eyes.py").is_file()
    again = load_model(str(tmp_path), trust_remote_code=True).state_dict()
    for name, x in learner.policy.language_model.state_dict().items():
        torch.testing.assert_close(again[name], x)


def test_weights_that_the_files_do_not_have_are_told_and_not_made_up(model_path, tmp_path):
    config = json.loads((model_path / "config.json").read_text())
    del config["key_mapping"]
    for file in model_path.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"22 weights are not in its files: lm_head.weight, .*config.json as 'key_mapping'"):
        load_language_model(str(tmp_path), trust_remote_code=True)


def test_code_that_the_recipe_does_not_trust_is_told_before_a_start(model_path):
    recipe = read_recipe(Path(__file__).parent.parent / "recipes" / "gui_tiny.yaml")
    for trusted, problems in ((True, 0), (False, 1)):
        model = recipe.model.model_copy(update={"path": str(model_path), "create": None, "trust_remote_code": trusted})
        told = list(vision_problems(recipe.model_copy(update={"model": model}), load=True))
        assert len(told) == problems
    assert "has code of its own; model.trust_remote_code: true" in told[0]
