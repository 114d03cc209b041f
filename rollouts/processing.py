"""A model's tokenizer or, for a model with eyes, its processor: prompts become token ids and pixel inputs.

No code here is of one model: whatever a processor returns beside the tokens is passed on under its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from rollouts.images import open_image, read_image
from rollouts.rows import DatasetError
from rollouts.trajectory import ImagePiece, ModelInputs, PromptContent, PromptImages, images_of

Processing = PreTrainedTokenizerBase | ProcessorMixin

# A build of torchvision loads beside the build of torch that it was made for, and no other.
_TORCHVISION = (
    "install the one that was built for this torch, from where torch came: pip install torchvision"
    + (" --index-url https://download.pytorch.org/whl/cpu" if torch.version.cuda is None else "")
)

_NO_FORWARD_ARGUMENTS = ("input_ids", "attention_mask")


class ProcessorUnusable(RuntimeError):
    """A model takes images, and its processor cannot be loaded here; the message says what is missing."""


def takes_images(config: Any) -> bool:
    """Whether a model with this configuration is one of images and text."""
    return model_class(config) is AutoModelForImageTextToText or hasattr(config, "vision_config")


def model_class(config: Any) -> Any:
    """The class of transformers that loads such a model with its head."""
    own_code = getattr(config, "auto_map", None) or {}
    if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES or "AutoModelForImageTextToText" in own_code:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def load_processing(path: str, *, trust_remote_code: bool = False) -> Processing:
    """The processor of a model that takes images, the tokenizer of any other.

    Raises:
        ProcessorUnusable: the processor needs a package that is not installed, or has files missing.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (ImportError, OSError, ValueError) as error:
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise ProcessorUnusable(f"{path} has code of its own; model.trust_remote_code: true lets it run") from error
        raise
    if not takes_images(config):
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    try:
        processor: Any = AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (ImportError, OSError, ValueError) as error:
        wanted = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        wanted = wanted.split(". Check out")[0]
        hint = f"; {_TORCHVISION}" if "torchvision" in str(error).lower() else ""
        raise ProcessorUnusable(f"the processor of {path} cannot be loaded: {wanted}{hint}") from error
    if isinstance(processor, PreTrainedTokenizerBase):
        raise ProcessorUnusable(f"{path} takes images, but has no processor_config.json or preprocessor_config.json")
    return processor


def tokenizer_of(processing: Processing) -> PreTrainedTokenizerBase:
    """The tokenizer itself."""
    tokenizer: Any = processing if isinstance(processing, PreTrainedTokenizerBase) else processing.tokenizer
    return tokenizer


def encoded(processing: Processing, content: PromptContent) -> NDArray[np.int64]:
    """Token ids [T_prompt] of a prompt without images."""
    if isinstance(content, str):
        ids = tokenizer_of(processing)(content)["input_ids"]
    elif isinstance(processing, PreTrainedTokenizerBase):
        turns: Any = content
        rendered: Any = processing.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        ids = rendered["input_ids"]
    else:
        ids = tokenizer_of(processing)(rendered_text(processing, content), add_special_tokens=False)["input_ids"]
    return np.asarray(ids, dtype=np.int64)


def rendered_text(processing: Processing, content: PromptContent) -> str:
    """A conversation through the chat template, up to where the answer begins."""
    turns: Any = content
    template: Any = processing
    return str(template.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


def encoded_with_images(
    processing: Processing, content: PromptContent
) -> tuple[NDArray[np.int64], PromptImages, ModelInputs]:
    """Token ids [T_prompt] with placeholders expanded, what an engine needs, what the learner needs.

    Raises:
        DatasetError: the model takes no images, or an image cannot be read.
    """
    if isinstance(processing, PreTrainedTokenizerBase):
        raise DatasetError(f"a prompt has images, and the model takes none: {str(images_of(content)[0])[:80]}")
    files = tuple(read_image(source) for source in images_of(content))
    text = rendered_text(processing, content)
    unexpanded = tokenizer_of(processing)(text, add_special_tokens=False)["input_ids"]
    ids, inputs = processed(processing, text, files)
    return ids, PromptImages((ImagePiece(text, files, 0),), np.asarray(unexpanded, np.int64)), inputs


def processed(processing: ProcessorMixin, text: str, files: Sequence[bytes]) -> tuple[NDArray[np.int64], ModelInputs]:
    """Token ids [T] and forward arguments of a text with placeholders and its images."""
    images = [open_image(data) for data in files]
    out: Any = processing(text=[text], images=images, return_tensors="np", add_special_tokens=False)
    ids = out["input_ids"][0].astype(np.int64)
    per_token: dict[str, NDArray[Any]] = {}
    per_image: dict[str, NDArray[Any]] = {}
    for name, value in out.items():
        array = np.asarray(value)
        if name in _NO_FORWARD_ARGUMENTS:
            continue
        if array.shape == (1, len(ids)):
            per_token[name] = array[0]
        else:
            per_image[name] = array
    return ids, ModelInputs(per_token, per_image)


def inputs_of(processing: ProcessorMixin, images: PromptImages, token_ids: NDArray[np.int64]) -> ModelInputs | None:
    """Forward arguments of a prompt from its pieces; None where the processor makes other tokens of one."""
    parts: list[tuple[int, ModelInputs]] = []
    for piece in images.pieces:
        ids, inputs = processed(processing, piece.text, piece.files)
        if not np.array_equal(ids, token_ids[piece.start : piece.start + len(ids)]):
            return None
        parts.append((piece.start, inputs))
    return joined(parts)


def joined(parts: Sequence[tuple[int, ModelInputs]]) -> ModelInputs:
    """Inputs of pieces of one sequence, each with the index of its first token."""
    per_token: dict[str, NDArray[Any]] = {}
    for name in dict.fromkeys(name for _, part in parts for name in part.per_token):
        known = [(start, part.per_token[name]) for start, part in parts if name in part.per_token]
        per_token[name] = np.zeros(max(start + len(values) for start, values in known), known[0][1].dtype)
        for start, values in known:
            per_token[name][start : start + len(values)] = values
    names = dict.fromkeys(name for _, part in parts for name in part.per_image)
    per_image = {
        name: _concatenated([part.per_image[name] for _, part in parts if name in part.per_image]) for name in names
    }
    return ModelInputs(per_token, per_image)


def together(
    rows: Sequence[ModelInputs], *, width: int, offsets: Sequence[int] | None = None
) -> dict[str, NDArray[Any]]:
    """Forward arguments of a batch: per token [B, width], the rest along the first dimension, other ones padded.

    Args:
        rows: of each row of the batch; rows without images add nothing.
        offsets: column in which each row begins (rows padded on the left); not given: 0.
    """
    out: dict[str, NDArray[Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row.per_token):
        known = [row.per_token.get(name) for row in rows]
        out[name] = np.zeros((len(rows), width), next(x.dtype for x in known if x is not None))
        for index, values in enumerate(known):
            if values is not None:
                start = offsets[index] if offsets is not None else 0
                out[name][index, start : start + len(values)] = values[: width - start]
    for name in dict.fromkeys(name for row in rows for name in row.per_image):
        out[name] = _concatenated([row.per_image[name] for row in rows if name in row.per_image])
    return out


def _concatenated(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Along the first dimension; the others are padded with zeros to the largest."""
    shapes = [array.shape[1:] for array in arrays]
    if len(set(shapes)) == 1:
        return np.concatenate(arrays)
    largest = [max(sizes) for sizes in zip(*shapes)]
    out = np.zeros((sum(map(len, arrays)), *largest), arrays[0].dtype)
    start = 0
    for array in arrays:
        out[(slice(start, start + len(array)), *map(slice, array.shape[1:]))] = array
        start += len(array)
    return out


def media_token_ids(config: Any) -> list[int]:
    """Placeholders that a model replaces by images, videos or sound; a policy that samples one cannot be scored."""
    names: Mapping[str, Any] = config.to_dict()
    keys = ("image_token_id", "video_token_id", "audio_token_id", "image_token_index", "video_token_index")
    return sorted({int(names[key]) for key in keys if isinstance(names.get(key), int)})
