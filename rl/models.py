"""The modules that learn: policy and critic. Both take right-padded tokens and need no attention mask."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from rl.errors import UserError
from rl.packing import packed_hidden_states
from rl.sharding import world_size
from rl.token_sets import NO_SETS, TokenSets
from rollouts.load_model import WeightsMissing, load_model
from rollouts.processing import media_token_ids, takes_images
from rollouts.truncation import WHOLE, Truncation, cut_down

disable_progress_bar()  # a checkpoint is saved in every other iteration; a bar each would bury what matters

EntropyMode = Literal["none", "value", "gradient"]

NO_ARGUMENTS: Mapping[str, Tensor] = MappingProxyType({})

_NEVER = -1e9  # a logit without weight; not -inf, whose share of the entropy would be NaN

# A head that is more than a matrix: these models scale or cap their logits after lm_head.
_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


@dataclass(frozen=True)
class TokenDistribution:
    """The policy's view of the sampled tokens of a batch."""

    logprobs: Tensor
    """[B, T] nats of the token that was sampled; 0 where action_mask is False"""
    entropy: Tensor
    """[B, T] nats of the whole distribution; 0 where action_mask is False or none was asked for"""
    token_sets: TokenSets = NO_SETS
    """[B] what the distribution of each sampled token is over"""


Sets = tuple[Tensor, Tensor]
"""sizes [n] of the sets of n tokens, and their ids, one set after the other"""


class _SetChunks:
    """The sets of the tokens of each chunk."""

    def __init__(self, sets: Sets | None, chunk_tokens: int) -> None:
        self._chunks: list[Sets] = []
        if sets is not None:
            sizes = sets[0].split(chunk_tokens)
            self._chunks = list(zip(sizes, sets[1].split([int(own.sum()) for own in sizes])))

    def of(self, number: int) -> Sets | None:
        """Of a chunk by its number; None for all tokens."""
        return self._chunks[number] if self._chunks else None


class Policy(nn.Module):
    """A model of language, or of images and language, that scores sampled tokens, never holding all logits at once."""

    def __init__(
        self, language_model: PreTrainedModel, *, head_chunk_tokens: int = 4096, packed: bool = False
    ) -> None:
        super().__init__()
        self.packed = packed
        for key in _LOGIT_TRANSFORMS:
            if getattr(language_model.config, key, None) not in (None, 1, 1.0):
                raise ValueError(f"{type(language_model).__name__}: config.{key} is set; such heads are not supported")
        self.language_model = language_model
        self.head_chunk_tokens = head_chunk_tokens
        self.never_sampled = media_token_ids(language_model.config)

    def forward(
        self,
        token_ids: Tensor,
        action_mask: Tensor,
        temperature: float,
        entropy: EntropyMode = "none",
        model_inputs: Mapping[str, Tensor] = NO_ARGUMENTS,
        *,
        lengths: Tensor | None = None,
        token_sets: TokenSets = NO_SETS,
        truncation: Truncation = WHOLE,
    ) -> TokenDistribution:
        """Log-probs and entropies of the sampled tokens, over all tokens or over the set of each.

        Args:
            token_ids: [B, T], padded on the right.
            action_mask: [B, T] bool, True where the token was sampled; column 0 is never read.
            temperature: divides the logits, as in sampling.
            entropy: compute the entropies, with or without their graph; with "none" they are 0.
            model_inputs: further arguments of the model's forward, such as `pixel_values`.
            lengths: [B] tokens of each row, by which a packed model leaves padding out; None reads it.
            token_sets: the tokens that each sampled token's distribution is over.
            truncation: makes these sets of this model's own distribution, in place of sets that are given.
        """
        hidden = hidden_states(self.backbone, token_ids, model_inputs, lengths if self.packed else None)
        sampled = action_mask[:, 1:]
        states, targets = hidden[:, :-1][sampled], token_ids[:, 1:][sampled]  # [N, d], [N]
        if not len(targets):  # a rank without rows: keep every parameter in the graph
            nothing = hidden.sum() * 0 + self.language_model.get_output_embeddings()(hidden[:, :1]).sum() * 0
            zeros = torch.zeros_like(action_mask, dtype=torch.float32) + nothing
            return TokenDistribution(zeros, zeros)
        if truncation.cuts:
            token_sets = self._sets(states, targets, temperature, truncation, action_mask)
        left = _SetChunks(token_sets.flat(action_mask), self.head_chunk_tokens)
        logprobs, entropies = self._score(states, targets, temperature, entropy, left)
        return TokenDistribution(_place(logprobs, action_mask), _place(entropies, action_mask), token_sets)

    @property
    def backbone(self) -> Any:
        """The model below the head."""
        return self.language_model.base_model

    @torch.no_grad()
    def _sets(
        self, states: Tensor, targets: Tensor, temperature: float, truncation: Truncation, action_mask: Tensor
    ) -> TokenSets:
        """The tokens that the truncation leaves of this model's distributions."""
        chunks = zip(states.split(self.head_chunk_tokens), targets.split(self.head_chunk_tokens))
        kept = ((cut_down(self._logits(chunk, temperature), truncation) > -torch.inf, own) for chunk, own in chunks)
        return TokenSets.of(kept, action_mask)

    def _score(
        self, states: Tensor, targets: Tensor, temperature: float, entropy: EntropyMode, left: _SetChunks
    ) -> tuple[Tensor, Tensor]:
        split = (states.split(self.head_chunk_tokens), targets.split(self.head_chunk_tokens))
        chunks = [(*chunk, left.of(number)) for number, chunk in enumerate(zip(*split))]
        if len(chunks) == 1 or not torch.is_grad_enabled():
            parts = [self._score_chunk(*chunk, temperature, entropy) for chunk in chunks]
        else:  # logits of a chunk are made again in the backward pass instead of being kept
            score = functools.partial(checkpoint, self._score_chunk, use_reentrant=False)
            parts = [score(*chunk, temperature, entropy) for chunk in chunks]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _logits(self, states: Tensor, temperature: float) -> Tensor:
        logits: Tensor = self.language_model.get_output_embeddings()(states).float()  # [n, V]
        if temperature != 1:
            logits = logits / temperature
        if self.never_sampled:  # as in the engines: a placeholder without an image cannot be scored
            logits[:, self.never_sampled] = _NEVER
        return logits

    def _score_chunk(
        self, states: Tensor, targets: Tensor, left: Sets | None, temperature: float, entropy: EntropyMode
    ) -> tuple[Tensor, Tensor]:
        logits = self._logits(states, temperature)
        if left is not None:
            sizes, ids = left
            out = torch.ones_like(logits, dtype=torch.bool)
            out[torch.arange(len(sizes), device=ids.device).repeat_interleave(sizes), ids] = False
            logits = logits.masked_fill(out, _NEVER)
        logprobs = logits.log_softmax(-1)
        chosen = logprobs.gather(-1, targets[:, None])[:, 0]
        if entropy == "none":
            return chosen, torch.zeros_like(chosen)
        with torch.set_grad_enabled(torch.is_grad_enabled() and entropy == "gradient"):
            return chosen, -(logprobs.exp() * logprobs).sum(-1)


class Critic(nn.Module):
    """A backbone of its own and a linear value head that starts at zero."""

    def __init__(self, backbone: PreTrainedModel, *, packed: bool = False) -> None:
        super().__init__()
        self.packed = packed
        self.backbone = backbone
        self.value_head = nn.Linear(backbone.config.get_text_config().hidden_size, 1, bias=False)
        nn.init.zeros_(self.value_head.weight)

    def forward(
        self,
        token_ids: Tensor,
        model_inputs: Mapping[str, Tensor] = NO_ARGUMENTS,
        *,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Expected return [B, T + 1]: entry t is the value before token t is emitted, entry T after the last one.

        Entry 0, before any token, is 0. For a row of L < T tokens entry L is the value after its last token.
        `lengths` as in `Policy.forward`.
        """
        hidden = hidden_states(self.backbone, token_ids, model_inputs, lengths if self.packed else None)
        values = self.value_head(hidden.float())[..., 0]
        return torch.cat([torch.zeros_like(values[:, :1]), values], 1)


def hidden_states(
    backbone: Any, token_ids: Tensor, model_inputs: Mapping[str, Tensor], lengths: Tensor | None
) -> Tensor:
    """Last hidden states [B, T, d] of tokens, whose placeholders are filled with the images of `model_inputs`.

    Rows are padded, or packed where their lengths [B] are given.
    """
    if lengths is not None:
        return packed_hidden_states(backbone, token_ids, lengths)
    hidden: Tensor = backbone(input_ids=token_ids, use_cache=False, **model_inputs).last_hidden_state
    if not model_inputs and world_size() > 1 and takes_images(backbone.config):
        # Another rank may have images: the gradients of the eyes must exist on this one too.
        hidden = hidden + 0.0 * sum(parameter.sum() for parameter in eyes(backbone))
    return hidden


def eyes(backbone: Any) -> list[nn.Parameter]:
    """Parameters of vision tower and projector: all that are not the decoder's."""
    decoder = {id(parameter) for parameter in backbone.get_decoder().parameters()}
    return [parameter for parameter in backbone.parameters() if id(parameter) not in decoder]


def _place(x: Tensor, action_mask: Tensor) -> Tensor:
    """[N] values of the sampled tokens -> [B, T], 0 elsewhere."""
    placed = torch.zeros(action_mask[:, 1:].shape, dtype=x.dtype, device=x.device).masked_scatter(action_mask[:, 1:], x)
    return torch.cat([torch.zeros_like(placed[:, :1]), placed], 1)


def load_language_model(path: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """As `load_model`, with dropout off.

    Raises:
        UserError: its files lack weights.
    """
    try:
        return disable_dropout(load_model(path, trust_remote_code=trust_remote_code))
    except WeightsMissing as error:
        raise UserError(f"model.path: {error}") from None


def disable_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Log-probs before and during the update must agree, so nothing may be random."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if hasattr(model.config, "attention_dropout"):
        model.config.attention_dropout = 0.0
    return model.train()


def critic_like(language_model: PreTrainedModel, *, packed: bool = False) -> Critic:
    """A critic whose backbone has the architecture and the weights of a language model's."""
    return Critic(cast(PreTrainedModel, copy.deepcopy(language_model.base_model)), packed=packed)
