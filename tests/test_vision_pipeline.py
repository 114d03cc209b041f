"""Whole pipelines on images, on the transformers engine: SFT, PPO with a critic, held-out sets, logs, report."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor

from rl.cli import main

pytestmark = pytest.mark.engine

RECIPE = Path(__file__).parent.parent / "recipes" / "gui_tiny.yaml"
SMALL = ["engine.kind=hf", "evaluations.grounding.num_prompts=8", "stages.sft.batch_size=8",
         "stages.rlvr.iterations=2", "stages.rlvr.prompts_per_iteration=4", "stages.rlvr.samples_per_prompt=4"]


def test_screens_go_through_sft_ppo_log_and_report(tmp_path):
    raw = yaml.safe_load(RECIPE.read_text())
    raw["stages"]["sft"]["phases"][0]["steps"] = raw["stages"]["sft"]["phases"][1]["steps"] = 3
    raw["stages"]["rlvr"]["policy"]["vision_learning_rate"] = 0
    raw["stages"]["rlvr"]["episodes"] = None
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(raw))
    run = tmp_path / "run"
    assert main(["run", str(tmp_path / "small.yaml"), *SMALL, "--run-dir", str(run)]) == 0
    assert AutoModelForImageTextToText.from_pretrained(run / "final").config.vision_config is not None
    assert AutoProcessor.from_pretrained(run / "final").image_processor is not None
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    learned = [row for row in rows if row["stage"] == "rlvr"]
    assert len(learned) == 2
    assert all(row["rollout_gap_max"] < 1e-4 and row["prompts_unreadable"] == 0 for row in learned)
    logged = json.loads((run / "rollouts" / "rlvr" / "iterations.jsonl").read_text().splitlines()[0])
    image = logged["prompt"][0]["content"][0]["image"]
    assert (run / "rollouts" / "rlvr" / image).is_file()
    assert main(["report", str(run)]) == 0
    assert '<img class="seen"' in (run / "report.html").read_text()


def test_a_model_of_text_alone_refuses_rows_with_images(tmp_path, capsys):
    raw = yaml.safe_load(RECIPE.read_text())
    del raw["model"]["create"]["vision"]
    (tmp_path / "blind.yaml").write_text(yaml.safe_dump(raw))
    assert main(["run", str(tmp_path / "blind.yaml"), *SMALL, "--run-dir", str(tmp_path / "run")]) == 2
    assert "the model takes none" in capsys.readouterr().err
