"""The same loss and gradients as TRL's GRPOTrainer, on the same model, tokens and numbers, where both define the same."""

import pytest
import torch
from fakes import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl.batch import PPOBatch, whole_minibatch
from rl.learner import Learner
from rl.recipe import AlgorithmSection, LearnerSection, OptimizerSection

ROWS, PROMPT, COMPLETION = 4, 3, 6


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def numbers():
    """Prompts of one length, ragged completions; log-probs around those of a random model, so that some are clipped."""
    g = torch.Generator().manual_seed(0)
    make = lambda: -3.9 + 0.4 * torch.randn(ROWS, COMPLETION, generator=g)  # noqa: E731
    mask = torch.arange(COMPLETION) < torch.tensor([6, 2, 4, 1])[:, None]
    ids = torch.randint(3, 50, (ROWS, PROMPT + COMPLETION), generator=g)
    return ids, mask, make(), make(), torch.tensor([1.0, -1.5, -0.5, 2.0])


def of_trl(model_path, numbers, folder, **changes):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    ids, mask, old, ref, advantages = numbers
    config = GRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", num_generations=2,
                        per_device_train_batch_size=ROWS, max_completion_length=COMPLETION, gradient_checkpointing=False,
                        use_bias_correction_kl=False, disable_tqdm=True, **changes)  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32),
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "1+1="}] * 4),
        processing_class=AutoTokenizer.from_pretrained(model_path),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, {
        "prompt_ids": ids[:, :PROMPT], "prompt_mask": torch.ones(ROWS, PROMPT, dtype=torch.int64),
        "completion_ids": ids[:, PROMPT:], "completion_mask": mask.long(), "advantages": advantages,
        "old_per_token_logps": old, "ref_per_token_logps": ref, "num_items_in_batch": mask.sum(),
    })  # fmt: skip
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


def of_ours(model_path, numbers, **algorithm):
    ids, mask, old, ref, advantages = numbers
    settings = AlgorithmSection(advantage="grpo", **algorithm)
    learner = Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu")
    learner.begin_rl(OptimizerSection(learning_rate=1e-3, max_grad_norm=1e9), None, settings, 1.0)
    learner.trained_policy.optimizer.step = lambda: None
    before = lambda x: torch.nn.functional.pad(x, (PROMPT, 0))  # noqa: E731
    zeros = torch.zeros(ROWS, PROMPT + COMPLETION)
    sampled = before(mask)
    batch = PPOBatch(
        token_ids=ids, attention_mask=torch.nn.functional.pad(mask, (PROMPT, 0), value=True), action_mask=sampled,
        rollout_logprobs=zeros, old_logprobs=before(old), ref_logprobs=before(ref), old_values=zeros,
        advantages=advantages[:, None] * sampled, returns=zeros,
    )  # fmt: skip
    step = learner.update_policy([whole_minibatch(batch)], iteration=0, total=1)[0]
    return step["loss"], {n.removeprefix("language_model."): p.grad for n, p in learner.policy.named_parameters()}


@pytest.mark.parametrize(("theirs", "ours"), [
    ({"loss_type": "grpo", "beta": 0.1}, {"loss_average": "response", "kl_loss_coef": 0.1}),
    ({"loss_type": "bnpo", "beta": 0.0, "epsilon_high": 0.28}, {"clip_ratio_high": 0.28}),
    ({"loss_type": "dapo", "beta": 0.2, "delta": 1.5}, {"kl_loss_coef": 0.2, "dual_clip": 1.5}),
])  # fmt: skip
def test_loss_and_gradients_are_those_of_trl(model_path, numbers, tmp_path, theirs, ours):
    expected, expected_gradients = of_trl(model_path, numbers, tmp_path, **theirs)
    found, found_gradients = of_ours(model_path, numbers, **ours)
    assert found == pytest.approx(expected, rel=1e-5)
    assert abs(expected) > 0.01
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, atol=1e-6, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
