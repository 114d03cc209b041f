"""A backend for vLLM's weight-transfer interface that takes weights from host memory: for CPUs, and wherever trainer
and engine share neither a GPU nor an NCCL group.

vLLM imports this module in each of its workers, through `WorkerExtension`, which registers the backend there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rollouts.shared_weights import SharedWeights

BACKEND = "host"


@dataclass
class HostInitInfo(WeightTransferInitInfo):
    """Nothing: there is no connection to set up."""


@dataclass
class HostUpdateInfo(WeightTransferUpdateInfo):
    """All weights of a model."""

    weights: SharedWeights | Mapping[str, Any]
    """memory to open, or arrays by name"""


class HostWeightTransfer(WeightTransferEngine[HostInitInfo, HostUpdateInfo]):
    """Loads weights layer by layer, as if from disk. A failure in the middle leaves the model without weights."""

    init_info_cls = HostInitInfo
    update_info_cls = HostUpdateInfo

    def init_transfer_engine(self, init_info: HostInitInfo) -> None:
        """See `WeightTransferEngine`."""

    def start_weight_update(self) -> None:
        """See `WeightTransferEngine`."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """See `WeightTransferEngine`; without its synchronisation where there is no accelerator."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: HostUpdateInfo) -> None:
        """See `WeightTransferEngine`."""
        weights = update_info.weights
        arrays = weights.tensors() if isinstance(weights, SharedWeights) else weights.items()
        load: Any = self.model
        load.load_weights((name, as_tensor(array)) for name, array in arrays)

    def finish_weight_update(self) -> None:
        """See `WeightTransferEngine`."""
        finalize_layerwise_reload(self.model, self.model_config)
        _pack_tied_heads(self.model)

    def shutdown(self) -> None:
        """See `WeightTransferEngine`."""


def as_tensor(array: NDArray[np.float32]) -> torch.Tensor:
    """The same memory, or a copy of memory that cannot be written to, which torch does not take."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _pack_tied_heads(model: nn.Module) -> None:
    """On a CPU a tied head keeps a packed copy of the embedding, which the reload leaves stale without a word."""
    heads: list[Any] = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    for head in heads:
        if hasattr(head, "cpu_linear") and head.weight.numel():
            dispatch_cpu_unquantized_gemm(head, remove_weight=False)


class WorkerExtension:
    """Mixed into vLLM's workers, wherever they run."""

    def seed_sampling(self, seed: int) -> None:
        """Of all requests that follow."""
        torch.manual_seed(seed)


WeightTransferEngineFactory.register_engine(BACKEND, HostWeightTransfer)
