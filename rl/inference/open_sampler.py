"""From what the command line says of a model to a sampler: vLLM or transformers in this process, or an endpoint."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rl.errors import UserError
from rollouts.endpoint import EndpointSampler, EndpointSettings
from rollouts.sampler import Sampler
from rollouts.trajectory import Message, PromptContent, images_of, text_of
from rollouts.vllm_engine import CPU_ENVIRONMENT, ENVIRONMENT, VllmSettings

if TYPE_CHECKING:
    from rollouts.processing import Processing

_PROBED_BYTES = 1 << 16


@dataclass(frozen=True)
class LocalModel:
    """A model that this process loads."""

    path: str
    """a folder, or a hub name organisation/name"""
    engine: Literal["vllm", "hf"]
    context: int | None
    """tokens of prompt and response together; None: what the model's config says"""
    max_num_seqs: int
    kv_cache_gb: float | None
    dtype: Literal["float32", "bfloat16"] | None
    """None: bfloat16 on a GPU, float32 on a CPU"""
    trust_remote_code: bool


@dataclass(frozen=True)
class OpenModel:
    """A sampler, ready, and what must be known of it."""

    sampler: Sampler
    name: str
    fingerprint: str
    """of the weights; "" for an endpoint"""
    takes_conversations: bool
    """True for an endpoint and for a model with a chat template"""
    context: int | None
    takes_images: bool = True

    def prompt(self, content: PromptContent) -> PromptContent:
        """The content in a form that the model takes: a conversation where it can, else plain text.

        Raises:
            ValueError: images for a model that takes none, or several turns for a model without a chat template.
        """
        if images_of(content) and not self.takes_images:
            raise ValueError(f"{self.name} takes no images")
        if self.takes_conversations or isinstance(content, str):
            return content
        if len(content) != 1 or content[0]["role"] != "user":
            raise ValueError(f"{self.name} has no chat template: it takes one user turn, which it reads as plain text")
        return text_of(content[0])


def as_conversation(content: PromptContent) -> PromptContent:
    """Plain text as the user turn of a conversation."""
    return [Message(role="user", content=content)] if isinstance(content, str) else content


def open_endpoint(settings: EndpointSettings, *, on_retry: Callable[[str], None]) -> OpenModel:
    """A server; nothing is asked of it yet."""
    return OpenModel(EndpointSampler(settings, on_retry=on_retry), settings.model, "", True, settings.context)


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable; None where no variable is named.

    Raises:
        UserError: it is not set.
    """
    if variable is None:
        return os.environ.get("OPENAI_API_KEY")
    if not os.environ.get(variable):
        raise UserError(f"--api-key-env: the environment variable {variable} is not set")
    return os.environ[variable]


def open_local(model: LocalModel) -> OpenModel:
    """Loads a model.

    Raises:
        UserError: there is no such folder, vLLM is not installed, or the context is longer than the model's.
    """
    _check(model)
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch's and vLLM's, about each other
    os.environ.update(ENVIRONMENT | {"VLLM_LOGGING_LEVEL": "CRITICAL"})  # what fails is raised
    if not _has_gpu():
        os.environ.update(CPU_ENVIRONMENT)
    from transformers import AutoConfig

    from rollouts.processing import ProcessorUnusable, load_processing, takes_images, tokenizer_of

    try:
        config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
        processing = load_processing(model.path, trust_remote_code=model.trust_remote_code)
    except ProcessorUnusable as error:
        raise UserError(f"--model {model.path}: {error}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model.path}: cannot be loaded: {str(error).splitlines()[0]}") from None
    longest = int(config.get_text_config().max_position_embeddings)
    if model.context is not None and model.context > longest:
        raise UserError(f"--context {model.context}: {model.path} holds {longest} tokens")
    context = model.context or longest
    sampler = _sampler(replace(model, context=context), context, processing)
    templates = [getattr(processing, "chat_template", None), tokenizer_of(processing).chat_template]
    has_template = any(template is not None for template in templates)
    return OpenModel(
        sampler, model.path, fingerprint(Path(model.path)), has_template, context, takes_images(config)
    )


def _check(model: LocalModel) -> None:
    path = Path(model.path).expanduser()
    if not path.is_dir() and (model.path.count("/") != 1 or model.path.startswith((".", "/", "~"))):
        raise UserError(f"--model {model.path}: there is no such folder, and it is no hub name organisation/name")
    if model.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise UserError("--engine vllm: vLLM is not installed; --engine hf runs on transformers alone, slower")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _sampler(model: LocalModel, context: int, processing: Processing) -> Sampler:
    if model.engine == "hf":
        from rollouts.batch_sampler import BatchSampler
        from rollouts.hf_engine import HfEngine

        device = "cuda" if _has_gpu() else "cpu"
        engine = HfEngine(
            model.path, max_num_seqs=model.max_num_seqs, device=device, trust_remote_code=model.trust_remote_code
        )
        return BatchSampler(engine, processing, max_model_len=context)
    from rollouts.vllm_sampler import VllmSampler

    on_gpu = _has_gpu()
    settings = VllmSettings(
        model=model.path,
        dtype=model.dtype or ("bfloat16" if on_gpu else "float32"),
        max_model_len=context,
        max_num_seqs=model.max_num_seqs,
        kv_cache_gb=model.kv_cache_gb,
        gpu_memory_utilization=0.9,
        on_gpu=on_gpu,
        trust_remote_code=model.trust_remote_code,
    )
    return VllmSampler(settings, processing)


def fingerprint(folder: Path) -> str:
    """16 hex digits that change with the weights: sizes, first and last bytes of the weight files, and the config.

    A hub name has none: its revision is the hub's affair.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("config.json")])
    if not files:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        with file.open("rb") as stream:
            size = file.stat().st_size
            digest.update(f"{file.name}:{size}:".encode() + stream.read(_PROBED_BYTES))
            stream.seek(max(size - _PROBED_BYTES, 0))
            digest.update(stream.read())
    return digest.hexdigest()


def digest_of(rows: Mapping[str, object] | list[object]) -> str:
    """16 hex digits of JSON-able content."""
    import json

    return hashlib.blake2b(json.dumps(rows, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
