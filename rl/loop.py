"""One rl stage: prompts -> rollouts -> rewards -> advantages -> critic and policy -> weights back to the engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rl.batch import PPOBatch, collate, minibatches, sampled_by
from rl.checkpoint import StageState
from rl.errors import RunFailed
from rl.group import LearnerGroup
from rl.losses import adapted_kl_coef
from rl.metrics import batch_metrics, gap_metrics, staleness_metrics, trajectory_metrics, update_metrics
from rl.non_finite import Watch, watch_nothing
from rl.phases import PhaseClock
from rl.ppo import to_ppo_batch
from rl.recipe import RlStage
from rl.rollout import Rollouts, iteration_seed
from rl.rollout_order import InTurn, OneAhead
from rl.scoring import ScoredTrajectory, Scorer
from rl.started_prompts import packed
from rl.trained_model import Sums
from rollouts.collect import Collect, StartedPrompt, TokenizedPrompt
from rollouts.engine import Engine
from rollouts.processing import Processing
from rollouts.prompts import RowStream


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
    collect: Collect | None = None
    """prompts to trajectories, for whole episodes; None for responses, which are scored while others are sampled"""
    watch: Watch = watch_nothing
    """told of every optimizer step"""
    on_phase: Callable[[str, float, float], None] = lambda name, began, ended: None
    """told when the learner did what, in seconds since the epoch"""
    engine_sleeps: bool = False
    """the engines' memory is the learner's while it learns"""
    tell: Callable[[str], None] = lambda message: None
    """told of prompts that no engine can answer"""
    async_level: int = 0
    """iterations that the engines are ahead of the learner"""

    def run(
        self, start: int, after_iteration: Callable[[Iteration], None], carried: Sequence[StartedPrompt] = ()
    ) -> None:
        """Iterations `start` to the last. The engine must hold the learner's weights. An exception ends the stage.

        Args:
            carried: prompts that the iteration before `start` has started; see `StageState`.
        """
        rollouts = Rollouts(
            stage=self.stage,
            engine=self.engine,
            scorer=self.scorer,
            stream=self.stream,
            tokenizer=self.tokenizer,
            seed=self.seed,
            max_model_len=self.max_model_len,
            rewrite=self.rewrite,
            collect=self.collect,
            tell=self.tell,
        )
        order = OneAhead if self.async_level else InTurn
        with order(rollouts, start=start, end=self.stage.iterations, carried=carried) as source:
            for index in range(start, self.stage.iterations):
                after_iteration(self._iteration(index, source))

    def _iteration(self, index: int, source: InTurn) -> Iteration:
        stage, clock = self.stage, PhaseClock(self.on_phase)
        gathered = source.take(index, clock)
        scoring = gathered.scoring
        staleness = staleness_metrics(scoring.scored, version=index)
        if staleness["staleness_max"] > self._largest_staleness():
            raise RunFailed(f"a token of iteration {index} is {staleness['staleness_max']:g} updates old")
        self.before_learning()
        if self.engine_sleeps:
            self.engine.sleep()
        with clock.phase("learning"):
            batch = collate(gathered.learned_from, truncated_reward=stage.algorithm.truncated_reward)
            before = self.learner.evaluate(batch)
            kl_coef = None if stage.algorithm.kl_target is None else self.learner.kl_coef()
            ppo = to_ppo_batch(batch, before, stage.algorithm, kl_coef=kl_coef)
            critic_steps, policy_steps = self._update(ppo, index)
        source.settle(clock)
        with clock.phase("publishing"):
            self.engine.load_weights(self.learner.weights(), version=index + 1)
        metrics = {
            **trajectory_metrics(scoring.scored, success=stage.success),
            **scoring.metrics,
            **gathered.metrics,
            **staleness,
            **before.token_sets.metrics(),
            **gap_metrics(
                batch,
                before,
                policy_steps,
                old_logprobs=stage.algorithm.old_logprobs,
                fresh=sampled_by(gathered.learned_from, version=index),
            ),
            **batch_metrics(ppo, has_critic=stage.critic is not None, has_reference=stage.algorithm.needs_reference),
            **update_metrics(policy_steps, critic_steps),
            **self._adapt_kl(ppo, kl_coef, policy_steps),
            **clock.metrics(int(batch.action_mask.sum())),
        }
        stream, scales = source.states()
        state = StageState(index + 1, stream, scales, carried=packed(source.carried()))
        return Iteration(index, metrics, tuple(scoring.scored), state)

    def _largest_staleness(self) -> int:
        """Updates between the sampling of a token and its learning, at most."""
        tail = self.stage.long_tail
        carried = tail.max_staleness if tail is not None and tail.rest == "continue" else 0
        return carried + self.async_level

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
