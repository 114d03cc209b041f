"""The real engine: vLLM inside one process, made to be a Ray actor.

vLLM takes over the process that it runs in (torch.distributed, thread counts), so it never shares one with the
learner. The environment below has to be set before vllm is imported.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollouts.engine import Generation, PromptMismatch, Request, Sampling
from rollouts.images import open_image
from rollouts.trajectory import FinishReason, PromptImages

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # engine, scheduler and model in this one process
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}
# Without a GPU, inductor would compile C++ for seconds at the first request, and two OpenMP threads that
# compete for busy cores make every call many times slower.
CPU_ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class VllmSettings:
    """What one engine needs to know; numbers as in the recipe's `engine` section."""

    model: str
    """folder with config and tokenizer; its weights are replaced before the first request"""
    dtype: str
    max_model_len: int
    max_num_seqs: int
    kv_cache_gb: float | None
    gpu_memory_utilization: float
    on_gpu: bool
    trust_remote_code: bool


class VllmEngine:
    """Implements `rollouts.engine.Engine`."""

    def __init__(self, settings: VllmSettings) -> None:
        start = time.monotonic()
        from vllm import LLM

        self._version = -1
        self._llm = LLM(**engine_arguments(settings))
        self._config = self._llm.llm_engine.vllm_config
        self._never_sampled = never_sampled(self._config)
        self._start_s = time.monotonic() - start

    def ready(self) -> float:
        """Returns once the model is loaded: the seconds that it took, imports included."""
        return self._start_s

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """See `Engine.generate`."""
        import torch

        # One generator for the batch: a seed per request makes vLLM draw row by row.
        torch.manual_seed(seed)
        pictures: dict[int, dict[str, Any]] = {}
        prompts = [engine_prompt(request, pictures) for request in requests]
        # logprobs=0: the sampled token's own
        parameters = [
            sampling_parameters(request.sampling, logprobs=0, logit_bias=self._never_sampled) for request in requests
        ]
        outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
        for request, output in zip(requests, outputs):
            check_prompt(request, output.prompt_token_ids or [])
        return [self._generation(output.outputs[0]) for output in outputs]

    def _generation(self, output: Any) -> Generation:
        token_ids = np.asarray(output.token_ids, dtype=np.int64)
        logprobs = [entry[token].logprob for entry, token in zip(output.logprobs, output.token_ids)]
        reason = FinishReason.LENGTH if output.finish_reason == "length" else FinishReason.STOP
        return Generation(token_ids, np.asarray(logprobs, np.float32), output.text, reason, self._version)

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        """See `Engine.load_weights`. A failure in the middle leaves the model without weights: restart the actor."""
        import torch

        tensors = [(name, torch.from_numpy(np.array(x))) for name, x in weights.items()]
        self._llm.apply_model(lambda model: _reload(model, tensors, self._config))
        if not self._llm.reset_prefix_cache(reset_running_requests=True):
            raise RuntimeError("vLLM kept prefixes that were computed with the old weights")
        if self._config.model_config.is_multimodal_model:
            self._llm.llm_engine.reset_encoder_cache()  # images as the old vision tower saw them
        self._version = version

    def sleep(self) -> None:
        """See `Engine.sleep`; on a CPU vLLM keeps its memory."""
        if self._config.model_config.enable_sleep_mode:
            self._llm.sleep(level=2)

    def wake(self) -> None:
        """See `Engine.wake`."""
        if self._config.model_config.enable_sleep_mode:
            self._llm.wake_up()


def engine_arguments(settings: VllmSettings) -> dict[str, Any]:
    """Keyword arguments of vLLM's LLM and EngineArgs."""
    arguments: dict[str, Any] = {
        "model": settings.model,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "trust_remote_code": settings.trust_remote_code,
        "seed": 0,
        # After temperature: the distribution that was really sampled from, which the trainer computes too.
        "logprobs_mode": "processed_logprobs",
        "enforce_eager": not settings.on_gpu,
        "load_format": "auto" if list(Path(settings.model).glob("*.safetensors")) else "dummy",
    }
    if settings.on_gpu:
        arguments |= {"gpu_memory_utilization": settings.gpu_memory_utilization, "enable_sleep_mode": True}
    if settings.kv_cache_gb is not None or not settings.on_gpu:
        arguments["kv_cache_memory_bytes"] = int((settings.kv_cache_gb or 1.0) * 2**30)
    return arguments


def engine_prompt(request: Request, pictures: dict[int, dict[str, Any]]) -> Any:
    """vLLM's form of a prompt.

    Args:
        pictures: of the requests so far; samples of one prompt share its decoded images.
    """
    from vllm import TokensPrompt

    if request.images is None:
        return TokensPrompt(prompt_token_ids=request.prompt_token_ids.tolist())
    if id(request.images) not in pictures:
        pictures[id(request.images)] = _multi_modal(request.images)
    return {"prompt_token_ids": request.images.unexpanded_ids.tolist(), **pictures[id(request.images)]}


def _multi_modal(images: PromptImages) -> dict[str, Any]:
    # A digest of the file spares vLLM one of the pixels, by which it knows images that it has processed.
    digests = [hashlib.blake2b(data, digest_size=16).hexdigest() for data in images.files]
    return {
        "multi_modal_data": {"image": [open_image(data) for data in images.files]},
        "multi_modal_uuids": {"image": digests},
    }


def check_prompt(request: Request, seen: Sequence[int]) -> None:
    """The engine must have seen the very tokens that the trainer will score.

    Raises:
        PromptMismatch: it has not.
    """
    if request.images is not None and not np.array_equal(request.prompt_token_ids, seen):
        expected = len(request.prompt_token_ids)
        raise PromptMismatch(f"a prompt with images: {len(seen)} tokens in vLLM, {expected} in the trainer")


def never_sampled(config: Any) -> dict[int, float] | None:
    """Logit bias against placeholders of images: one that is sampled cannot be scored by the trainer."""
    if not config.model_config.is_multimodal_model:
        return None
    from rollouts.processing import media_token_ids

    return dict.fromkeys(media_token_ids(config.model_config.hf_config), -100.0)


def sampling_parameters(sampling: Sampling, **others: Any) -> Any:
    """vLLM's form of how tokens are drawn; `others` are fields of its SamplingParams."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or -1,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop) or None,
        **others,
    )


def _reload(model: Any, tensors: list[tuple[str, Any]], config: Any) -> None:
    """Loads weights into a running model, layer by layer, as if from disk."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    with set_current_vllm_config(config):
        initialize_layerwise_reload(model)
        model.load_weights(iter(tensors))
        finalize_layerwise_reload(model, config.model_config)
    # On a CPU a tied head keeps a packed copy of the embedding, which the reload leaves stale without a word.
    heads: list[Any] = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    for head in heads:
        if hasattr(head, "cpu_linear") and head.weight.numel():
            dispatch_cpu_unquantized_gemm(head, remove_weight=False)
