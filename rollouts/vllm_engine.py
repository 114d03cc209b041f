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
import psutil
from numpy.typing import NDArray

from rollouts.engine import (
    Begun,
    EngineStart,
    Generation,
    Progress,
    PromptMismatch,
    Request,
    Sampling,
    finished,
    joined,
    sampled_alone,
)
from rollouts.images import open_image
from rollouts.quick_imports import quick_imports
from rollouts.shared_weights import SharedWeights
from rollouts.trajectory import FinishReason, PromptImages

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # engine, scheduler and model in this one process
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}
# Without a GPU, inductor would compile C++ for seconds at the first request, and two OpenMP threads that
# compete for busy cores make every call many times slower.
# Weights are allocated anew at every update: memory that malloc keeps need not be mapped page by page again.
CPU_ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # vLLM would bind workers to NUMA nodes, of which there may be one
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}

# A call of `advance` returns after so many seconds.
_REPORT_S = 0.1


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
    tensor_parallel: int = 1
    """workers that share every layer"""
    sleeps: bool = False
    """`sleep` will be called"""


class VllmEngine:
    """Implements `rollouts.engine.EngineActor`. Requests that come together decide each other's last bits on a CPU."""

    def __init__(self, settings: VllmSettings) -> None:
        constructed = time.time()
        with quick_imports():
            from vllm import LLM

            import rollouts.vllm_weights  # noqa: F401  # registers the backend that the arguments name

        imported = time.time()
        self._version = -1
        self._asleep = False
        self._llm = LLM(**engine_arguments(settings))
        self._engine: Any = self._llm.llm_engine
        self._config = self._engine.vllm_config
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._never_sampled = never_sampled(self._config)
        self._requests: dict[int, Request] = {}
        self._start = EngineStart(psutil.Process().create_time(), constructed, imported, time.time())

    def ready(self) -> EngineStart:
        """See `EngineActor.ready`."""
        return self._start

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """See `Generates`, for an engine that one caller has for itself."""
        return sampled_alone(self, requests, seed=seed)

    def advance(self, new: Sequence[tuple[int, Request]], *, seed: int | None) -> Progress:
        """See `EngineActor.advance`."""
        began = time.time()
        if seed is not None:
            # One generator for all: a seed per request makes vLLM draw row by row.
            self._llm.collective_rpc("seed_sampling", args=(seed,))
        pictures: dict[int, dict[str, Any]] = {}
        failed = [(number, reason) for number, request in new if (reason := self._refused(number, request, pictures))]
        done: list[tuple[int, Generation]] = []
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                number = int(output.request_id)
                request = self._requests.pop(number)
                try:
                    check_prompt(request, output.prompt_token_ids or [])
                except PromptMismatch as error:
                    failed.append((number, str(error)))
                else:
                    done.append((number, self._generation(request, output.outputs[0])))
            if time.time() - began > _REPORT_S:
                break
        return Progress(done, failed, began, time.time())

    def _refused(self, number: int, request: Request, pictures: dict[int, dict[str, Any]]) -> str | None:
        """Takes a request; why it cannot be taken, or None."""
        parameters = sampling_parameters(
            request.remaining, logprobs=0, output_kind=_final_only(), logit_bias=self._never_sampled
        )
        try:
            self._engine.add_request(str(number), engine_prompt(request, pictures), parameters)
        except Exception as error:  # a prompt is untrusted: too long, or an image that its processor chokes on
            return f"{type(error).__name__}: {error}"
        self._requests[number] = request
        return None

    def _generation(self, request: Request, output: Any) -> Generation:
        reason = FinishReason.LENGTH if output.finish_reason == "length" else FinishReason.STOP
        return finished(request, self._sampled(output.token_ids, output.logprobs), output.text, reason, self._tokenizer)

    def _sampled(self, token_ids: Sequence[int], entries: Sequence[Any]) -> Begun:
        """Tokens with the log-probs (logprobs=0: the sampled token's own) that vLLM gave for each."""
        logprobs = [entry[token].logprob for entry, token in zip(entries, token_ids)]
        versions = np.full(len(token_ids), self._version, np.int32)
        return Begun(np.asarray(token_ids, np.int64), np.asarray(logprobs, np.float32), versions)

    def pause(self) -> list[tuple[int, Begun]]:
        """See `EngineActor.pause`."""
        return self.give_back(list(self._requests))

    def give_back(self, numbers: Sequence[int]) -> list[tuple[int, Begun]]:
        """See `EngineActor.give_back`. vLLM gives no last output for a request that is aborted: its state is read."""
        begun: list[tuple[int, Begun]] = []
        wanted = set(numbers) & set(self._requests)
        for state in self._engine.output_processor.request_states.values():
            number = int(state.external_req_id)
            if number not in wanted:
                continue
            new = self._sampled(list(state.detokenizer.output_token_ids), state.logprobs_processor.logprobs)
            begun.append((number, joined(self._requests.pop(number).begun, new)))
        self._engine.abort_request([str(number) for number, _ in begun])
        return begun

    def load_weights(self, weights: SharedWeights | Mapping[str, NDArray[np.float32]], version: int) -> None:
        """See `EngineActor.load_weights`. A failure in the middle leaves the model without weights: end the actor."""
        self._llm.collective_rpc("start_weight_update")
        self._llm.collective_rpc("update_weights", args=({"weights": weights},))
        self._llm.collective_rpc("finish_weight_update")
        if not self._llm.reset_prefix_cache(reset_running_requests=True):
            raise RuntimeError("vLLM kept prefixes that were computed with the old weights")
        if self._config.model_config.is_multimodal_model:
            self._engine.reset_encoder_cache()  # images as the old vision tower saw them
        self._engine.set_weight_version(str(version))
        self._version = version

    def sleep(self) -> None:
        """Gives the memory of weights and cache back; on a CPU vLLM keeps it."""
        if self._config.model_config.enable_sleep_mode and not self._asleep:
            self._llm.sleep(level=2)
            self._asleep = True

    def wake(self) -> None:
        """Takes the memory back; there are no weights in it."""
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False


def engine_arguments(settings: VllmSettings) -> dict[str, Any]:
    """Keyword arguments of vLLM's LLM and EngineArgs."""
    arguments: dict[str, Any] = {
        "model": settings.model,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "trust_remote_code": settings.trust_remote_code,
        "seed": 0,
        "worker_extension_cls": "rollouts.vllm_weights.WorkerExtension",
        "weight_transfer_config": {"backend": "host"},
        # After temperature: the distribution that was really sampled from, which the trainer computes too.
        "logprobs_mode": "processed_logprobs",
        "tensor_parallel_size": settings.tensor_parallel,
        "limit_mm_per_prompt": {"video": 0, "audio": 0},  # neither is ever sent: no memory is kept for them
        "enforce_eager": not settings.on_gpu,
        "load_format": "auto" if list(Path(settings.model).glob("*.safetensors")) else "dummy",
    }
    if settings.on_gpu:
        arguments |= {"gpu_memory_utilization": settings.gpu_memory_utilization, "enable_sleep_mode": settings.sleeps}
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
        return TokensPrompt(prompt_token_ids=request.token_ids.tolist())
    if id(request.images) not in pictures:
        pictures[id(request.images)] = _multi_modal(request.images)
    unexpanded = [*request.images.unexpanded_ids.tolist(), *request.begun.token_ids.tolist()]
    return {"prompt_token_ids": unexpanded, **pictures[id(request.images)]}


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
    if request.images is not None and not np.array_equal(request.token_ids, seen):
        expected = len(request.token_ids)
        raise PromptMismatch(f"a prompt with images: {len(seen)} tokens in vLLM, {expected} in the trainer")


def never_sampled(config: Any) -> dict[int, float] | None:
    """Logit bias against placeholders of images: one that is sampled cannot be scored by the trainer."""
    if not config.model_config.is_multimodal_model:
        return None
    from rollouts.processing import media_token_ids

    return dict.fromkeys(media_token_ids(config.model_config.hf_config), -100.0)


def _final_only() -> Any:
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.FINAL_ONLY


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
