"""Episodes as trajectories: the policy acts on what it sees, and its turns and the screens become one row of tokens.

    [first screen, task] click(120, 88) <eos> [next screen] type("blue 17") <eos> [next screen] done() <eos>
     not sampled         sampled             not sampled   sampled               not sampled   sampled

The token ids are those that the engine saw and sampled: what was written is never tokenized again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import ProcessorMixin

from rl.errors import UserError
from rl.gui.agent import parse_action
from rl.recipe import EpisodeSection
from rollouts.collect import TokenizedPrompt
from rollouts.engine import Engine, Generation, Request, Sampling
from rollouts.environment import Action, Box, Environment, Observation
from rollouts.images import read_image
from rollouts.processing import Processing, joined, processed, rendered_text, tokenizer_of
from rollouts.tasks.device import observation_turn, open_environment
from rollouts.trajectory import (
    FinishReason,
    ImagePiece,
    Message,
    ModelInputs,
    PromptImages,
    Trajectory,
    images_of,
)

_MARK = "5c1f0e"  # stands for an answer where the chat template is asked what it writes behind one


# Where a click was due and something else was done, no numbers in the text can be the click: nothing is there.
_NOWHERE: Box = (-(10**9), -(10**9), -(10**9), -(10**9))


def _judged_target(action: Action, due: Box | None) -> Box | None:
    """The target that a reward judges a turn by: none where no click was due, and for `done`, which the end judges."""
    if action.kind == "done" or due is None:
        return None
    return due if action.kind in ("click", "unreadable") else _NOWHERE


@dataclass
class _Running:
    """One episode under way."""

    prompt: TokenizedPrompt
    environment: Environment
    observation: Observation
    token_ids: NDArray[np.int64]
    unexpanded_ids: NDArray[np.int64]
    pieces: list[ImagePiece]
    inputs: list[tuple[int, ModelInputs]]
    sampled: list[tuple[int, Generation]] = field(default_factory=list)
    """index of the first token of each turn, and the turn"""
    target_boxes: list[Box | None] = field(default_factory=list)
    truncated: bool = False
    """no room was left, or an answer was cut"""

    @property
    def images(self) -> PromptImages:
        """As an engine takes them."""
        return PromptImages(tuple(self.pieces), self.unexpanded_ids)


@dataclass(frozen=True)
class EpisodeCollector:
    """Called like `rollouts.collect.collect`, for prompts with the columns environment and environment_seed."""

    section: EpisodeSection
    processing: Processing
    max_model_len: int

    def __call__(
        self,
        engine: Engine,
        prompts: Sequence[TokenizedPrompt],
        *,
        samples_per_prompt: int,
        sampling: Sampling,
        seed: int,
    ) -> list[Trajectory]:
        """`samples_per_prompt` episodes of every prompt; those of one prompt are adjacent.

        What rewards need of an episode is in the columns of its prompt: target_boxes, image_size, completed,
        terminated_early, shortest_path, coordinate_space. See `rewards.gui_episode`.
        """
        episodes = [self._started(prompt) for prompt in prompts for _ in range(samples_per_prompt)]
        for step in range(self.section.max_steps):
            running = [e for e in episodes if not e.observation.finished and not e.truncated]
            if not running:
                break
            requests = [Request(e.token_ids, sampling, e.images) for e in running]
            for episode, generation in zip(running, engine.generate(requests, seed=seed + step)):
                self._act(episode, generation, room=sampling.max_tokens)
        return [self._trajectory(episode) for episode in episodes]

    def _started(self, prompt: TokenizedPrompt) -> _Running:
        columns = prompt.prompt.columns
        if "environment" not in columns or "environment_seed" not in columns or prompt.images is None:
            raise UserError(
                f"{prompt.prompt.origin}: episodes need rows with a first screen and the columns environment and "
                f"environment_seed, as the task `device` gives; it has: {', '.join(columns)}"
            )
        environment = open_environment(str(columns["environment"]))
        observation = environment.reset(int(str(columns["environment_seed"])))
        return _Running(
            prompt,
            environment,
            observation,
            prompt.token_ids,
            prompt.images.unexpanded_ids,
            list(prompt.images.pieces),
            [(0, prompt.model_inputs)],
        )

    def _act(self, episode: _Running, generation: Generation, *, room: int) -> None:
        """Does what was written, and appends it and the next screen."""
        episode.sampled.append((len(episode.token_ids), generation))
        action = parse_action(
            generation.text,
            image_size=episode.observation.image.size,
            coordinate_space=self.section.coordinate_space,
        )
        episode.target_boxes.append(_judged_target(action, episode.environment.target_box))
        episode.observation = episode.environment.step(action)
        episode.token_ids = np.concatenate([episode.token_ids, generation.token_ids])
        episode.unexpanded_ids = np.concatenate([episode.unexpanded_ids, generation.token_ids])
        if generation.finish_reason is FinishReason.LENGTH:
            episode.truncated = True
        elif not episode.observation.finished and len(episode.sampled) < self.section.max_steps:
            self._append_screen(episode, room)

    def _append_screen(self, episode: _Running, room: int) -> None:
        turn = observation_turn(episode.observation, first=False)
        text = self._behind_an_answer(turn)
        assert isinstance(self.processing, ProcessorMixin), "a prompt with images has gone through a processor"
        files = tuple(read_image(source) for source in images_of([turn]))
        ids, inputs = processed(self.processing, text, files)
        tokenizer: Any = tokenizer_of(self.processing)
        if len(episode.token_ids) + len(ids) + room > self.max_model_len:
            episode.truncated = True
            return
        episode.pieces.append(ImagePiece(text, files, len(episode.token_ids)))
        episode.inputs.append((len(episode.token_ids), inputs))
        unexpanded = tokenizer(text, add_special_tokens=False)["input_ids"]
        episode.token_ids = np.concatenate([episode.token_ids, ids])
        episode.unexpanded_ids = np.concatenate([episode.unexpanded_ids, np.asarray(unexpanded, np.int64)])

    def _behind_an_answer(self, turn: Message) -> str:
        """What the chat template writes between the end of an answer and the next one, without the end-of-sequence
        token that the policy has sampled itself."""
        first = Message(role="user", content="")
        whole = rendered_text(self.processing, [first, Message(role="assistant", content=_MARK), turn])
        behind = whole.partition(_MARK)[2]
        return behind.removeprefix(str(tokenizer_of(self.processing).eos_token))

    def _trajectory(self, episode: _Running) -> Trajectory:
        action_mask = np.zeros(len(episode.token_ids), np.bool_)
        logprobs = np.zeros(len(episode.token_ids), np.float32)
        versions = np.full(len(episode.token_ids), -1, np.int32)
        for start, generation in episode.sampled:
            end = start + len(generation.token_ids)
            action_mask[start:end], logprobs[start:end] = True, generation.logprobs
            versions[start:end] = generation.versions
        environment, last = episode.environment, episode.sampled[-1][1]
        columns = {
            **episode.prompt.prompt.columns,
            "target_boxes": [None if box is None else list(box) for box in episode.target_boxes],
            "image_size": list(episode.observation.image.size),
            "completed": environment.completed,
            "terminated_early": episode.observation.finished and not environment.completed,
            "shortest_path": environment.shortest_path,
            "coordinate_space": self.section.coordinate_space,
        }
        return Trajectory(
            prompt=replace(episode.prompt.prompt, columns=columns),
            token_ids=episode.token_ids,
            action_mask=action_mask,
            rollout_logprobs=logprobs,
            completion=last.text,
            finish_reason=FinishReason.LENGTH if episode.truncated else FinishReason.STOP,
            policy_versions=versions,
            model_inputs=joined(episode.inputs),
            turns=tuple(generation.text for _, generation in episode.sampled),
        )
