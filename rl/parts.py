"""The parts of a model with eyes that are trained apart: vision tower, projector and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import nn

from rl.errors import UserError
from rl.recipe import OptimizerSection
from rl.sharding import world_size
from rollouts.processing import takes_images

Part = Literal["vision", "projector", "decoder"]
PARTS: tuple[Part, ...] = get_args(Part)

# Modules inside a vision tower that project its features to the width of the decoder, as Qwen-VL's merger does.
_PROJECTORS = ("merger", "projector", "connector", "aligner")


def parameter_groups(module: nn.Module, backbone: Any, section: OptimizerSection) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with `scale`, its share of the scheduled learning rate; frozen parts have none.

    Parameters of a part that an earlier stage froze learn again.

    Args:
        module: policy or critic.
        backbone: the transformers model inside it.

    Raises:
        UserError: the recipe names a part that the model does not have.
    """
    rates: dict[Part, float | None] = {
        "vision": section.vision_learning_rate,
        "projector": section.projector_learning_rate,
        "decoder": section.decoder_learning_rate,
    }
    members: dict[Part, list[nn.Parameter]] = {part: [] for part in PARTS}
    known = parts_of(backbone)
    for parameter in module.parameters():
        if getattr(parameter, "frozen_by_stage", False):
            parameter.requires_grad_(True)
            parameter.frozen_by_stage = False  # type: ignore[attr-defined]
        if parameter.requires_grad:
            members[known.get(id(parameter), "decoder")].append(parameter)
    groups = []
    for part, rate in rates.items():
        if rate is not None and part not in known.values():
            raise UserError(f"{part}_learning_rate: {type(backbone).__name__} has no {part} of its own")
        if rate == 0:
            _freeze(members[part])
        elif members[part]:
            scale = 1.0 if rate is None else rate / section.learning_rate
            groups.append({"params": members[part], "scale": scale})
    return groups


def parts_of(backbone: Any) -> Mapping[int, Part]:
    """Part of each parameter by its id, without heads, which go with the decoder; empty for a model of text alone."""
    if not takes_images(backbone.config):
        return {}
    decoder = {id(parameter) for parameter in backbone.get_decoder().parameters()}
    tower = backbone.get_encoder("image")
    in_tower: dict[int, Part] = {}
    if tower is not backbone:
        for name, parameter in tower.named_parameters():
            in_tower[id(parameter)] = "projector" if any(word in name for word in _PROJECTORS) else "vision"
    found: dict[int, Part] = {}
    for parameter in backbone.parameters():
        key = id(parameter)
        found[key] = "decoder" if key in decoder else in_tower.get(key, "projector")
    return found


def _freeze(parameters: list[nn.Parameter]) -> None:
    """No gradient is computed; sharded models compute it and leave it, since FSDP fixes this at its first step."""
    if world_size() == 1:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.frozen_by_stage = True  # type: ignore[attr-defined]
