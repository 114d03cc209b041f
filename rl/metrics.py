"""What an iteration did, as named numbers. Pure functions; nothing here changes a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from rl.advantages import explained_variance
from rl.batch import Evaluation, PPOBatch, TokenBatch
from rl.losses import kl_estimate
from rl.scoring import ScoredTrajectory
from rl.trained_model import Sums
from rollouts.pacore import compact

T = TypeVar("T")

def trajectory_metrics(scored: Sequence[ScoredTrajectory], *, success: float) -> dict[str, float]:
    """Reward, accuracy (share of rewards of at least `success`) and length, in all and by source."""
    rewards = torch.tensor([item.reward for item in scored], dtype=torch.float64)
    tokens = [item.trajectory.num_sampled_tokens for item in scored]
    metrics = {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std(correction=0)),
        "accuracy": _share(item.reward >= success for item in scored),
        "completion_tokens_mean": sum(tokens) / len(tokens),
        "completion_tokens_max": float(max(tokens)),
        "truncated_share": _share(item.trajectory.truncated for item in scored),
    }
    for origin in sorted({item.trajectory.prompt.origin for item in scored}):
        own = [item for item in scored if item.trajectory.prompt.origin == origin]
        metrics[f"reward_mean/{origin}"] = sum(item.reward for item in own) / len(own)
        metrics[f"accuracy/{origin}"] = _share(item.reward >= success for item in own)
    return metrics | _synthesis_metrics(scored, success)


def _synthesis_metrics(scored: Sequence[ScoredTrajectory], success: float) -> dict[str, float]:
    """What the policy made of the messages in its prompts, of those that have such; see `PacorePrompts`.

    Accuracy by number of right messages in the prompt (with none right it is the emergent correctness rate), how much
    it gains over the mean of the messages and over their majority vote, and the share of responses whose conclusion
    repeats a message.

    Source: PaCoRe, arXiv 2601.05593, sec. 4.
    """
    synthesized = [item for item in scored if isinstance(item.trajectory.prompt.columns.get("correct_messages"), int)]
    if not synthesized:
        return {}
    by_count: dict[int, list[bool]] = {}
    for item in synthesized:
        by_count.setdefault(_column(item, "correct_messages", int), []).append(item.reward >= success)
    metrics = {f"synthesis_accuracy/{count}_correct_messages": _share(hits) for count, hits in sorted(by_count.items())}
    if 0 in by_count:
        metrics["emergent_correctness_rate"] = _share(by_count[0])
    accuracy = _share(item.reward >= success for item in synthesized)
    shares = [_column(item, "correct_messages", int) / max(_num_shown(item), 1) for item in synthesized]
    majority = _share(_column(item, "majority_correct", bool) for item in synthesized)
    return metrics | {
        "synthesis_accuracy": accuracy,
        "synthesis_gain/over_mean": accuracy - sum(shares) / len(shares),
        "synthesis_gain/over_majority": accuracy - majority,
        "synthesis_messages": sum(map(_num_shown, synthesized)) / len(synthesized),
        "copying_rate": _share(map(_repeats_a_message, synthesized)),
    }


def _num_shown(item: ScoredTrajectory) -> int:
    return len(_column(item, "shown_messages", list))


def _repeats_a_message(item: ScoredTrajectory) -> bool:
    conclusion = compact(item.trajectory.completion)
    return any(conclusion.endswith(message) for message in _column(item, "shown_messages", list))


def _column(item: ScoredTrajectory, name: str, kind: type[T]) -> T:
    value = item.trajectory.prompt.columns[name]
    assert isinstance(value, kind), f"{name} is {value!r}"
    return value


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / len(values) if values else 0.0


def gap_metrics(
    batch: TokenBatch,
    before: Evaluation,
    policy_steps: Sequence[Sums],
    *,
    old_logprobs: Literal["trainer", "rollout"],
    fresh: Tensor,
) -> dict[str, float]:
    """How far the engine's log-probs are from the trainer's, in nats over sampled tokens.

    Only tokens that are `fresh` ([B, T] bool: sampled by the very policy that is evaluated) are compared; there are
    no numbers where none is. With `rollout` they are those of the update, whatever the age of its tokens.

    `rollout_gap_mean` and `_max` are of the absolute difference, `rollout_kl` is the k3 estimate of
    KL(engine || trainer). Where the engine's log-probs are trusted (`rollout`), the trainer computes its own only
    in the update: the numbers are those of the first mini-batch, before any step; none where the policy rests.
    """
    if old_logprobs == "rollout":
        if not policy_steps:
            return {}
        first = policy_steps[0]
        tokens = max(first["tokens"], 1)
        return {
            "rollout_gap_mean": first["old_gap_sum"] / tokens,
            "rollout_gap_max": first["old_gap_max"],
            "rollout_kl": first["approx_kl_sum"] / tokens,
        }
    fresh = fresh & batch.action_mask
    if not fresh.any():
        return {}
    difference = (batch.rollout_logprobs - before.logprobs)[fresh].double()
    kl = kl_estimate(difference, torch.zeros_like(difference), kind="k3")
    return {
        "rollout_gap_mean": float(difference.abs().mean()),
        "rollout_gap_max": float(difference.abs().max()),
        "rollout_kl": float(kl.mean()),
    }


def staleness_metrics(scored: Sequence[ScoredTrajectory], *, version: int) -> dict[str, float]:
    """How many updates old the sampled tokens are, mean and largest; 0 where they are on-policy."""
    ages = [version - item.trajectory.policy_versions[item.trajectory.action_mask] for item in scored]
    total = sum(map(len, ages))
    return {
        "staleness_mean": sum(float(own.sum()) for own in ages) / max(total, 1),
        "staleness_max": float(max((int(own.max(initial=0)) for own in ages), default=0)),
    }


def update_metrics(policy_steps: Sequence[Sums], critic_steps: Sequence[Sums]) -> dict[str, float]:
    """Means over the tokens or steps of an iteration's updates.

    `first_minibatch_gap` is the mean |log ratio| of the first mini-batch, before any step was taken: 0 but for
    rounding, unless log-probs before and during the update are computed differently (the engine's are trusted).
    """
    metrics: dict[str, float] = {}
    if policy_steps:
        tokens = sum(step["tokens"] for step in policy_steps)
        first = policy_steps[0]
        metrics |= {
            "policy_loss": _mean(policy_steps, "loss"),
            "clipfrac": sum(step["clipped_tokens"] for step in policy_steps) / max(tokens, 1),
            "approx_kl": sum(step["approx_kl_sum"] for step in policy_steps) / max(tokens, 1),
            "entropy": sum(step["entropy_sum"] for step in policy_steps) / max(tokens, 1),
            "first_minibatch_gap": first["old_gap_sum"] / max(first["tokens"], 1),
            "grad_norm": _mean(policy_steps, "grad_norm"),
        }
    if critic_steps:
        metrics |= {"value_loss": _mean(critic_steps, "loss"), "critic_grad_norm": _mean(critic_steps, "grad_norm")}
    skipped = sum(step["skipped_steps"] for step in [*policy_steps, *critic_steps])
    return metrics | {"skipped_steps": skipped}


def _mean(steps: Sequence[Sums], name: str) -> float:
    return sum(step[name] for step in steps) / len(steps)


def batch_metrics(ppo: PPOBatch, *, has_critic: bool, has_reference: bool) -> dict[str, float]:
    """Explained variance of the critic, and KL to the reference per token and per response (k1, nats)."""
    metrics = {"masked_share": 1 - _share(ppo.action_mask.any(1).tolist())}
    if has_critic:
        metrics["explained_variance"] = explained_variance(ppo.old_values, ppo.returns, ppo.action_mask)
    if has_reference:
        kl = _masked(kl_estimate(ppo.old_logprobs, ppo.ref_logprobs, kind="k1"), ppo.action_mask)
        metrics["kl_ref"] = float(kl.sum() / ppo.action_mask.sum().clamp(min=1))
        metrics["kl_ref_per_response"] = float(kl.sum(1).mean())
    return metrics


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, x, 0.0)
