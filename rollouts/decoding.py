"""Sampling from a transformers model, token by token: each prompt is read once, and a finished row leaves the batch.

transformers' generate carries every row to the end of the longest one. Where lengths have a long tail, most of its
work is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from rollouts.engine import Sampling
from rollouts.growing_cache import growing_cache
from rollouts.processing import together
from rollouts.trajectory import NO_INPUTS, ModelInputs
from rollouts.truncation import Truncation, cut_down

# Rows that have ended wait for others to end, so that the cache is not copied for each: up to this share of the batch.
_WAITING_SHARE = 0.1


@dataclass(frozen=True)
class Decoded:
    """What was sampled for one row."""

    token_ids: NDArray[np.int64]
    """[A] up to the end-of-sequence token, the one that completed a stop text, or max_tokens"""
    logprobs: NDArray[np.float32]
    """[A] nats, after temperature, top-k and top-p"""


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[NDArray[np.int64]],
    sampling: Sampling,
    *,
    end: frozenset[int],
    stops: Callable[[NDArray[np.int64]], bool] | None = None,
    model_inputs: Sequence[ModelInputs] = (),
    never: Sequence[int] = (),
) -> list[Decoded]:
    """One response per prompt, drawn from torch's global generator.

    Args:
        prompts: token ids; neighbours that are equal, images included, are read as one.
        end: tokens that end a response.
        stops: whether the tokens sampled so far end a response; None never does.
        model_inputs: of the images of each prompt; nothing where no prompt has any.
        never: tokens that are not sampled.
    """
    state, logits = _prefill(model, prompts, model_inputs or [NO_INPUTS] * len(prompts))
    rows = torch.arange(len(prompts), device=logits.device)  # the prompt that each row of the batch answers
    tokens = torch.zeros(len(prompts), sampling.max_tokens, dtype=torch.int64)
    logprobs = torch.zeros(tokens.shape)
    lengths = torch.full((len(prompts),), sampling.max_tokens)
    ends = torch.tensor(sorted(end), device=logits.device)
    running = torch.ones(len(prompts), dtype=torch.bool, device=logits.device)
    for step in range(sampling.max_tokens):
        if never:
            logits[:, list(never)] = -torch.inf
        chosen, scores = _draw(logits, sampling)
        live = rows[running].cpu()
        tokens[live, step], logprobs[live, step] = chosen[running].cpu(), scores[running].cpu()
        ended = torch.isin(chosen, ends)
        if stops is not None:
            for place in (running & ~ended).nonzero()[:, 0].tolist():
                ended[place] = stops(tokens[int(rows[place]), : step + 1].numpy())
        lengths[rows[running & ended].cpu()] = step + 1
        running = running & ~ended
        if not running.any() or step + 1 == sampling.max_tokens:
            break
        if int((~running).sum()) > _WAITING_SHARE * len(running):
            kept = running.nonzero()[:, 0]
            state, rows, chosen, running = state.of(kept), rows[kept], chosen[kept], running[kept]
        logits = state.advance(model, chosen)
    found = zip(tokens, logprobs, lengths.tolist())
    return [Decoded(row[:length].numpy(), scores[:length].numpy()) for row, scores, length in found]


@dataclass
class _State:
    """The rows of the batch as the model has read them."""

    cache: Any
    """keys and values of every layer, [n, heads, T, d] each"""
    mask: Tensor
    """[n, T] int64, 0 on the padding left of a prompt"""
    padded: bool
    """whether `mask` has any 0"""
    shifts: Tensor | None = None
    """[n, 1] what the rotary position of a token after the prompt is beyond its place, in models whose images take
    fewer positions than tokens; None in others"""

    def of(self, kept: Tensor) -> _State:
        """Only these rows."""
        self.cache.batch_select_indices(kept)
        shifts = None if self.shifts is None else self.shifts[kept]
        return _State(self.cache, self.mask[kept], self.padded, shifts)

    def advance(self, model: Any, tokens: Tensor) -> Tensor:
        """Reads one more token of each row: logits [n, V] of the next."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        positions = None
        if self.padded or self.shifts is not None:
            positions = self.mask.sum(1, keepdim=True) - 1
        if positions is not None and self.shifts is not None:
            positions = positions + self.shifts
        out = model(
            input_ids=tokens[:, None],
            attention_mask=self.mask if self.padded else None,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits


def _prefill(
    model: Any, prompts: Sequence[NDArray[np.int64]], model_inputs: Sequence[ModelInputs]
) -> tuple[_State, Tensor]:
    """The state after the prompts, and the logits [B, V] of the first token of each row."""

    def as_before(i: int) -> bool:
        return i > 0 and model_inputs[i] is model_inputs[i - 1] and np.array_equal(prompts[i], prompts[i - 1])

    firsts = [i for i in range(len(prompts)) if not as_before(i)]
    repeats = torch.tensor(np.diff([*firsts, len(prompts)]), device=model.device)
    width = max(map(len, prompts))
    ids = torch.zeros(len(firsts), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, first in enumerate(firsts):  # padded on the left, so that sampling starts in one column
        ids[row, width - len(prompts[first]) :] = torch.from_numpy(prompts[first])
        mask[row, width - len(prompts[first]) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    padded = not bool(mask.all())
    cache = growing_cache(model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    offsets = [width - len(prompts[first]) for first in firsts]
    images = together([model_inputs[first] for first in firsts], width=width, offsets=offsets)
    keeps_shifts = hasattr(model.base_model, "rope_deltas")  # transformers' name, in Qwen-VL, GLM-V and their kin
    finds_positions = keeps_shifts and bool(images)  # by itself; without images it would take those of its last batch
    out = model(
        input_ids=ids,
        attention_mask=mask if padded else None,
        position_ids=positions if (padded or keeps_shifts) and not finds_positions else None,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **{name: torch.from_numpy(array).to(model.device) for name, array in images.items()},
    )
    each = torch.repeat_interleave(torch.arange(len(firsts), device=model.device), repeats)
    shifts = None
    if keeps_shifts:
        shifts = model.base_model.rope_deltas.view(-1, 1) if finds_positions else torch.zeros_like(ids[:, :1])
    state = _State(cache, mask, padded, shifts).of(each)
    return state, out.logits[:, -1].float()[each]


def _draw(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """(token [n], its log-prob [n]) by inversion of the cumulative distribution, in float64."""
    if sampling.temperature == 0:
        chosen = logits.argmax(-1)
        return chosen, logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    logits = cut_down(logits, Truncation(sampling.top_p, sampling.top_k))
    logprobs = logits.log_softmax(-1)
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
    point = torch.rand(len(logits), 1, dtype=torch.float64, device=logits.device) * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, point, right=True).clamp(max=logits.shape[1] - 1)
    return chosen[:, 0], logprobs.gather(1, chosen)[:, 0]
