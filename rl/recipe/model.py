"""The model that a pipeline starts from: loaded, or made with random weights."""

from __future__ import annotations

from pydantic import model_validator

from rl.recipe.section import Positive, PositiveFloat, Section


class TokenizerSection(Section):
    """A tokenizer of single characters and whole pieces, made from the recipe."""

    characters: str
    """every character that may occur; anything else becomes <unk>"""
    pieces: list[str] = []
    """strings that are one token each, the longest match first"""


class VisionSection(Section):
    """Eyes of a created model: a SigLIP vision tower; merge x merge of its patches become one token of the decoder."""

    image_size: Positive
    """pixels of a side; every image is scaled to this square"""
    patch_size: Positive
    merge: Positive = 1
    hidden_size: Positive
    num_layers: Positive
    num_heads: Positive
    intermediate_size: Positive

    @property
    def tokens_per_image(self) -> int:
        """Tokens of the decoder that one image becomes, without those around it."""
        return (self.image_size // self.patch_size // self.merge) ** 2

    @model_validator(mode="after")
    def _divides(self) -> VisionSection:
        if self.image_size % (self.patch_size * self.merge):
            raise ValueError(f"patch_size * merge: {self.patch_size} * {self.merge} does not divide {self.image_size}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads} does not divide hidden_size {self.hidden_size}")
        return self


class CreateModel(Section):
    """A model with random weights, for runs that start from nothing: Qwen3, or Idefics3 where it has `vision`."""

    tokenizer: TokenizerSection
    hidden_size: Positive
    num_layers: Positive
    num_heads: Positive
    num_kv_heads: Positive
    head_dim: Positive
    """vLLM's CPU attention takes 32, 64, 80, 96, 112, 128, 160, 192, 224, 256 or 512"""
    intermediate_size: Positive
    max_position_embeddings: Positive = 1024
    rope_theta: PositiveFloat = 10000.0
    initializer_range: PositiveFloat = 0.02
    """standard deviation of the random weights"""
    vision: VisionSection | None = None
    """with it the model takes images, and the prompts of conversations"""


class ModelSection(Section):
    """The policy that the pipeline starts from: exactly one of `path` and `create`."""

    path: str | None = None
    """a local folder or a hub name `organisation/name`"""
    create: CreateModel | None = None
    trust_remote_code: bool = False
    """run Python code that comes with the model"""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSection:
        if (self.path is None) == (self.create is None):
            raise ValueError("needs exactly one of the keys: path (a model to load), create (a model to make)")
        return self
