"""What a critic buys: samples until a set accuracy, PPO with GAE against group baselines, on recipes/credit_tiny.yaml.

    python benchmarks/learner_credit.py --seeds 0 1 2 --target 0.6 [--variants gae grpo rloo] [stages.rl.KEY=VALUE ...]

Each seed trains one SFT model; every variant starts from it and sees the same prompts in the same order. The engine is
transformers' generate in this process. Accuracy is the share of sampled responses without any slip, of a whole
iteration's samples on prompts never seen before. Prints one line per run and one table.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer

from rl.checkpoint import StageState
from rl.create_model import create_model
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.loop import RlLoop
from rl.recipe import RlStage
from rl.recipe.file import read_recipe
from rl.reward_pools import RewardPools
from rl.scoring import Scorer
from rl.sft import SftLoop
from rl.sources import SourceOpener
from rollouts.hf_engine import HfEngine

RECIPE = Path(__file__).parents[1] / "recipes" / "credit_tiny.yaml"
VARIANTS = {
    "gae": [],
    "grpo": ["stages.rl.algorithm.advantage=grpo", "stages.rl.critic=null"],
    "rloo": ["stages.rl.algorithm.advantage=rloo", "stages.rl.critic=null"],
}


class Reached(Exception):
    pass


def new_learner(recipe, path):
    return Learner(recipe.learner, str(path), trust_remote_code=False, device="cpu")


def supervised(recipe, folder: Path, seed: int) -> Path:
    """The SFT model of a seed."""
    path = folder / f"sft{seed}"
    if path.exists():
        return path
    create_model(recipe.model.create, folder / f"start{seed}", seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(folder / f"start{seed}")
    learner = new_learner(recipe, folder / f"start{seed}")
    stage = recipe.stages["sft"]
    learner.begin_sft(stage.optimizer)
    opener = SourceOpener(Path)
    streams = [opener.stream(p.sources, "demonstration", seed=seed, held_out=frozenset()) for p in stage.phases]
    SftLoop(stage, LearnerGroup(InProcessRank(learner)), streams, tokenizer).run(StageState(0, {}), lambda *_: None)
    learner.save_model(path)
    tokenizer.save_pretrained(path)
    return path


def reinforced(recipe, path: Path, seed: int, target: float, window: int, tag: str) -> tuple[int | None, float, float]:
    """(samples until the target or None, highest explained variance, accuracy at the end)."""
    stage = recipe.stages["rl"]
    assert isinstance(stage, RlStage)
    tokenizer = AutoTokenizer.from_pretrained(path)
    learner = new_learner(recipe, path)
    learner.begin_rl(stage.policy, stage.critic, stage.algorithm, stage.sampling.temperature)
    engine = HfEngine(str(path), max_num_seqs=recipe.engine.max_num_seqs, device="cpu")
    engine.load_weights(learner.weights(), 0)
    stream = SourceOpener(Path).stream(stage.prompts, "problem", seed=seed + 1000, held_out=frozenset())
    history, explained = [], []
    recent_iterations = -(-window // stage.trajectories_per_iteration)

    def watch(iteration):
        m = iteration.metrics
        history.append(m["accuracy"])
        explained.append(m.get("explained_variance", 0.0))
        recent = history[-recent_iterations:]
        mean = sum(recent) / len(recent)
        if iteration.index % 10 == 9:
            print(f"{tag} it {iteration.index} reward {m['reward_mean']:.3f} acc {mean:.3f} ev {sum(explained[-10:]) / 10:.2f} "
                  f"clip {m.get('clipfrac', 0):.3f} {m['time/iteration_s']:.1f}s", flush=True)
        if mean >= target and len(recent) == recent_iterations:
            raise Reached

    with RewardPools({}) as pools:
        loop = RlLoop(stage, engine, LearnerGroup(InProcessRank(learner)), Scorer(stage.rewards, pools), stream,
                      tokenizer, seed=seed, max_model_len=recipe.engine.max_model_len)
        try:
            loop.run(0, watch)
        except Reached:
            return len(history) * stage.trajectories_per_iteration, max(explained), sum(history[-recent_iterations:]) / recent_iterations
    return None, max(explained), sum(history[-recent_iterations:]) / recent_iterations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=["gae", "grpo"])
    parser.add_argument("--target", type=float, default=0.6, help="accuracy to reach")
    parser.add_argument("--window", type=int, default=256, help="samples, the newest, over which accuracy is measured")
    parser.add_argument("--keep", type=Path, help="folder for the SFT models, to use them again")
    parser.add_argument("overrides", nargs="*", help="stages.rl.KEY=VALUE of every variant")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    folder = args.keep or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True, parents=True)
    table = []
    for seed in args.seeds:
        path = supervised(read_recipe(RECIPE, []), folder, seed)
        for name in args.variants:
            recipe = read_recipe(RECIPE, [*VARIANTS[name], *args.overrides])
            table.append((seed, name, *reinforced(recipe, path, seed, args.target, args.window, f"[{seed} {name}]")))
    print(f"{'seed':>4} {'variant':>8} {'samples to ' + str(args.target):>16} {'max expl. var.':>15} {'last accuracy':>14}")
    for seed, name, samples, explained, accuracy in table:
        print(f"{seed:>4} {name:>8} {samples or 'not reached':>16} {explained:>15.2f} {accuracy:>14.3f}")
    if args.keep is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
