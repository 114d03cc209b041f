"""Rewards in Ray actors: for a reward model with a device, or a machine, of its own.

The same pool as with worker processes: an actor that passes its deadline is killed and replaced, and the rows of the
failed call are tried again one at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

from rewards.worker_handle import RewardLoadError, WorkerDied
from rl.recipe import RewardActorSection


class RewardActor:
    """Runs in the actor's process: holds the reward function."""

    def __init__(self, spec: str, args: Mapping[str, object]) -> None:
        from rewards.registry import load_reward
        from rewards.worker_process import Caller, load_model_of

        fn = load_reward(spec, **args)
        load_model_of(fn)
        self._score = Caller(fn)

    def ready(self) -> bool:
        """Returns once the reward is loaded."""
        return True

    def score(self, payload: Mapping[str, Any]) -> dict[str, object]:
        """See `rewards.worker_process.Caller`."""
        return self._score(payload)


class ActorWorker:
    """The trainer's side of one actor; see `rewards.worker_handle.Worker`."""

    def __init__(
        self, spec: str, args: Mapping[str, object], section: RewardActorSection, start_timeout_s: float
    ) -> None:
        import ray

        actor: Any = ray.remote(num_cpus=section.cpus, num_gpus=section.gpus)(RewardActor)
        self._spec, self._start_timeout_s, self._is_ready = spec, start_timeout_s, False
        self._actor = actor.remote(spec, dict(args))
        self._ready = self._actor.ready.remote()

    def wait_ready(self) -> None:
        """Wait until the reward function is loaded.

        Raises:
            RewardLoadError: it could not be loaded, or not in time.
        """
        import ray

        if self._is_ready:
            return
        try:
            ray.get(self._ready, timeout=self._start_timeout_s)
        except ray.exceptions.GetTimeoutError:
            told = "the cluster has no room for it, or loading it takes too long"
            raise RewardLoadError(f"reward {self._spec!r}: its actor did not start in time: {told}") from None
        except ray.exceptions.RayError as error:
            raise RewardLoadError(f"reward {self._spec!r}: loading it in an actor failed: {error}") from None
        self._is_ready = True

    def ask(self, payload: Mapping[str, object], timeout_s: float) -> dict[str, Any]:
        """The actor's answer.

        Raises:
            TimeoutError: none within `timeout_s` seconds; the actor is still busy and must be killed.
            WorkerDied: its process ended.
        """
        import ray

        try:
            reply: dict[str, Any] = ray.get(self._actor.score.remote(payload), timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError from None
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:  # the latter: killed by Ray
            raise WorkerDied(f"the reward actor died: {str(error).splitlines()[0]}") from None
        return reply

    def discard(self) -> None:
        """Kill the actor; may be called twice, and after Ray has ended."""
        import ray

        if ray.is_initialized():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(self._actor)


class ActorNursery:
    """Starts actors and knows them all; see `rewards.worker_handle.Nursery`. Keeps no spare: a device is not spare."""

    def __init__(
        self, spec: str, args: Mapping[str, object], section: RewardActorSection, *, start_timeout_s: float
    ) -> None:
        self.closed = False
        self._spec, self._args, self._section = spec, args, section
        self._start_timeout_s = start_timeout_s
        self._all: list[ActorWorker] = []
        self._lock = threading.RLock()

    def take(self) -> ActorWorker:
        """A new actor, loading.

        Raises:
            RuntimeError: the pool is closed.
        """
        with self._lock:
            if self.closed:
                raise RuntimeError("the reward pool was closed")
            worker = ActorWorker(self._spec, self._args, self._section, self._start_timeout_s)
            self._all.append(worker)
            return worker

    def replenish(self) -> None:
        """Nothing to do: the next call takes a new actor."""

    def close(self) -> None:
        """Kills every actor."""
        with self._lock:
            self.closed = True
            for worker in self._all:
                worker.discard()
            self._all.clear()
