"""The command, the real engine, real Ray: every stage of the quickstart in small, an interruption, and a resumed run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent
RECIPE = "recipes/quickstart.yaml"
SMALL = [
    "learner.threads=1",
    "engine.kv_cache_gb=0.1",
    "ray.object_store_gb=0.2",
    "stages.sft.phases.0.steps=6",
    "stages.sft.phases.1.steps=4",
    "stages.rlvr.iterations=3",
    "stages.rlvr.prompts_per_iteration=8",
    "stages.preference.num_pairs=64",
    "stages.preference.num_held_out=16",
    "stages.rlhf.iterations=2",
    "stages.rlhf.prompts_per_iteration=8",
    "stages.messages.num_problems=12",
    "stages.messages.above=-1",
    "stages.messages.below=2",
    "stages.pacore.iterations=2",
    "stages.pacore.prompts_per_iteration=8",
    "evaluations.requests.every=1",
    "stages.rlhf.rewards.0.gold=requests",
    *(f"evaluations.{name}.num_prompts=16" for name in ("addition", "screen", "requests", "synthesis")),
]
ONLY_RLVR = [f"stages.{name}=null" for name in ("preference", "rlhf", "messages", "pacore")]

# The stage hands on its best policy, and a second pass filters the cached problems by their syntheses.
PICKY = [
    "evaluations.addition.every=1",
    "stages.rlvr.keep_best=addition",
    "stages.second={kind: message_cache, num_problems: 99, samples_per_prompt: 2, sampling: {max_tokens: 12}, above: -1, "
    "below: 2, rewards: [{fn: math}], prompts: {source: {message_cache: messages, messages: [4, 8], "
    "template: '{{ messages | join(\"\") }}{{ problem }}', max_prompt_tokens: 60}}}",
]


def command(run_dir, *overrides):
    return [sys.executable, "-m", "rl.cli", "run", RECIPE, "--run-dir", str(run_dir), *SMALL, *overrides]


def run(run_dir, *overrides):
    return subprocess.run(command(run_dir, *overrides), capture_output=True, text=True, cwd=ROOT, timeout=900)


def metrics(run_dir, stage):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["stage"] == stage]


def cached_ids(path):
    return sorted(json.loads(line)["prompt_id"] for line in path.read_text().splitlines())


def without_times(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time") and k != "tokens_per_s"} for row in rows]


def test_all_stages_run_and_leave_what_they_promise(tmp_path):
    run_dir = tmp_path / "run"
    done = run(run_dir, *PICKY)
    assert done.returncode == 0, done.stderr
    records = json.loads((run_dir / "state.json").read_text())["stages"]
    assert list(records) == ["sft", "rlvr", "preference", "rlhf", "messages", "pacore", "second"]
    scores = [row["held_out/addition"] for row in metrics(run_dir, "rlvr")]
    assert records["rlvr"]["after"]["addition"] == records["rlvr"]["details"]["best_score"] == max(scores)
    first, second = (cached_ids(run_dir / "message_caches" / f"{name}.jsonl") for name in ("messages", "second"))
    assert len(first) == 12
    assert first == second
    assert "[second] kept 12 of 12 problems" in done.stdout
    assert set(records["pacore"]["after"]) == {"addition", "screen", "requests", "synthesis"}
    for stage, count in (("sft", 10), ("rlvr", 3), ("rlhf", 2), ("pacore", 2)):
        assert [row["iteration"] for row in metrics(run_dir, stage)] == list(range(count))
    for row in metrics(run_dir, "rlvr"):
        assert row["rollout_gap_mean"] < 1e-3
        assert row["first_minibatch_gap"] < 1e-5
    assert metrics(run_dir, "rlhf")[0]["kl_ref"] == pytest.approx(0, abs=1e-6)
    watched = metrics(run_dir, "rlhf")[1]  # the last iteration: measured with the weights that the stage ends with
    assert watched["held_out/requests"] == records["rlhf"]["after"]["requests"]
    assert watched["held_out_error/requests"] == records["rlhf"]["details"]["requests/standard_error"]
    AutoTokenizer.from_pretrained(run_dir / "final")
    final = AutoModelForCausalLM.from_pretrained(run_dir / "final", dtype=torch.float32)
    last = load_file(run_dir / "checkpoints" / "pacore" / "final" / "model.safetensors")
    assert torch.equal(final.state_dict()["model.norm.weight"], last["model.norm.weight"])
    assert (run_dir / "report.html").exists()
    again = run(run_dir, *PICKY)
    assert again.returncode == 0
    assert "this run is finished" in again.stdout
    other = run(run_dir, *PICKY, "seed=5")
    assert other.returncode == 2
    assert "belongs to another recipe" in other.stderr
    assert "-seed: 0" in other.stderr


def test_a_recipe_without_held_out_sets_goes_from_stage_to_stage(tmp_path):
    none = [f"evaluations.{name}=null" for name in ("addition", "screen", "requests", "synthesis")]
    small = [text for text in SMALL if not text.startswith("evaluations") and "gold" not in text]
    overrides = [*small, *ONLY_RLVR, *none, "stages.rlvr.iterations=1", "engine.kind=hf"]
    arguments = [sys.executable, "-m", "rl.cli", "run", RECIPE, "--run-dir", str(tmp_path / "run"), *overrides]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr
    assert list(json.loads((tmp_path / "run" / "state.json").read_text())["stages"]) == ["sft", "rlvr"]


def test_an_interrupted_run_continues_to_the_same_weights(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert run(straight, *ONLY_RLVR).returncode == 0
    process = subprocess.Popen(command(broken, *ONLY_RLVR), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _wait_for(lambda: (broken / "metrics.jsonl").exists() and metrics(broken, "rlvr"))
    process.send_signal(signal.SIGTERM)  # the harder one: Ray puts a handler of its own on it
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130, stderr.decode()
    assert b"run the same command to continue" in stderr
    assert _children_named(str(broken)) == []
    resumed = run(broken, *ONLY_RLVR)
    assert resumed.returncode == 0, resumed.stderr
    assert without_times(metrics(broken, "rlvr")) == without_times(metrics(straight, "rlvr"))
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (straight, broken)]
    for name, x in weights[0].items():
        assert torch.equal(x, weights[1][name]), name


def _wait_for(condition, timeout_s=600):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def _children_named(text):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text in (entry / "cmdline").read_text():
                    found.append(entry.name)
            except OSError:
                continue
    return found
