"""Episodes as trajectories: the tokens of a policy's turns are learned from, the screens between them are seen."""

import json

import numpy as np
import pytest
import torch
from fakes import TINY_EYES
from PIL import Image

from rewards.gui_episode import gui_episode_reward
from rl.batch import pad_tokens
from rl.cli import main
from rl.create_model import create_model
from rl.errors import UserError
from rl.gui.agent import replayed
from rl.gui.episodes import EpisodeCollector
from rl.learner import Learner
from rl.recipe import AlgorithmSection, EpisodeSection, LearnerSection, OptimizerSection, SamplingSection
from rl.rollout import as_sampling
from rl.rollout_log import logged
from rl.scoring import ScoredTrajectory, as_completion
from rollouts.collect import tokenized
from rollouts.engine import Generation, Request
from rollouts.hf_engine import HfEngine
from rollouts.processing import load_processing, tokenizer_of
from rollouts.prompts import MixedSource, task_rows, to_prompt
from rollouts.screens.device import SimulatedDevice
from rollouts.tasks import load_task
from rollouts.tasks.device import written
from rollouts.trajectory import FinishReason, images_of

CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"
SAMPLING = as_sampling(SamplingSection(max_tokens=24))


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    section = TINY_EYES.model_copy(
        update={"tokenizer": TINY_EYES.tokenizer.model_copy(update={"characters": CHARACTERS})}
    )
    folder = tmp_path_factory.mktemp("tiny") / "model"
    create_model(section, folder, seed=0)
    return str(folder)


@pytest.fixture(scope="module")
def processing(model_path):
    return load_processing(model_path)


def prompts(processing, count):
    source = MixedSource(task_rows(load_task("device"), "problem", 3), 1.0, "device")
    return [tokenized(processing, to_prompt(source, source.rows.row(index))) for index in range(count)]


class Expert:
    """An engine that knows the shortest way: writes the best action of a device that it steps along."""

    def __init__(self, processing, asked, *, until=99, last="done()"):
        self.tokenizer = tokenizer_of(processing)
        self.devices = {}
        for index, prompt in enumerate(asked):
            device = SimulatedDevice()
            device.reset(prompt.prompt.columns["environment_seed"])
            self.devices[index] = device
        self.until, self.last, self.turn, self.seen = until, last, 0, []

    def generate(self, requests, *, seed):
        self.seen.append(requests)
        live = [device for device in self.devices.values() if not device.state.is_done]
        texts = []
        for device in live:
            action = device.best_action()
            texts.append(self.last if self.turn >= self.until else written(action))
            device.step(action)
        self.turn += 1
        out = []
        for text in texts:
            ids = np.array([*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id])
            out.append(Generation(ids, np.full(len(ids), -0.5, np.float32), text, FinishReason.STOP, 0))
        return out


def collector(processing, **changes):
    section = EpisodeSection(**{"coordinate_space": "pixels", "max_steps": 20, **changes})
    return EpisodeCollector(section, processing, 4096)


def reward(trajectory):
    columns = {key: [value] for key, value in trajectory.prompt.columns.items() if not key.startswith("environment")}
    return gui_episode_reward(completions=[as_completion(trajectory)], **columns)[0]


def test_the_shortest_way_is_one_trajectory_with_the_screens_masked(processing):
    (asked,) = prompts(processing, 1)
    engine = Expert(processing, [asked])
    (found,) = collector(processing)(engine, [asked], samples_per_prompt=1, sampling=SAMPLING, seed=0)
    assert found.prompt.columns["completed"] and not found.prompt.columns["terminated_early"]
    clicks = [box for box in found.prompt.columns["target_boxes"] if box is not None]
    assert len(found.turns) == found.prompt.columns["shortest_path"] == len(found.prompt.columns["target_boxes"])
    assert reward(found) == len(clicks) + 2.0  # +1 for each click, +2 for the task
    # What is learned from is what was written, and nothing else.
    tokenizer = tokenizer_of(processing)
    eos = tokenizer.eos_token_id
    expected = [token for turn in found.turns for token in [*tokenizer(turn)["input_ids"], eos]]
    assert found.token_ids[found.action_mask].tolist() == expected
    assert (found.rollout_logprobs[found.action_mask] == -0.5).all()
    assert (found.rollout_logprobs[~found.action_mask] == 0).all()
    # One screen a turn, each where its placeholder is.
    assert found.model_inputs.per_image["pixel_values"].shape[0] == len(found.turns)
    assert int((found.token_ids == 3).sum()) == 4 * len(found.turns)  # 32 / 8 / 2 = 2: 4 tokens a screen


def test_the_engine_is_asked_with_exactly_what_it_saw_and_wrote(processing):
    (asked,) = prompts(processing, 1)
    engine = Expert(processing, [asked])
    (found,) = collector(processing)(engine, [asked], samples_per_prompt=1, sampling=SAMPLING, seed=0)
    for turn, (request,) in enumerate(engine.seen):
        assert found.token_ids[: len(request.prompt_token_ids)].tolist() == request.prompt_token_ids.tolist()
        assert len(request.images.files) == turn + 1
        assert int((request.images.unexpanded_ids == 3).sum()) == turn + 1
    text = tokenizer_of(processing).decode(found.token_ids)
    assert text.count("<eos>") == len(found.turns)  # one end of an answer, not two


def test_done_before_the_end_costs_half_a_point_and_a_cut_episode_is_marked(processing):
    (asked,) = prompts(processing, 1)
    (early,) = collector(processing)(
        Expert(processing, [asked], until=1), [asked], samples_per_prompt=1, sampling=SAMPLING, seed=0
    )
    assert early.prompt.columns["terminated_early"] and reward(early) == 1.0 - 0.5  # one click, then too early
    (short,) = collector(processing, max_steps=2)(
        Expert(processing, [asked]), [asked], samples_per_prompt=1, sampling=SAMPLING, seed=0
    )
    assert len(short.turns) == 2 and not short.prompt.columns["terminated_early"] and not short.truncated
    small = EpisodeCollector(EpisodeSection(coordinate_space="pixels"), processing, len(asked.token_ids) + 40)
    (cut,) = small(Expert(processing, [asked]), [asked], samples_per_prompt=1, sampling=SAMPLING, seed=0)
    assert len(cut.turns) == 1 and cut.truncated


def test_a_point_that_is_typed_where_a_click_was_due_is_a_wrong_click(processing):
    (asked,) = prompts(processing, 1)
    device = SimulatedDevice()
    device.reset(asked.prompt.columns["environment_seed"])
    x, y = device.best_action().point
    engine = Expert(processing, [asked], until=0, last=f'type("({x:.0f}, {y:.0f})")')
    (found,) = collector(processing, max_steps=1)(engine, [asked], samples_per_prompt=1, sampling=SAMPLING, seed=0)
    assert reward(found) == -1.0


def test_the_trainer_agrees_with_the_engine_over_all_turns(model_path, processing):
    asked = prompts(processing, 2)
    engine = HfEngine(model_path, max_num_seqs=8, device="cpu")
    found = collector(processing, max_steps=3)(engine, asked, samples_per_prompt=2, sampling=SAMPLING, seed=0)
    learner = Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu")
    learner.begin_rl(OptimizerSection(learning_rate=1e-3), None, AlgorithmSection(advantage="grpo"), 1.0)
    masks, inputs = [t.action_mask for t in found], [t.model_inputs for t in found]
    batch = pad_tokens([t.token_ids for t in found], masks, inputs)
    logprobs = learner.evaluate(batch).logprobs
    assert torch.isfinite(logprobs).all()
    for row, t in enumerate(found):
        np.testing.assert_allclose(logprobs[row, : len(t.token_ids)].numpy(), t.rollout_logprobs, atol=1e-4)


def test_a_logged_episode_is_played_again_as_pictures(processing, tmp_path, capsys):
    (asked,) = prompts(processing, 1)
    (found,) = collector(processing)(Expert(processing, [asked]), [asked], samples_per_prompt=1, sampling=SAMPLING,
                                     seed=0)
    row = logged(ScoredTrajectory(found, reward(found), {}), 3, tmp_path)
    assert (tmp_path / row["prompt"][0]["content"][0]["image"]).is_file()  # the first screen, beside the log
    (tmp_path / "iterations.jsonl").write_text(json.dumps(row) + "\n")
    arguments = ["replay", str(tmp_path / "iterations.jsonl"), "--out", str(tmp_path / "strip.png")]
    assert main(arguments) == 0
    assert f"{len(found.turns)} steps" in capsys.readouterr().out
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width > 1000
    assert replayed(row).outcome.reward == reward(found)
    assert main([*arguments, "--row", "2"]) == 2


def test_demonstrations_are_turns_of_the_shortest_way():
    rows = task_rows(load_task("device", history=2), "demonstration", 0)
    for index in range(8):
        row = rows.row(index)
        turns = row["prompt"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        assert 1 <= len(images_of(turns)) <= 3
        assert row["completion"].endswith(")")
        json.dumps(row)


def test_rows_without_an_environment_are_refused(processing):
    source = MixedSource(task_rows(load_task("tiny_screen"), "problem", 3), 1.0, "tiny")
    asked = tokenized(processing, to_prompt(source, source.rows.row(0)))
    with pytest.raises(UserError, match="tiny: episodes need rows with a first screen"):
        collector(processing)(None, [asked], samples_per_prompt=1, sampling=SAMPLING, seed=0)
    with pytest.raises(ValueError, match="allowed: phone, desktop, package.module:factory"):
        load_task("device", environment="fridge")
    assert Request(asked.token_ids, SAMPLING, asked.images).images is asked.images
