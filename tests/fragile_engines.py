"""Real engines that break on purpose, in the way that a file in a folder names, once each."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from rollouts.engine import EngineStart, Generation, Progress
from rollouts.hf_engine import HfEngine
from rollouts.trajectory import FinishReason
from rollouts.vllm_engine import VllmEngine


def suffer(faults, fault):
    """SIGKILL or SIGSTOP of this process, where the folder asks for it."""
    try:
        (faults / fault).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP if fault == "hang" else signal.SIGKILL)


class FragileVllm(VllmEngine):
    """Dies before an update of its weights, or in the middle of one."""

    def __init__(self, settings, faults: Path):
        super().__init__(settings)
        self.faults = faults

    def load_weights(self, weights, version):
        suffer(self.faults, "die before an update")
        if (self.faults / "die in an update").exists():
            tensors = list(weights.tensors())
            half = tensors[: len(tensors) // 2]
            self._llm.apply_model(lambda model: self._load_half(model, half))
        super().load_weights(weights, version)

    def _load_half(self, model, half):
        import torch
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        with set_current_vllm_config(self._config):
            initialize_layerwise_reload(model)
            model.load_weights((name, torch.from_numpy(x.copy())) for name, x in half)
        suffer(self.faults, "die in an update")


class FragileHf(HfEngine):
    """Hangs, or refuses one request."""

    def __init__(self, model, faults: Path):
        super().__init__(model, max_num_seqs=4, device="cpu")
        self.faults = faults

    def advance(self, new, *, seed):
        suffer(self.faults, "hang")
        refusal = self.faults / "refuse one"
        if not new or not refusal.exists():
            return super().advance(new, seed=seed)
        refusal.unlink()
        progress = super().advance(new[1:], seed=seed)
        return Progress(progress.finished, [(new[0][0], "not today")], progress.began, progress.ended)


class PoisonedVllm(VllmEngine):
    """Raises at every step while it has a prompt with a certain token."""

    def __init__(self, settings, poison: int):
        super().__init__(settings)
        step = self._engine.step

        def checked():
            if any(poison in request.prompt_token_ids for request in self._requests.values()):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return step()

        self._engine.step = checked


class Poisoned:
    """An engine without a model, three answers at a time, which raises while it has a prompt with a certain token."""

    def __init__(self, poison: int):
        self.poison, self.waiting = poison, {}

    def give_back(self, numbers):
        return [(number, self.waiting.pop(number).begun) for number in numbers if number in self.waiting]

    def ready(self):
        return EngineStart(0.0, 0.0, 0.0, 0.0)

    def advance(self, new, *, seed):
        self.waiting.update(new)
        if any(self.poison in request.prompt_token_ids for request in self.waiting.values()):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        numbers = list(self.waiting)[:3]
        for number in numbers:
            del self.waiting[number]
        one = Generation(np.array([1]), np.zeros(1, np.float32), "", FinishReason.STOP, np.zeros(1, np.int32))
        return Progress([(number, one) for number in numbers], (), 0.0, 0.0)
