"""A whole model from disk or hub: no weight is left random, and its files may name the weights in their own way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from rollouts.processing import model_class

# In a config.json: names of weights in the files, as regular expressions, and what the model calls them. Some models
# with code of their own are loaded with `key_mapping=` by their card, and are random without it.
_KEY_MAPPING = "key_mapping"


class WeightsMissing(RuntimeError):
    """Weights of a model are not in its files; the message says which."""


def load_model(path: str, *, trust_remote_code: bool) -> PreTrainedModel:
    """A model of language, or of images and language, in float32 on the CPU.

    Raises:
        WeightsMissing: transformers would have made some up.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    mapping = getattr(config, _KEY_MAPPING, None)
    loaded: Any = model_class(config).from_pretrained(
        path,
        config=config,  # given, since otherwise a key of the same name in it would swallow key_mapping
        dtype=torch.float32,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        **({"key_mapping": mapping} if mapping else {}),
    )
    model, found = loaded
    missing = sorted(found["missing_keys"])
    if missing:
        shown = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
        raise WeightsMissing(
            f"{path}: {len(missing)} weights are not in its files: {shown}. If the card of the model loads it with "
            f"key_mapping=..., put that mapping into its config.json as {_KEY_MAPPING!r}"
        )
    whole: PreTrainedModel = model
    return whole


def file_names(model: PreTrainedModel, names: Iterable[str]) -> dict[str, str]:
    """What its files, and so its class in vLLM, call each weight that the model calls `names`."""
    if not getattr(model.config, _KEY_MAPPING, None):
        return {name: name for name in names}
    nothing = torch.empty(0)
    return {name: next(iter(revert_weight_conversion(model, {name: nothing}))) for name in names}
