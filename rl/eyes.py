"""What is wrong with a recipe because its model takes images, known before anything is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rl.recipe import Recipe


def vision_problems(recipe: Recipe, *, load: bool) -> Iterator[str]:
    """`key: what is wrong`.

    Args:
        load: also load the processor of a model in a folder, which imports transformers and may run the model's code.
    """
    folder = None if recipe.model.path is None else Path(recipe.model.path).expanduser()
    created = recipe.model.create is not None and recipe.model.create.vision is not None
    in_folder = folder is not None and _has_vision_config(folder)
    if recipe.learner.packing and (created or in_folder):
        yield "learner.packing: true: a model that takes images is not packed; false is expected"
    if load and in_folder:
        from rollouts.processing import ProcessorUnusable, load_processing

        try:
            load_processing(str(folder), trust_remote_code=recipe.model.trust_remote_code)
        except ProcessorUnusable as error:
            yield f"model.path: {error}"


def _has_vision_config(folder: Path) -> bool:
    """False also where there is no configuration to read."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "vision_config" in config
