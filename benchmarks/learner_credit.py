"""What a critic buys: samples until a set reward, PPO with GAE beside what needs no critic, on recipes/credit_tiny.yaml.

    python benchmarks/learner_credit.py [--seeds 0 1 2] [--target 0.85]
    python benchmarks/learner_credit.py --compare critic
    python benchmarks/learner_credit.py --compare lambda [stages.rl.KEY=VALUE ...]

Each seed trains one SFT model; every variant starts from it. The pieces are those of a run: the loop, the learner,
transformers' generate as the engine, rewards in their worker. The reward is the mean over the newest `--window`
samples, on prompts never seen before, as they were sampled for training. `expl. var.` is the share of the variance of
the returns that came (rewards still to come, gamma 1) which the critic's values explain, over all tokens of a run;
`in place` is the same after taking the mean of each position off values and returns, iteration by iteration: what the
critic knows beyond how much of a response is left. Both are averaged over the seeds.

`--compare` picks the table: `methods` (the default; GRPO with prompts x samples and learning rate), `group` (more of
these), `lambda`, `critic` (how the critic starts and how much it learns).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from transformers import AutoTokenizer

from rl.advantages import rewards_to_go
from rl.batch import Evaluation, TokenBatch
from rl.checkpoint import StageState
from rl.create_model import create_model
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.loop import Iteration, RlLoop
from rl.models import Critic, load_language_model
from rl.recipe import Recipe, RlStage
from rl.recipe.file import read_recipe
from rl.reward_pools import RewardPools
from rl.scoring import Scorer
from rl.sft import SftLoop
from rl.sources import SourceOpener
from rl.trained_model import TrainedModel
from rollouts.hf_engine import HfEngine

RECIPE = Path(__file__).parents[1] / "recipes" / "credit_tiny.yaml"


def as_built(critic: TrainedModel, learner: Learner, start: Path) -> None:
    """The backbone is a copy of the policy's, and the value head zero."""


def random_backbone(critic: TrainedModel, learner: Learner, start: Path) -> None:
    """The backbone is that of the model before supervised fine-tuning."""
    untrained = load_language_model(str(start)).base_model
    critic.module.backbone.load_state_dict(untrained.state_dict())


def random_head(critic: TrainedModel, learner: Learner, start: Path) -> None:
    """The value head is as torch starts a linear layer."""
    cast(Critic, critic.module).value_head.reset_parameters()


def head_alone(critic: TrainedModel, learner: Learner, start: Path) -> None:
    """The backbone stays the policy's as it was: only the value head learns."""
    critic.module.backbone.requires_grad_(False)


def shared_trunk(critic: TrainedModel, learner: Learner, start: Path) -> None:
    """The backbone is the policy's own: it takes the critic's steps and then the policy's, each with an optimizer."""
    module = cast(Critic, critic.module)
    module.backbone = learner.policy.language_model.base_model
    learner.trained_critic = TrainedModel(
        module, critic.section, device=critic.device, micro_batch_tokens=critic.micro_batch_tokens
    )


@dataclass(frozen=True)
class Variant:
    """One column of settings, given as overrides of the recipe's rl stage."""

    name: str
    overrides: tuple[str, ...] = ()
    start_critic: Callable[[TrainedModel, Learner, Path], None] = as_built

    def recipe(self, more: list[str]) -> Recipe:
        """The recipe with these overrides and more of them."""
        return read_recipe(RECIPE, [*(f"stages.rl.{one}" for one in self.overrides), *more])


def without_critic(name: str, advantage: str, *more: str) -> Variant:
    return Variant(name, ("critic=null", f"algorithm.advantage={advantage}", "algorithm.critic_lambda=null", *more))


def size(prompts: int, samples: int) -> tuple[str, str]:
    return f"prompts_per_iteration={prompts}", f"samples_per_prompt={samples}"


def grpo(prompts: int, samples: int, rate: str) -> Variant:
    rates = f"policy.learning_rate={rate}"
    return without_critic(f"grpo {prompts}x{samples} {rate}", "grpo", *size(prompts, samples), rates)


PPO = Variant("ppo")
COMPARISONS = {
    "methods": [
        PPO,
        grpo(1, 8, "1e-4"),
        grpo(4, 4, "2e-4"),
        without_critic("rloo 4x4 2e-4", "rloo", *size(4, 4), "policy.learning_rate=2e-4"),
        without_critic("reinforce++ 1e-4", "reinforce_pp", "policy.learning_rate=1e-4"),
    ],
    "group": [
        *(grpo(1, 8, rate) for rate in ("1e-4", "2e-4", "3e-4")),
        *(grpo(4, 4, rate) for rate in ("1e-4", "2e-4", "3e-4")),
    ],
    "lambda": [Variant(f"gae_lambda {x}", (f"algorithm.gae_lambda={x}",)) for x in (0.5, 0.8, 0.9, 0.95, 1.0)],
    "critic": [
        PPO,
        Variant("random backbone", start_critic=random_backbone),
        Variant("random head", start_critic=random_head),
        Variant("head alone", start_critic=head_alone),
        Variant("shared trunk", start_critic=shared_trunk),
        Variant("shared trunk, rate 1e-4", ("critic.optimizer.learning_rate=1e-4",), shared_trunk),
        Variant("warm-up 10", ("critic.warmup_iterations=10",)),
        Variant("1 epoch", ("critic.epochs=1",)),
        Variant("4 epochs", ("critic.epochs=4",)),
        Variant("2 mini-batches", ("critic.minibatches=2",)),
        Variant("critic rate 3e-4", ("critic.optimizer.learning_rate=3e-4",)),
        Variant("critic rate 3e-3", ("critic.optimizer.learning_rate=3e-3",)),
        Variant("4 epochs, rate 3e-3", ("critic.epochs=4", "critic.optimizer.learning_rate=3e-3")),
        Variant("value_clip 0.2", ("algorithm.value_clip=0.2",)),
        Variant("critic_lambda as policy", ("algorithm.critic_lambda=null",)),
    ],
}


class Reached(Exception):
    pass


@dataclass
class Explained:
    """Explained variance of several batches as one: the variances within the batches are added up."""

    left: float = 0.0
    """sum of squares of the errors, less their mean"""
    total: float = 0.0
    """sum of squares of the returns, less their mean"""

    def add(self, values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> None:
        errors, returns = (returns - values)[mask].double(), returns[mask].double()
        self.left += float((errors - errors.mean()).square().sum())
        self.total += float((returns - returns.mean()).square().sum())

    @property
    def share(self) -> float:
        """1 for a critic that is always right, 0 for one that knows nothing; nan where there is none."""
        return 1 - self.left / self.total if self.total else float("nan")


@dataclass
class Course:
    """How one run went."""

    samples: int = 0
    rewards: list[float] = field(default_factory=list)
    explained: Explained = field(default_factory=lambda: Explained())
    explained_in_place: Explained = field(default_factory=lambda: Explained())
    reached: int | None = None

    def recent(self, window: int) -> float:
        """Mean reward of the newest samples."""
        newest = self.rewards[-window:]
        return sum(newest) / len(newest)

    def watched(self, learner: Learner) -> None:
        """Has every evaluation of the learner measured against the rewards that came."""
        evaluate = learner.evaluate

        def measured(batch: TokenBatch) -> Evaluation:
            before = evaluate(batch)
            mask = batch.action_mask
            returns = rewards_to_go(batch.rewards, mask, gamma=1.0)
            self.explained.add(before.values, returns, mask)
            self.explained_in_place.add(_off_the_mean(before.values, mask), _off_the_mean(returns, mask), mask)
            return before

        if learner.trained_critic is not None:
            learner.evaluate = measured  # type: ignore[method-assign]


def _off_the_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, T] less the mean of each column over the rows under the mask."""
    return x - (x * mask).sum(0) / mask.sum(0).clamp(min=1)


def new_learner(recipe: Recipe, path: Path) -> Learner:
    return Learner(recipe.learner, str(path), trust_remote_code=False, device="cpu")


def supervised(recipe: Recipe, folder: Path, seed: int) -> tuple[Path, Path]:
    """The untrained and the SFT model of a seed."""
    start, path = folder / f"start{seed}", folder / f"sft{seed}"
    if path.exists():
        return start, path
    create_model(recipe.model.create, start, seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(start)
    learner = new_learner(recipe, start)
    stage = recipe.stages["sft"]
    learner.begin_sft(stage.optimizer)
    opener = SourceOpener(Path)
    streams = [opener.stream(p.sources, "demonstration", seed=seed, held_out=frozenset()) for p in stage.phases]
    SftLoop(stage, LearnerGroup(InProcessRank(learner)), streams, tokenizer).run(StageState(0, {}), lambda *_: None)
    learner.save_model(path)
    tokenizer.save_pretrained(path)
    return start, path


def reinforced(
    variant: Variant, overrides: list[str], models: tuple[Path, Path], seed: int, args: argparse.Namespace
) -> Course:
    """The course of one run until the target or the last sample."""
    recipe = variant.recipe(overrides)
    stage = recipe.stages["rl"]
    assert isinstance(stage, RlStage)
    start, path = models
    stage = stage.model_copy(update={"iterations": args.samples // stage.trajectories_per_iteration})
    learner = new_learner(recipe, path)
    learner.begin_rl(stage.policy, stage.critic, stage.algorithm, stage.sampling.temperature)
    if learner.trained_critic is not None:
        torch.manual_seed(seed)
        variant.start_critic(learner.trained_critic, learner, start)
    course = Course()
    course.watched(learner)
    engine = HfEngine(str(path), max_num_seqs=recipe.engine.max_num_seqs, device="cpu")
    engine.load_weights(learner.weights(), 0)
    stream = SourceOpener(Path).stream(stage.prompts, "problem", seed=seed + 1000, held_out=frozenset())

    def after(iteration: Iteration) -> None:
        course.rewards += [item.reward for item in iteration.scored]
        course.samples += stage.trajectories_per_iteration
        if course.recent(args.window) >= args.target and course.samples >= args.window:
            course.reached = course.samples
            raise Reached

    with RewardPools({}) as pools:
        loop = RlLoop(stage, engine, LearnerGroup(InProcessRank(learner)), Scorer(stage.rewards, pools), stream,
                      AutoTokenizer.from_pretrained(path), seed=seed, max_model_len=recipe.engine.max_model_len)
        with contextlib.suppress(Reached):
            loop.run(0, after)
    return course


def mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--compare", choices=sorted(COMPARISONS), default="methods")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--target", type=float, default=0.85, help="reward to reach")
    parser.add_argument("--samples", type=int, default=5000, help="where a run ends at the latest")
    parser.add_argument("--window", type=int, default=128, help="samples, the newest, over which the reward is averaged")
    parser.add_argument("--keep", type=Path, help="folder for the SFT models, to use them again")
    parser.add_argument("overrides", nargs="*", help="stages.rl.KEY=VALUE of every variant")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    folder = args.keep or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True, parents=True)
    variants = [one for one in COMPARISONS[args.compare] if args.only is None or one.name in args.only]
    table: dict[str, list[Course]] = {variant.name: [] for variant in variants}
    for seed in args.seeds:
        models = supervised(read_recipe(RECIPE, []), folder, seed)
        for variant in variants:
            course = reinforced(variant, args.overrides, models, seed, args)
            table[variant.name].append(course)
            print(f"[{seed} {variant.name}] {course.samples} samples, reward {course.recent(args.window):.3f}, explained "
                  f"{course.explained.share:.2f}, in place {course.explained_in_place.share:.2f}", flush=True)
    seeds = "".join(f"{f'seed {seed}':>9}" for seed in args.seeds)
    print(f"samples until reward {args.target}, of at most {args.samples}\n{'':<28}{seeds} {'expl. var.':>11} {'in place':>9}")
    for name, courses in table.items():
        reached = "".join(f"{one.reached or '-':>9}" for one in courses)
        explained = [mean([x.share for x in kind]) for kind in zip(*((c.explained, c.explained_in_place) for c in courses))]
        print(f"{name:<28}{reached} {explained[0]:>11.2f} {explained[1]:>9.2f}")
    if args.keep is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
