"""A small model from nothing: Qwen3 architecture, random weights, a tokenizer of characters and whole pieces."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rl.durable import folder_written_aside
from rl.recipe import CreateModel, TokenizerSection

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"


def create_model(section: CreateModel, folder: Path, *, seed: int) -> None:
    """Writes config, weights and tokenizer to `folder`, complete or not at all."""
    tokenizer = make_tokenizer(section.tokenizer)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=section.hidden_size,
        num_hidden_layers=section.num_layers,
        num_attention_heads=section.num_heads,
        num_key_value_heads=section.num_kv_heads,
        head_dim=section.head_dim,
        intermediate_size=section.intermediate_size,
        max_position_embeddings=section.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": section.rope_theta},
        initializer_range=section.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    with folder_written_aside(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def make_tokenizer(section: TokenizerSection) -> PreTrainedTokenizerFast:
    """Ids: <pad> 0, <eos> 1, <unk> 2, then the characters, then the pieces. No token is added by itself."""
    vocabulary = list(dict.fromkeys([PAD, EOS, UNKNOWN, *section.characters, *section.pieces]))
    tokenizer = Tokenizer(
        models.WordLevel({token: index for index, token in enumerate(vocabulary)}, unk_token=UNKNOWN)
    )
    longest_first = sorted(section.pieces, key=lambda piece: -len(piece))
    pattern = "|".join([*map(re.escape, longest_first), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
