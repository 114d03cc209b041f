"""One rl stage: prompts -> rollouts -> rewards -> advantages -> critic and policy -> weights back to the engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rl.batch import PPOBatch, collate, minibatches
from rl.checkpoint import StageState
from rl.errors import RunFailed
from rl.group import LearnerGroup
from rl.losses import adapted_kl_coef
from rl.metrics import PhaseClock, batch_metrics, gap_metrics, trajectory_metrics, update_metrics
from rl.non_finite import Watch, watch_nothing
from rl.ppo import to_ppo_batch
from rl.recipe import RlStage, SamplingSection
from rl.scoring import ScoredTrajectory, Scorer, Scoring
from rl.trained_model import Sums
from rollouts.collect import Collect, TokenizedPrompt, collect, tokenized
from rollouts.engine import Engine, Sampling
from rollouts.images import ImageError
from rollouts.processing import Processing
from rollouts.prompts import RowStream, to_prompt

# Prompts passed over for each one wanted, before the source is taken to hold no prompt that fits.
_MAX_PASSED_OVER = 100


@dataclass(frozen=True)
class Iteration:
    """What one iteration left behind."""

    index: int
    metrics: Mapping[str, float]
    scored: tuple[ScoredTrajectory, ...]
    state: StageState
    """to continue with the next iteration"""


@dataclass(frozen=True)
class RlLoop:
    """The parts that an rl stage works with."""

    stage: RlStage
    engine: Engine
    learner: LearnerGroup
    scorer: Scorer
    stream: RowStream
    tokenizer: Processing
    seed: int
    max_model_len: int
    before_learning: Callable[[], None] = lambda: None
    """called when an iteration has its rewards and has not changed a weight yet; may end the stage by an exception"""
    rewrite: Callable[[Sequence[TokenizedPrompt], int], Sequence[TokenizedPrompt]] = lambda prompts, seed: prompts
    """turns the prompts of an iteration into those that are answered, for example with messages by the policy"""
    collect: Collect = collect
    """prompts to trajectories: responses, or whole episodes"""
    watch: Watch = watch_nothing
    """told of every optimizer step"""

    def run(self, start: int, after_iteration: Callable[[Iteration], None]) -> None:
        """Iterations `start` to the last. The engine must hold the learner's weights. An exception ends the stage."""
        for index in range(start, self.stage.iterations):
            after_iteration(self._iteration(index))

    def _iteration(self, index: int) -> Iteration:
        stage, clock = self.stage, PhaseClock()
        scoring, passed_over = self._sampled(stage.prompts_per_iteration, iteration_seed(self.seed, index), clock)
        learned_from, refilled = self._with_signal(scoring.scored, index, clock)
        self.before_learning()
        with clock.phase("learning"):
            batch = collate(learned_from, truncated_reward=stage.algorithm.truncated_reward)
            before = self.learner.evaluate(batch)
            kl_coef = None if stage.algorithm.kl_target is None else self.learner.kl_coef()
            ppo = to_ppo_batch(batch, before, stage.algorithm, kl_coef=kl_coef)
            critic_steps, policy_steps = self._update(ppo, index)
        with clock.phase("publishing"):
            self.engine.load_weights(self.learner.weights(), version=index + 1)
        metrics = {
            **trajectory_metrics(scoring.scored, success=stage.success),
            **scoring.metrics,
            **{name: float(passed_over[name]) for name in ("prompts_too_long", "prompts_unreadable")},
            **refilled,
            **gap_metrics(batch, before, policy_steps, old_logprobs=stage.algorithm.old_logprobs),
            **batch_metrics(ppo, has_critic=stage.critic is not None, has_reference=stage.algorithm.needs_reference),
            **update_metrics(policy_steps, critic_steps),
            **self._adapt_kl(ppo, kl_coef, policy_steps),
            **clock.metrics(int(batch.action_mask.sum())),
        }
        state = StageState(index + 1, self.stream.state(), self.scorer.state())
        return Iteration(index, metrics, tuple(scoring.scored), state)

    def _sampled(self, num_prompts: int, seed: int, clock: PhaseClock) -> tuple[Scoring, Counter[str]]:
        """Responses to the next prompts of the stream with their rewards; how many prompts were passed over."""
        with clock.phase("rollout"):
            prompts, passed_over = self._prompts(num_prompts)
            trajectories = self.collect(
                self.engine,
                self.rewrite(prompts, seed),
                samples_per_prompt=self.stage.samples_per_prompt,
                sampling=as_sampling(self.stage.sampling),
                seed=seed,
            )
        with clock.phase("scoring"):
            return self.scorer.score(trajectories, to_learn=True), passed_over

    def _with_signal(
        self, scored: Sequence[ScoredTrajectory], index: int, clock: PhaseClock
    ) -> tuple[Sequence[ScoredTrajectory], dict[str, float]]:
        """What is learned from: with refill_rounds, groups whose rewards differ, filled up by new prompts.

        All metrics of reward and length stay those of the first prompts, which nobody chose. Where no group at all has
        a signal, these are learned from as they are.

        Source: DAPO's dynamic sampling, https://arxiv.org/abs/2503.14476, sec. 3.2.
        """
        stage = self.stage
        rounds = stage.algorithm.refill_rounds
        if not rounds:
            return scored, {}
        kept = groups_that_differ(scored)
        metrics = {"signal_share": len(kept) / len(scored), "refill_rounds": 0.0}
        for number in range(1, rounds + 1):
            missing = stage.prompts_per_iteration - len({item.trajectory.prompt.prompt_id for item in kept})
            if missing <= 0:
                break
            # Between the seeds of two iterations there is room for these.
            more, _ = self._sampled(missing, iteration_seed(self.seed, index) + number, clock)
            kept += groups_that_differ(more.scored)
            metrics["refill_rounds"] = float(number)
        return kept or scored, metrics

    def _adapt_kl(self, ppo: PPOBatch, coef: float | None, policy_steps: Sequence[Sums]) -> dict[str, float]:
        """The coefficient of this iteration as a metric, after setting the next one; none while the policy rests."""
        settings = self.stage.algorithm
        if settings.kl_target is None or coef is None or not policy_steps:
            return {}
        measured = batch_metrics(ppo, has_critic=False, has_reference=True)["kl_ref_per_response"]
        responses = len(ppo.token_ids)
        self.learner.set_kl_coef(
            adapted_kl_coef(
                coef, measured, target=settings.kl_target, horizon=settings.kl_horizon, responses=responses
            )
        )
        return {"kl_coef": coef}

    def _update(self, ppo: PPOBatch, index: int) -> tuple[list[Sums], list[Sums]]:
        """Critic first, then policy unless the critic still warms up; the sums of every step of both."""
        stage, critic = self.stage, self.stage.critic
        schedule = {"iteration": index, "total": stage.iterations}
        seed = iteration_seed(self.seed, index)
        critic_steps: list[Sums] = []
        policy_steps: list[Sums] = []
        if critic is not None:
            pieces = minibatches(ppo, count=critic.minibatches, epochs=critic.epochs, seed=seed)
            critic_steps = self.learner.update_critic(pieces, **schedule)
            self.watch("critic", index, pieces, critic_steps)
        if critic is None or index >= critic.warmup_iterations:
            settings = stage.algorithm
            pieces = minibatches(ppo, count=settings.minibatches, epochs=settings.epochs, seed=seed + 1)
            policy_steps = self.learner.update_policy(pieces, **schedule)
            self.watch("policy", index, pieces, policy_steps)
        reset_every = stage.algorithm.reference_reset_every
        if reset_every and (index + 1) % reset_every == 0:
            self.learner.reset_reference()
        return critic_steps, policy_steps

    def _prompts(self, wanted: int) -> tuple[list[TokenizedPrompt], Counter[str]]:
        """The next prompts, and how many were passed over: no room for a response, or an image cannot be read."""
        room = self.max_model_len - self.stage.sampling.max_tokens
        prompts: list[TokenizedPrompt] = []
        passed_over: Counter[str] = Counter()
        while len(prompts) < wanted:
            try:
                prompt = tokenized(self.tokenizer, to_prompt(*self.stream.take(1)[0]))
            except ImageError as error:
                passed_over["prompts_unreadable"] += 1
                if passed_over["prompts_unreadable"] > _MAX_PASSED_OVER * wanted:
                    raise RunFailed(f"the images of nearly all prompts cannot be read; the last one: {error}") from None
                continue
            if len(prompt.token_ids) <= room:
                prompts.append(prompt)
            else:
                passed_over["prompts_too_long"] += 1
            if passed_over["prompts_too_long"] > _MAX_PASSED_OVER * wanted:
                raise RunFailed(
                    f"{passed_over['prompts_too_long']} prompts of one iteration are longer than the {room} tokens "
                    f"that engine.max_model_len {self.max_model_len} and sampling.max_tokens "
                    f"{self.stage.sampling.max_tokens} leave"
                )
        return prompts, passed_over


def groups_that_differ(scored: Sequence[ScoredTrajectory]) -> list[ScoredTrajectory]:
    """The trajectories of prompts whose samples do not all have the same reward."""
    rewards: dict[str, set[float]] = {}
    for item in scored:
        rewards.setdefault(item.trajectory.prompt.prompt_id, set()).add(item.reward)
    return [item for item in scored if len(rewards[item.trajectory.prompt.prompt_id]) > 1]


def as_sampling(section: SamplingSection) -> Sampling:
    """A recipe's sampling section as the engines take it."""
    return Sampling(section.temperature, section.top_p, section.top_k, section.max_tokens, tuple(section.stop))


def iteration_seed(seed: int, index: int) -> int:
    """Seed of an iteration: the state of every generator is this and nothing else."""
    return (seed * 1_000_003 + index * 10_007) % 2**31
