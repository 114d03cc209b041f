"""Small real parts and stand-ins that several tests share."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import Qwen3Config, Qwen3ForCausalLM

from rl.batch import TokenBatch
from rl.create_model import create_model
from rl.recipe import CreateModel
from rl.scoring import ScoredTrajectory
from rollouts.engine import Begun, Generation, Paused, Request
from rollouts.images import data_url
from rollouts.trajectory import FinishReason, Prompt, Trajectory, prompt_id_of

TINY = CreateModel.model_validate(
    {
        "tokenizer": {"characters": "0123456789abcdefghijklmnopqrstuvwxyz+-*=?:.,()\\{}\n ", "pieces": ["\\boxed{"]},
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 32,
        "intermediate_size": 64,
    }
)


def tiny_model(folder: Path, seed: int = 0) -> str:
    """A random Qwen3 with a character tokenizer on disk."""
    create_model(TINY, folder, seed=seed)
    return str(folder)


TINY_EYES = CreateModel.model_validate(
    {
        **TINY.model_dump(),
        "vision": {
            "image_size": 32,
            "patch_size": 8,
            "merge": 2,
            "hidden_size": 32,
            "num_layers": 1,
            "num_heads": 2,
            "intermediate_size": 64,
        },
        "initializer_range": 0.3,
    }
)


def tiny_vision_model(folder: Path, seed: int = 0) -> str:
    """A random Idefics3 with its processor on disk."""
    create_model(TINY_EYES, folder, seed=seed)
    return str(folder)


def png(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture with a square of a colour on grey."""
    image = Image.new("RGB", size, "grey")
    image.paste(colour, (2, 2, size[0] // 2, size[1] // 2))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def picture_prompt(*colours: str, text: str = "what?") -> Prompt:
    """A user turn with pictures, or plain text without any."""
    parts = [{"type": "image", "image": data_url(png(colour))} for colour in colours]
    content = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}] if colours else text
    return Prompt(prompt_id_of(content), content, {}, "test")  # type: ignore[arg-type]


def trajectory(
    prompt_ids: Sequence[int], sampled: Sequence[int], *, content: str = "p", reason: FinishReason = FinishReason.STOP
) -> Trajectory:
    """A trajectory with zero log-probs."""
    length = len(prompt_ids) + len(sampled)
    return Trajectory(
        prompt=Prompt(prompt_id_of(content), content, {}, "test"),
        token_ids=np.array([*prompt_ids, *sampled], dtype=np.int64),
        action_mask=np.repeat([False, True], [len(prompt_ids), len(sampled)]),
        rollout_logprobs=np.zeros(length, np.float32),
        completion="",
        finish_reason=reason,
        policy_versions=np.repeat(np.array([-1, 0], np.int32), [len(prompt_ids), len(sampled)]),
    )


def scored(reward: float, *args: Sequence[int], **kwargs: object) -> ScoredTrajectory:
    """A trajectory with a reward."""
    return ScoredTrajectory(trajectory(*args, **kwargs), reward, {"r": reward})  # type: ignore[arg-type]


def random_batch(rows: int, width: int, vocabulary: int, seed: int = 0) -> TokenBatch:
    """Ragged rows with a prompt of random length and a hole of tool output in some."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, width + 1, (rows,), generator=g)
    lengths[0] = width
    position = torch.arange(width)
    attention_mask = position < lengths[:, None]
    starts = 1 + (torch.rand(rows, generator=g) * (lengths - 2)).long()
    action_mask = attention_mask & (position >= starts[:, None])
    holes = (torch.rand(rows, width, generator=g) < 0.2) & (position != (lengths - 1)[:, None])
    action_mask &= ~holes
    token_ids = torch.randint(3, vocabulary, (rows, width), generator=g) * attention_mask
    rewards = torch.zeros(rows, width)
    rewards[torch.arange(rows), lengths - 1] = torch.rand(rows, generator=g)
    return TokenBatch(
        token_ids=token_ids,
        attention_mask=attention_mask,
        action_mask=action_mask,
        rollout_logprobs=torch.zeros(rows, width),
        rewards=rewards,
        truncated=torch.zeros(rows, dtype=torch.bool),
        groups=torch.arange(rows) // 2,
    )


class TorchEngine:
    """An engine of a few lines on a plain forward pass: real sampling, no Ray and no vLLM."""

    def __init__(self, config: Qwen3Config, tokenizer: object) -> None:
        self.model = Qwen3ForCausalLM(config).eval()
        self.tokenizer = tokenizer
        self.version = -1

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        generator = torch.Generator().manual_seed(seed)
        return [self._one(request, generator) for request in requests]

    def _one(self, request: Request, generator: torch.Generator) -> Generation:
        ids, logprobs = list(request.prompt_token_ids), []
        for _ in range(request.sampling.max_tokens):
            scores = self.model(torch.tensor([ids])).logits[0, -1] / request.sampling.temperature
            scores = scores.log_softmax(-1)
            token = int(torch.multinomial(scores.exp(), 1, generator=generator))
            ids.append(token)
            logprobs.append(float(scores[token]))
            if token == self.tokenizer.eos_token_id:
                break
        new = np.array(ids[len(request.prompt_token_ids) :], dtype=np.int64)
        stopped = new[-1] == self.tokenizer.eos_token_id
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH
        return Generation(new, np.array(logprobs, np.float32), text, reason, np.full(len(new), self.version, np.int32))

    def stream(self, requests: Sequence[Request], *, seed: int) -> Iterator[tuple[int, Generation]]:
        yield from enumerate(self.generate(requests, seed=seed))

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        tensors = {name: torch.from_numpy(x.copy()) for name, x in weights.items()}
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
        self.model.load_state_dict(tensors)
        self.version = version

    def sleep(self) -> None: ...

    def wake(self) -> None: ...


class SteppingEngine(TorchEngine):
    """Samples a token of every request in turn, as an engine with continuous batching does; can be paused."""

    def __init__(self, config: Qwen3Config, tokenizer: object) -> None:
        super().__init__(config, tokenizer)
        self.rows: list[list[tuple[int, float, int]]] = []  # by request: (token, log-prob, version) each
        self.delivered: set[int] = set()
        self.num_sampled = 0

    @torch.no_grad()
    def stream(self, requests: Sequence[Request], *, seed: int) -> Iterator[tuple[int, Generation]]:
        generator = torch.Generator().manual_seed(seed)
        self.rows = [
            list(zip(*(x.tolist() for x in (r.begun.token_ids, r.begun.logprobs, r.begun.versions)))) for r in requests
        ]
        self.delivered = set()
        while len(self.delivered) < len(requests):
            for index, request in enumerate(requests):
                if index not in self.delivered:
                    self._step(request, self.rows[index], generator)
                    if (done := self._done(request, self.rows[index])) is not None:
                        self.delivered.add(index)
                        yield index, done

    def _step(self, request: Request, row: list[tuple[int, float, int]], generator: torch.Generator) -> None:
        ids = [*request.prompt_token_ids.tolist(), *(token for token, _, _ in row)]
        scores = (self.model(torch.tensor([ids])).logits[0, -1] / request.sampling.temperature).log_softmax(-1)
        token = int(torch.multinomial(scores.exp(), 1, generator=generator))
        row.append((token, float(scores[token]), self.version))
        self.num_sampled += 1

    def _done(self, request: Request, row: list[tuple[int, float, int]]) -> Generation | None:
        stopped = row[-1][0] == self.tokenizer.eos_token_id
        if not stopped and len(row) < request.sampling.max_tokens:
            return None
        begun = _as_begun(row)
        text = self.tokenizer.decode(begun.token_ids, skip_special_tokens=True)
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH
        return Generation(begun.token_ids, begun.logprobs, text, reason, begun.versions)

    def pause(self) -> Paused:
        return Paused({}, {i: _as_begun(row) for i, row in enumerate(self.rows) if i not in self.delivered})


def _as_begun(row: list[tuple[int, float, int]]) -> Begun:
    columns = list(zip(*row)) or [(), (), ()]
    return Begun(*(np.array(x, t) for x, t in zip(columns, (np.int64, np.float32, np.int32))))
