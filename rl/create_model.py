"""A small model from nothing: Qwen3 or, with eyes, Idefics3; random weights, a tokenizer of characters and pieces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin, Qwen3Config, Qwen3ForCausalLM

from rl.durable import folder_written_aside
from rl.recipe import CreateModel, TokenizerSection, VisionSection

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"

# Tokens that Idefics3's processor writes around and in place of an image.
_IMAGE = "<image>"
_IMAGE_TOKENS = (_IMAGE, "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")

# Turns of a conversation one right after the other, so that a small model answers where the question ends. What the
# assistant says ends with <eos>.
_CHAT_TEMPLATE = """\
{%- for turn in messages -%}
{%- if turn.content is string -%}{{ turn.content }}
{%- else -%}{%- for part in turn.content -%}
{%- if part.type == 'image' -%}<image>{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- if turn.role == 'assistant' -%}<eos>{%- endif -%}
{%- endfor -%}"""


def create_model(section: CreateModel, folder: Path, *, seed: int) -> None:
    """Writes config, weights and tokenizer (or processor) to `folder`, complete or not at all."""
    tokenizer = make_tokenizer(section.tokenizer, special=_IMAGE_TOKENS if section.vision else ())
    torch.manual_seed(seed)
    model: PreTrainedModel
    processing: PreTrainedTokenizerFast | ProcessorMixin
    if section.vision is None:
        model, processing = _qwen3(section, tokenizer), tokenizer
    else:
        model, processing = _idefics3(section, section.vision, tokenizer), _processor(section.vision, tokenizer)
    with folder_written_aside(folder) as aside:
        model.save_pretrained(aside)
        processing.save_pretrained(aside)


def _qwen3(section: CreateModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**_decoder_keys(section, tokenizer), tie_word_embeddings=True))


def _decoder_keys(section: CreateModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """What the configurations of both decoders have in common."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": section.hidden_size,
        "num_hidden_layers": section.num_layers,
        "num_attention_heads": section.num_heads,
        "num_key_value_heads": section.num_kv_heads,
        "head_dim": section.head_dim,
        "intermediate_size": section.intermediate_size,
        "max_position_embeddings": section.max_position_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": section.rope_theta},
        "initializer_range": section.initializer_range,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _idefics3(section: CreateModel, vision: VisionSection, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A SigLIP-like tower, one linear projector, a Llama decoder: runs in vLLM without torchvision."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig

    config = Idefics3Config(
        vision_config={
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_layers,
            "num_attention_heads": vision.num_heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "initializer_range": section.initializer_range,
        },
        text_config=LlamaConfig(**_decoder_keys(section, tokenizer), tie_word_embeddings=True),
        scale_factor=vision.merge,
        image_token_id=tokenizer.get_vocab()[_IMAGE],
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    return Idefics3ForConditionalGeneration(config)


def _processor(vision: VisionSection, tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor

    size = {"longest_edge": vision.image_size}
    images = Idefics3ImageProcessorPil(do_image_splitting=False, size=size, max_image_size=size)
    return Idefics3Processor(
        images, tokenizer, image_seq_len=vision.tokens_per_image, chat_template=_CHAT_TEMPLATE
    )


def make_tokenizer(section: TokenizerSection, *, special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Ids: <pad> 0, <eos> 1, <unk> 2, the special tokens, the characters, the pieces. No token is added by itself."""
    vocabulary = list(dict.fromkeys([PAD, EOS, UNKNOWN, *special, *section.characters, *section.pieces]))
    tokenizer = Tokenizer(
        models.WordLevel({token: index for index, token in enumerate(vocabulary)}, unk_token=UNKNOWN)
    )
    longest_first = sorted(section.pieces, key=lambda piece: -len(piece))
    pattern = "|".join([*map(re.escape, longest_first), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=list(special),
        clean_up_tokenization_spaces=False,
    )
