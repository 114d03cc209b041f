"""The processes, or Ray actors, that compute the rewards of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rewards.worker import RewardPool, Workers
from rl.recipe import RewardSection


class RewardPools:
    """Worker processes of all rewards of a run; equal rewards of several stages and held-out sets share theirs."""

    def __init__(self, models: Mapping[str, str]) -> None:
        """`models`: folder of the model of each preference_model stage, filled while the stages run."""
        self._models = models
        self._pools: dict[str, RewardPool] = {}

    def get(self, section: RewardSection) -> RewardPool:
        """The pool of a reward, its workers starting in the background."""
        args = _reward_arguments(section, self._models)
        key = _pool_key(section, args)
        if key not in self._pools:
            self._pools[key] = RewardPool(
                section.fn,
                args=args,
                timeout_s=section.timeout_s,
                num_workers=section.workers,
                value_range=section.range,
                batch_rows=128,
                workers=_actors(section, args),
            )
            self._pools[key].start()
        return self._pools[key]

    def keep(self, needed: Iterable[RewardSection]) -> None:
        """Ends the pools of other rewards: a reward model gives its device back after the last stage that uses it."""
        made = [section for section in needed if section.from_stage is None or section.from_stage in self._models]
        keys = {_pool_key(section, _reward_arguments(section, self._models)) for section in made}
        for key in self._pools.keys() - keys:
            self._pools.pop(key).close()

    def __enter__(self) -> RewardPools:
        return self

    def __exit__(self, *exception: object) -> None:
        for pool in self._pools.values():
            pool.close()


def _pool_key(section: RewardSection, args: Mapping[str, object]) -> str:
    options = (section.timeout_s, section.workers, section.range, section.actor)
    return repr((section.fn, sorted(args.items()), options))


def _actors(section: RewardSection, args: Mapping[str, object]) -> Workers | None:
    if section.actor is None:
        return None
    from rl.reward_model.actor import ActorNursery

    return ActorNursery(section.fn, args, section.actor, start_timeout_s=300.0)


def _reward_arguments(section: RewardSection, models: Mapping[str, str]) -> dict[str, object]:
    """The arguments of a reward: those of the recipe, and the model of the stage it names."""
    named = {} if section.from_stage is None else {"model": models[section.from_stage]}
    return {**section.args, **named}
