"""Whole iterations against TRL's GRPOTrainer: same model, prompts, samples, reward, mini-batches and learning rate.

    python benchmarks/learner_trl.py [--size small|large] [--prompts 64] [--iterations 4]
    python benchmarks/learner_trl.py --trl-engine vllm      TRL alone, with vLLM in its process

Both sides sample with transformers' generate in one process and one thread; TRL generates, scores, takes log-probs of
and updates on the same numbers of tokens. The model has random weights, so the lengths of responses are geometric:
a mean of about 35 tokens with a bound of 44 (small), a long tail of mean about 95 up to 512 (large). Ours runs with
the group baseline and with a critic, which TRL has none of, and with the engine's log-probs trusted, which saves a
pass. CPU seconds per iteration, the first left out; turns alternate by process time,
so that other load on the machine matters little.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

import torch
from learner_update import SIZES, model  # noqa: F401 - beside this file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.loop import RlLoop
from rl.recipe import LearnerSection, RlStage
from rl.reward_pools import RewardPools
from rl.scoring import Scorer
from rollouts.hf_engine import HfEngine
from rollouts.prompts import MixedSource, RowStream

MINIBATCHES, SAMPLES, LEARNING_RATE = 4, 8, 1e-5
MAX_TOKENS = {"small": 44, "large": 512}
REWARD = "def letters(completions, **columns):\n    return [sum(map(str.isalpha, c)) / (len(c) + 1) for c in completions]\n"


class Prompts:
    def row(self, index: int) -> dict[str, object]:
        return {"prompt": f"Q:{index * 7919 % 100000}+{index * 104729 % 100000}=A"}


VLLM = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.1, "vllm_max_model_length": 600}
ONE_PROCESS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511",
               "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}  # fmt: skip


def with_trl(path: str, size: str, prompts: int, iterations: int, **engine: object) -> list[float]:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    logging.disable(logging.WARNING)
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if state.global_step % MINIBATCHES == 0:
                marks.append(time.process_time())

    total = prompts * SAMPLES
    namespace: dict[str, object] = {}
    exec(REWARD, namespace)  # noqa: S102
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
        per_device_train_batch_size=total // MINIBATCHES, steps_per_generation=MINIBATCHES, num_generations=SAMPLES,
        max_completion_length=MAX_TOKENS[size], temperature=1.0, learning_rate=LEARNING_RATE, beta=0.0, max_steps=MINIBATCHES * iterations,
        logging_steps=10**6, gradient_checkpointing=False, dataloader_pin_memory=False,
        **engine,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        reward_funcs=namespace["letters"],
        args=config,
        train_dataset=Dataset.from_list([Prompts().row(i) for i in range(prompts * iterations)]),
        processing_class=AutoTokenizer.from_pretrained(path, padding_side="left"),
        callbacks=[Clock()],
    )
    trainer.train()
    return [b - a for a, b in zip(marks, marks[1:])]


def with_ours(path: str, size: str, prompts: int, iterations: int, *, critic: bool, trust: bool, folder: Path) -> list[float]:
    (folder / "reward.py").write_text(REWARD)
    optimizer = {"learning_rate": LEARNING_RATE}
    stage = RlStage.model_validate({
        "kind": "rl", "iterations": iterations, "prompts": [{"source": {"task": "addition"}}],
        "prompts_per_iteration": prompts, "samples_per_prompt": SAMPLES, "sampling": {"max_tokens": MAX_TOKENS[size]},
        "rewards": [{"fn": f"{folder}/reward.py:letters"}], "policy": optimizer,
        "algorithm": {"minibatches": MINIBATCHES, "advantage": "gae" if critic else "grpo",
                      "old_logprobs": "rollout" if trust else "trainer"},
        **({"critic": {"optimizer": optimizer, "minibatches": MINIBATCHES}} if critic else {}),
    })  # fmt: skip
    learner = Learner(LearnerSection(micro_batch_tokens=2048), path, trust_remote_code=False, device="cpu")
    learner.begin_rl(stage.policy, stage.critic, stage.algorithm, 1.0)
    engine = HfEngine(path, max_num_seqs=512, device="cpu")
    engine.load_weights(learner.weights(), 0)
    stream = RowStream([MixedSource(Prompts(), 1.0, "sums")], held_out=frozenset())
    marks: list[float] = []
    with RewardPools({}) as pools:
        loop = RlLoop(stage, engine, LearnerGroup(InProcessRank(learner)), Scorer(stage.rewards, pools), stream,
                      AutoTokenizer.from_pretrained(path), seed=0, max_model_len=1024)  # fmt: skip
        loop.run(0, lambda _: marks.append(time.process_time()))
    return [b - a for a, b in zip(marks, marks[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=4, help="the first of each is left out")
    parser.add_argument("--trl-engine", choices=["transformers", "vllm"], default="transformers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = model(args.size, folder)
        run = (path, args.size, args.prompts, args.iterations)
        if args.trl_engine == "vllm":
            os.environ.update(ONE_PROCESS)  # before vLLM is imported
            print("TRL with vLLM:", min(with_trl(*run, **VLLM)), "s an iteration")
            return
        results = {
            "TRL": with_trl(*run),
            "ours, group baseline": with_ours(*run, critic=False, trust=False, folder=folder),
            "the same, engine's log-probs": with_ours(*run, critic=False, trust=True, folder=folder),
            "ours, critic": with_ours(*run, critic=True, trust=False, folder=folder),
            "the same, engine's log-probs ": with_ours(*run, critic=True, trust=True, folder=folder),
        }
    samples = args.prompts * SAMPLES
    for label, seconds in results.items():
        best = min(seconds)
        print(f"{label:>29}: {best:7.2f} s an iteration, {samples / best:8.1f} samples/s, {min(results['TRL']) / best:5.2f} x TRL")


if __name__ == "__main__":
    main()
