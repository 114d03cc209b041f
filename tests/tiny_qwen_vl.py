"""Tiny random Qwen-VL models: images of any size, grids of patches by image, rotary positions of three axes.

Their processors need torchvision. Where it is not installed, `seen` makes the same inputs from the image processor,
which does not.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from fakes import TINY
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from rl.create_model import make_tokenizer
from rollouts.images import open_image
from rollouts.trajectory import ModelInputs

KINDS = ("qwen2_5_vl", "qwen3_vl")
MERGE = 2
"""patches of a side that become one token"""

_START, _END, _IMAGE, _VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
_TEMPLATE = (
    "{%- for turn in messages -%}{%- if turn.content is string -%}{{ turn.content }}{%- else -%}"
    "{%- for part in turn.content -%}{%- if part.type == 'image' -%}"
    f"{_START}{_IMAGE}{_END}"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endfor -%}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Of characters, with the tokens around images."""
    made = make_tokenizer(TINY.tokenizer, special=(_START, _END, _IMAGE, _VIDEO))
    made.chat_template = _TEMPLATE
    return made


def image_processor(kind: str) -> Qwen2VLImageProcessorPil:
    """Cuts pictures of 16 to 4,096 pixels into patches of a side of 4."""
    mean = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if kind == "qwen3_vl" else {}
    pixels = {"shortest_edge": 16, "longest_edge": 4096}
    return Qwen2VLImageProcessorPil(patch_size=4, temporal_patch_size=2, merge_size=MERGE, size=pixels, **mean)


def tiny_qwen_vl(folder: Path, kind: str, *, seed: int = 0, processor: bool = False) -> str:
    """Random weights on disk, with the tokenizer or, where torchvision is installed, the processor."""
    torch.manual_seed(seed)
    words = tokenizer()
    ids = words.get_vocab()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    text = {
        "vocab_size": len(words),
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "initializer_range": 0.3,
    }
    tokens = {
        "image_token_id": ids[_IMAGE],
        "video_token_id": ids[_VIDEO],
        "vision_start_token_id": ids[_START],
        "vision_end_token_id": ids[_END],
        "tie_word_embeddings": True,
    }
    model: Qwen2_5_VLForConditionalGeneration | Qwen3VLForConditionalGeneration
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(text_config=text | {"rope_parameters": rope}, vision_config=vision, **tokens)
        model = Qwen2_5_VLForConditionalGeneration(config)
    else:
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        text |= {"head_dim": 32, "rope_parameters": rope | {"mrope_interleaved": True}}
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **tokens))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if processor:
        _save_processor(folder, kind, words)
    return str(folder)


def seen(kind: str, pictures: Sequence[bytes], text: str) -> tuple[np.ndarray, ModelInputs]:
    """Token ids [T] of pictures and a text after them, and the forward arguments, as Qwen's processor makes them."""
    words = tokenizer()
    vocabulary = words.get_vocab()
    ids: list[int] = []
    out = image_processor(kind)([open_image(data) for data in pictures], return_tensors="np") if pictures else {}
    for grid in out.get("image_grid_thw", ()):
        count = int(np.prod(grid)) // MERGE**2
        ids += [vocabulary[_START], *[vocabulary[_IMAGE]] * count, vocabulary[_END]]
    tokens = np.array([*ids, *words(text)["input_ids"]], np.int64)
    per_token = {"mm_token_type_ids": (tokens == vocabulary[_IMAGE]).astype(np.int64)} if pictures else {}
    return tokens, ModelInputs(per_token, {name: np.asarray(array) for name, array in out.items()})


def _save_processor(folder: Path, kind: str, words: PreTrainedTokenizerFast) -> None:
    """With the classes' own names, as the published checkpoints have them."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    process, films = {
        "qwen2_5_vl": (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor),
        "qwen3_vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
    }[kind]
    cut = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": MERGE}
    made = process(image_processor(kind), words, films(**cut), chat_template=_TEMPLATE)
    made.save_pretrained(folder)
