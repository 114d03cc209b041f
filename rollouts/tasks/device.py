"""Tasks of several steps in an environment: prompts are first screens, demonstrations one turn on the shortest way."""

from __future__ import annotations

import functools
import importlib
import io
import random
from collections.abc import Callable
from dataclasses import dataclass

from rollouts.environment import Action, Environment, Observation
from rollouts.images import data_url
from rollouts.screens.device import SimulatedDevice
from rollouts.tasks.task import Row
from rollouts.trajectory import Message


def open_environment(spec: str) -> Environment:
    """The simulated `phone` or `desktop`, or what `package.module:factory` returns when it is called.

    Raises:
        ValueError: there is none of that name.
    """
    return _factory(spec)()


@functools.cache
def _factory(spec: str) -> Callable[[], Environment]:
    if spec == "phone":
        return SimulatedDevice
    if spec == "desktop":
        return functools.partial(SimulatedDevice, "desktop")
    module, colon, name = spec.rpartition(":")
    try:
        if not colon:
            raise ValueError("it is neither a device of ours nor package.module:factory")
        factory: Callable[[], Environment] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"environment {spec!r}: {error}; allowed: phone, desktop, package.module:factory") from None
    return factory


@dataclass(frozen=True)
class Device:
    """Operate a device; see rollouts.environment.

    Args:
        environment: phone, desktop or package.module:factory.
        history: turns before the shown one that a demonstration has at most, each with its screen.
    """

    environment: str = "phone"
    history: int = 3

    def __post_init__(self) -> None:
        _factory(self.environment)
        if self.history < 0:
            raise ValueError(f"history is {self.history!r}; 0 or more is allowed")

    def problem(self, rng: random.Random) -> Row:
        """{"prompt": [a turn with the first screen and the task], "environment": "phone", "environment_seed": 7}."""
        seed = rng.getrandbits(31)
        observation = open_environment(self.environment).reset(seed)
        return {
            "prompt": [observation_turn(observation, first=True)],
            "environment": self.environment,
            "environment_seed": seed,
        }

    def demonstration(self, rng: random.Random) -> Row:
        """A conversation up to some step of the shortest way, and its next action, in pixels; by our devices only."""
        device = open_environment(self.environment)
        if not isinstance(device, SimulatedDevice):
            raise ValueError(f"environment {self.environment!r} shows no shortest way; demonstrations need one")
        observation = device.reset(rng.getrandbits(31))
        before = rng.randrange(min(device.shortest_path, self.history + 1))
        turns = [observation_turn(observation, first=True)]
        for _ in range(before):
            action = device.best_action()
            observation = device.step(action)
            turns += [Message(role="assistant", content=written(action)), observation_turn(observation, first=False)]
        return {"prompt": turns, "completion": written(device.best_action())}


def observation_turn(observation: Observation, *, first: bool) -> Message:
    """What the policy sees: the screen, before its first action with the task."""
    buffer = io.BytesIO()
    observation.image.save(buffer, "PNG", compress_level=1)
    text = observation.instruction if first else "Next?"
    return Message(
        role="user",
        content=[{"type": "image", "image": data_url(buffer.getvalue())}, {"type": "text", "text": text}],
    )


def written(action: Action) -> str:
    """An action as text that `rl.gui.agent.parse_action` reads, in pixels."""
    if action.kind == "click":
        assert action.point is not None, "a click has a point"
        return f"click({round(action.point[0])}, {round(action.point[1])})"
    if action.kind == "scroll":
        return f"scroll({action.text})"
    return f'type("{action.text}")' if action.kind == "type" else f"{action.kind}()"
