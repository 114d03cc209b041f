"""The learner: policy, critic and frozen reference, evaluated and updated. One object per rank.

It knows tensors and the algorithm's numbers. It knows nothing of prompts, rewards, engines or stages.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from rl.batch import Evaluation, Minibatch, PPOBatch, TokenBatch, empty_row, micro_batches, take_rows
from rl.fused_layers import fuse_layers, keep_freed_memory
from rl.lora import base_name, merged, own_tensors, restart_lora, take_merged
from rl.model_copies import POLICY_PREFIX, ModelCopies
from rl.models import Critic, Policy, TokenDistribution, load_language_model
from rl.objectives import critic_objective, policy_objective, sft_objective
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection
from rl.sharding import (
    is_first_rank,
    load_sharded,
    load_whole_weights,
    module_tensors,
    optimizer_tensors,
    same_count_on_every_rank,
    save_sharded,
    set_optimizer_tensors,
    whole_weights,
)
from rl.token_sets import NO_SETS, RowSets, TokenSets
from rl.trained_model import MicroLoss, Sums, TrainedModel, learning_rate
from rollouts.load_model import file_names
from rollouts.truncation import WHOLE, Truncation


class Learner:
    """Everything with gradients on one rank."""

    def __init__(self, section: LearnerSection, model_path: str, *, trust_remote_code: bool, device: str) -> None:
        torch.set_num_threads(section.threads)
        self.section = section
        self.trust_remote_code = trust_remote_code
        self.device = torch.device(device)
        language_model = load_language_model(model_path, trust_remote_code=trust_remote_code)
        if self.device.type == "cpu":
            keep_freed_memory()
            if not section.compile:
                fuse_layers(language_model)
        if section.activation_checkpointing:
            language_model.gradient_checkpointing_enable({"use_reentrant": False})
        # Kept unsharded and without storage of its own: the pattern from which critic and reference are made.
        self.architecture = self._pattern(language_model)
        self.copies = ModelCopies(section, self.architecture, self.device)
        self.policy = self.copies.policy(language_model)
        self.reference: Policy | None = None
        self.average: Policy | None = None
        self.kl_coef = 0.0
        self.trained_policy: TrainedModel | None = None
        self.trained_critic: TrainedModel | None = None

    @staticmethod
    def _pattern(language_model: Any) -> PreTrainedModel:
        """The same architecture without storage."""
        return copy.deepcopy(language_model).to("meta")

    # ------------------------------------------------------------ stages

    def begin_sft(self, optimizer: OptimizerSection) -> None:
        """A fresh optimizer on the policy; no critic, no reference."""
        self._train_policy(optimizer)
        self.reference = self.trained_critic = None

    def begin_rl(
        self,
        optimizer: OptimizerSection,
        critic: CriticSection | None,
        algorithm: AlgorithmSection,
        temperature: float,
        truncation: Truncation = WHOLE,
    ) -> None:
        """Fresh optimizers; the critic's backbone and the reference are copies of the policy as it is now.

        Args:
            temperature, truncation: of the distribution that tokens are sampled from.
        """
        self.truncation = truncation
        self.algorithm, self.temperature, self.kl_coef = algorithm, temperature, algorithm.kl_coef
        self._train_policy(optimizer)
        self.reference = self.copies.frozen(self.policy) if algorithm.needs_reference else None
        self.trained_critic = None
        if critic is not None:
            self.trained_critic = self._trained_model(self.copies.critic(self.policy), critic.optimizer)

    def _train_policy(self, optimizer: OptimizerSection) -> None:
        if self.section.lora is not None:
            restart_lora(self.policy)
        self.average = self.copies.frozen(self.policy) if optimizer.ema_decay is not None else None
        self.trained_policy = self._trained_model(self.policy, optimizer, self.average)

    def _trained_model(
        self, module: Policy | Critic, optimizer: OptimizerSection, average: Policy | None = None
    ) -> TrainedModel:
        tokens, packed = self.section.micro_batch_tokens, self.section.packing
        return TrainedModel(
            module, optimizer, device=self.device, micro_batch_tokens=tokens, packed=packed, average=average
        )

    def reset_reference(self) -> None:
        """The policy as it is becomes the reference."""
        assert self.reference is not None, "the recipe keeps a reference"
        load_whole_weights(self.reference, whole_weights(self.policy))

    # ------------------------------------------------------------ evaluation

    @torch.no_grad()
    def evaluate(self, batch: TokenBatch) -> Evaluation:
        """Log-probs, reference log-probs and values of this rank's rows, in their order."""
        shape = batch.token_ids.shape
        out = {name: torch.zeros(shape) for name in ("logprobs", "ref_logprobs", "values")}
        last_values = torch.zeros(shape[0])
        token_sets: dict[int, RowSets] = {}
        tokens = 2 * self.section.micro_batch_tokens
        rows_of = micro_batches(batch.attention_mask, max_tokens=tokens, packed=self.section.packing)
        missing = same_count_on_every_rank(len(rows_of), self.device) - len(rows_of)
        for rows in rows_of + [torch.zeros(0, dtype=torch.int64)] * missing:
            piece = take_rows(batch, rows) if len(rows) else empty_row(batch, torch.device("cpu"))
            scores, last, sets = self._evaluate_piece(piece)
            if len(rows):
                for row, own in zip(rows.tolist(), sets.rows):
                    token_sets[row] = own
                width = piece.token_ids.shape[1]
                last_values[rows] = last
                for name, value in scores.items():
                    out[name][rows, :width] = value
        in_order = TokenSets(tuple(token_sets[row] for row in range(shape[0]))) if token_sets else NO_SETS
        return Evaluation(last_values=last_values, token_sets=in_order, **out)

    def _evaluate_piece(self, piece: TokenBatch) -> tuple[dict[str, Tensor], Tensor, TokenSets]:
        tokens, mask = piece.token_ids.to(self.device), piece.action_mask.to(self.device)
        lengths = piece.attention_mask.sum(1).to(self.device)
        zeros = torch.zeros(tokens.shape)
        images = piece.model_inputs.arguments(tokens)

        def view(policy: Policy, **over: Any) -> TokenDistribution:
            found: TokenDistribution = policy(
                tokens, mask, self.temperature, model_inputs=images, lengths=lengths, **over
            )
            return found

        scores, sets = {"logprobs": piece.rollout_logprobs, "values": zeros}, NO_SETS
        if self.algorithm.old_logprobs == "trainer" or self.truncation.cuts:
            own = view(self.policy, truncation=self.truncation)
            sets = own.token_sets
            if self.algorithm.old_logprobs == "trainer":
                scores["logprobs"] = own.logprobs.cpu()
        scores["ref_logprobs"] = scores["logprobs"]
        if self.reference is not None:
            scores["ref_logprobs"] = view(self.reference, token_sets=sets).logprobs.cpu()
        last = torch.zeros(len(tokens))
        if self.trained_critic is not None:
            values = self.trained_critic.module(tokens, images, lengths=lengths).cpu()
            scores["values"] = torch.where(piece.action_mask, values[:, :-1], 0.0)
            last = values.gather(1, piece.attention_mask.sum(1, keepdim=True))[:, 0]
        return scores, last, sets

    # ------------------------------------------------------------ updates

    def update_policy(self, pieces: Sequence[Minibatch], *, iteration: int, total: int) -> list[Sums]:
        """One optimizer step per mini-batch; sums of each, see `policy_objective`."""
        trained = self._begun(self.trained_policy)
        trained.set_learning_rate(learning_rate(trained.section, iteration, total))
        return [trained.step(piece, self._policy_micro_loss) for piece in pieces]

    def _policy_micro_loss(self, micro: PPOBatch, whole: Minibatch) -> MicroLoss:
        settings = self.algorithm
        adapted = settings.kl_target is not None and settings.kl_loss_coef > 0
        coef = self.kl_coef if adapted else settings.kl_loss_coef
        return policy_objective(self.policy, micro, whole, settings, temperature=self.temperature, kl_loss_coef=coef)

    def update_critic(self, pieces: Sequence[Minibatch], *, iteration: int, total: int) -> list[Sums]:
        """One optimizer step per mini-batch; sums of each."""
        trained = self._begun(self.trained_critic)
        trained.set_learning_rate(learning_rate(trained.section, iteration, total))
        loss_of = functools.partial(critic_objective, cast(Critic, trained.module), settings=self.algorithm)
        return [trained.step(piece, loss_of) for piece in pieces]

    def update_sft(self, piece: Minibatch, *, step: int, total: int) -> Sums:
        """One step of maximum likelihood on the tokens under action_mask, averaged over them."""
        trained = self._begun(self.trained_policy)
        trained.set_learning_rate(learning_rate(trained.section, step, total))
        return trained.step(piece, functools.partial(sft_objective, self.policy))

    def current_kl_coef(self) -> float:
        """The coefficient of KL, as adapted so far."""
        return self.kl_coef

    def set_kl_coef(self, coef: float) -> None:
        """From the next update on; part of the saved state."""
        self.kl_coef = coef

    @staticmethod
    def _begun(trained: TrainedModel | None) -> TrainedModel:
        assert trained is not None, "begin_sft or begin_rl comes first"
        return trained

    # ------------------------------------------------------------ weights and state

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The policy under the names of its files, ready for an engine; empty on ranks other than the first."""
        whole = self._language_model_weights()
        config = self.architecture.config
        if getattr(config.get_text_config(), "tie_word_embeddings", config.tie_word_embeddings):
            whole.pop("lm_head.weight", None)
        names = file_names(self.architecture, whole)
        return {names[name]: x.numpy() for name, x in whole.items()}

    def save_model(self, folder: Path) -> None:
        """Writes the policy as a plain transformers model. A moving average of its weights becomes the policy first."""
        if self.average is not None:
            load_whole_weights(self.policy, whole_weights(self.average))
        whole = self._language_model_weights()
        if is_first_rank():
            self.architecture.save_pretrained(folder, state_dict=whole)

    def _language_model_weights(self) -> dict[str, Tensor]:
        """Every weight of the policy under its transformers name; empty on ranks other than the first."""
        whole = {name.removeprefix(POLICY_PREFIX): x for name, x in whole_weights(self.policy).items()}
        return whole if self.section.lora is None else merged(self.policy.language_model, whole)

    def load_model(self, folder: Path) -> None:
        """Takes over the weights of a model of the same architecture."""
        if self.section.lora is not None and self.section.lora.base == "nf4":  # on one rank
            plain = load_language_model(str(folder), trust_remote_code=self.trust_remote_code)
            take_merged(self.policy.language_model, plain.state_dict())
            return
        whole: dict[str, Tensor] = {}
        if is_first_rank():
            loaded = load_language_model(str(folder), trust_remote_code=self.trust_remote_code)
            whole = {POLICY_PREFIX + name: x for name, x in loaded.state_dict().items()}
        if self.section.lora is not None:
            restart_lora(self.policy)
            adapters = {name: x for name, x in whole_weights(self.policy).items() if ".lora_" in name}
            whole = {base_name(self.policy, name): x for name, x in whole.items()} | adapters
        load_whole_weights(self.policy, whole)

    def save_state(self, folder: Path) -> None:
        """Writes everything that the next iteration depends on; each rank its shards (torch.distributed.checkpoint)."""
        save_sharded(self._state_parts(), folder)

    def load_state(self, folder: Path) -> None:
        """Restores what `save_state` wrote on any number of ranks, after the `begin_` call of the same stage."""
        parts = self._state_parts()
        load_sharded(parts, folder)
        if self.section.lora is not None:
            for module in self._modules().values():
                self.copies.restore_base(module, self.policy)
        for name, trained in self._trained().items():
            set_optimizer_tensors(trained.module, trained.optimizer, parts[f"{name}_optimizer"])
        self.kl_coef = float(parts["adapted"]["kl_coef"])

    def _state_parts(self) -> dict[str, dict[str, Tensor]]:
        """The tensors themselves, not copies: weights are loaded in place."""
        parts = {name: module_tensors(module) for name, module in self._modules().items()}
        if self.section.lora is not None:  # the base once, under the policy
            parts = {name: tensors if name == "policy" else own_tensors(tensors) for name, tensors in parts.items()}
        for name, trained in self._trained().items():
            parts[f"{name}_optimizer"] = optimizer_tensors(trained.module, trained.optimizer)
        return parts | {"adapted": {"kl_coef": torch.tensor(self.kl_coef, dtype=torch.float64)}}

    def _modules(self) -> dict[str, torch.nn.Module]:
        modules: dict[str, torch.nn.Module | None]
        modules = {"policy": self.policy, "reference": self.reference, "average": self.average}
        modules |= {name: trained.module for name, trained in self._trained().items()}
        return {name: module for name, module in modules.items() if module is not None}

    def _trained(self) -> dict[str, TrainedModel]:
        both = {"policy": self.trained_policy, "critic": self.trained_critic}
        return {name: trained for name, trained in both.items() if trained is not None}

