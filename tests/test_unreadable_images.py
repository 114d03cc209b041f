"""Images that become unreadable during a run: their prompts are passed over and counted, the run goes on."""

import pytest
from fakes import png, tiny_vision_model

from rl.checkpoint import StageState
from rl.errors import RunFailed
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.recipe import LearnerSection, RlStage, SftStage
from rl.rollout import Rollouts
from rl.scoring import Scorer
from rl.sft import SftLoop
from rollouts.images import data_url
from rollouts.processing import load_processing
from rollouts.prompts import MixedSource, RowStream, ShuffledRows

SOURCES = [{"source": {"dataset": "x.jsonl"}}]
STAGE = {"kind": "rl", "iterations": 1, "prompts": SOURCES, "prompts_per_iteration": 3, "samples_per_prompt": 2,
         "sampling": {"max_tokens": 4}, "rewards": [{"fn": "math"}], "algorithm": {"advantage": "grpo"},
         "policy": {"learning_rate": 1e-3}}
SFT = {"kind": "sft", "phases": [{"steps": 2, "sources": SOURCES}], "batch_size": 3, "max_length": 64,
       "optimizer": {"learning_rate": 1e-3}}


def row(image):
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "what?"}]
    return {"prompt": [{"role": "user", "content": parts}], "completion": "red"}


def stream(folder, good, bad):
    rows = [row(data_url(png("red", size=(20 + index, 20)))) for index in range(good)]
    rows += [row(str(folder / f"gone{index}.png")) for index in range(bad)]
    return RowStream([MixedSource(ShuffledRows(rows, 0), 1.0, "x")], held_out=frozenset())


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_vision_model(tmp_path_factory.mktemp("tiny") / "model")


def test_prompts_of_an_rl_stage(model_path, tmp_path):
    stage = RlStage.model_validate(STAGE)

    def prompts(good, bad):
        rollouts = Rollouts(stage, None, Scorer([], {}), stream(tmp_path, good, bad), load_processing(model_path),
                            seed=0, max_model_len=64, rewrite=None)
        return rollouts._prompts(good)

    found, passed_over = prompts(6, 3)  # at most one epoch and what comes before the sixth good row
    assert len(found) == 6
    assert 0 < passed_over["prompts_unreadable"] <= 3 and passed_over["prompts_too_long"] == 0
    with pytest.raises(RunFailed, match="gone.*there is no such image"):
        prompts(1, 2000)


def test_rows_of_an_sft_stage(model_path, tmp_path):
    group = LearnerGroup(InProcessRank(Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu")))
    stage = SftStage.model_validate(SFT)
    group.begin_sft(stage.optimizer)
    seen = []
    loop = SftLoop(stage, group, [stream(tmp_path, 4, 4)], load_processing(model_path))
    loop.run(StageState(0, {}), lambda step, metrics, state: seen.append(metrics["rows_unreadable"]))
    assert len(seen) == 2 and sum(seen) == len(loop.unreadable) > 0
    with pytest.raises(RunFailed, match="1000 rows in a row"):
        SftLoop(stage, group, [stream(tmp_path, 0, 5)], load_processing(model_path)).run(
            StageState(0, {}), lambda step, metrics, state: None
        )
