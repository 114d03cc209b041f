"""The real engine: vLLM inside one process, made to be a Ray actor.

vLLM takes over the process that it runs in (torch.distributed, thread counts), so it never shares one with the
learner. The environment below has to be set before vllm is imported.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollouts.engine import Generation, Request, Sampling
from rollouts.trajectory import FinishReason

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
        self._start_s = time.monotonic() - start

    def ready(self) -> float:
        """Returns once the model is loaded: the seconds that it took, imports included."""
        return self._start_s

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """See `Engine.generate`."""
        import torch
        from vllm import TokensPrompt

        # One generator for the batch: a seed per request makes vLLM draw row by row.
        torch.manual_seed(seed)
        prompts = [TokensPrompt(prompt_token_ids=request.prompt_token_ids.tolist()) for request in requests]
        # logprobs=0: the sampled token's own
        parameters = [sampling_parameters(request.sampling, logprobs=0) for request in requests]
        outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
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
