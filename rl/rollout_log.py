"""A trajectory as a line of a run's log. Images that are not files already become files beside the log, once each."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from rl.scoring import ScoredTrajectory
from rollouts.images import image_digest, open_image, read_image
from rollouts.trajectory import ContentPart, ImagePart, Message, PromptContent

_FOLDER = "images"
_THUMBNAIL = 320  # pixels of the longer side

# Columns of an episode with which it can be played again.
_OF_EPISODES = ("environment", "environment_seed", "coordinate_space", "completed", "target_boxes")


def logged(item: ScoredTrajectory, iteration: int, folder: Path) -> dict[str, Any]:
    """The line; `folder` is that of the log."""
    trajectory = item.trajectory
    row = {
        "iteration": iteration,
        "prompt_id": trajectory.prompt.prompt_id,
        "origin": trajectory.prompt.origin,
        "prompt": with_files(trajectory.prompt.content, folder),
        "completion": trajectory.completion,
        "finish_reason": str(trajectory.finish_reason),
        "policy_version": trajectory.policy_version,
        "num_tokens": trajectory.num_sampled_tokens,
        "reward": item.reward,
        "terms": dict(item.terms),
    }
    if item.partial:
        row["partial"] = [list(part) for part in item.partial]
    if trajectory.turns:
        columns = trajectory.prompt.columns
        row["turns"] = list(trajectory.turns)
        row["episode"] = {name: columns[name] for name in _OF_EPISODES if name in columns}
    return row


def with_files(content: PromptContent, folder: Path) -> PromptContent:
    """The content with data URLs written to files in `folder`, and their paths from there."""
    return content if isinstance(content, str) else [_turn_with_files(turn, folder) for turn in content]


def _turn_with_files(turn: Message, folder: Path) -> Message:
    content = turn["content"]
    if isinstance(content, str):
        return turn
    return Message(role=turn["role"], content=[_part_with_file(part, folder) for part in content])


def _part_with_file(part: ContentPart, folder: Path) -> ContentPart:
    if part["type"] == "text" or not part["image"].startswith("data:"):
        return part
    name = f"{_FOLDER}/{image_digest(part['image'])[:16]}.png"
    if not (folder / name).exists():
        (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(read_image(part["image"]))
    return ImagePart(type="image", image=name)


def thumbnail(source: str, folder: Path) -> str | None:
    """A logged image as a small data URL for a page; None where it can no longer be read."""
    try:
        path = source if source.startswith("data:") else str(folder / source)  # an absolute path stays as it is
        image = open_image(read_image(path), source)
    except ValueError:  # DatasetError: moved or removed since
        return None
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
