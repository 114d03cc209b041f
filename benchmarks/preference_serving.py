"""Throughput of the preference reward beside its bare model and beside the transformers pipeline, in one run.

    OMP_NUM_THREADS=1 python benchmarks/preference_serving.py

The bare model gets token ids that are padded, sorted and cut into batches already; the reward gets text and does all of
that itself. Rounds alternate; times are of the processor, worker processes included; ratios are of medians.
"""

import random
import statistics
import string
import tempfile
from pathlib import Path

import psutil
import torch
from transformers import Qwen3Config, Qwen3ForSequenceClassification, pipeline

from rewards import load_reward
from rewards.sequence_scorer import SequenceScorer, length_buckets, row_tokens
from rewards.worker import RewardPool
from rewards.worker_process import keep_freed_memory
from rl.create_model import make_tokenizer
from rl.recipe import TokenizerSection

ROWS, ROUNDS, BATCH_TOKENS = 64, 5, 4_096


def main() -> None:
    keep_freed_memory()  # as worker processes do: the bare model shall not lose by its allocator
    with tempfile.TemporaryDirectory() as name:
        folder = make_model(Path(name))
        prompts, completions = responses()
        reward = load_reward("preference", model=str(folder), batch_tokens=BATCH_TOKENS, device="cpu")
        reward.warm_up()
        classify = pipeline("text-classification", model=str(folder), device="cpu", function_to_apply="none")
        bare = BareModel(folder, prompts, completions)
        texts = [prompt + completion + "<eos>" for prompt, completion in zip(prompts, completions)]
        ways = {
            "bare model": bare.run,
            "reward": lambda: reward(prompts=prompts, completions=completions),
            "pipeline, batches of 32 in the order of the rows": lambda: classify(texts, batch_size=32),
        }
        with RewardPool("preference", args={"model": str(folder), "batch_tokens": BATCH_TOKENS, "device": "cpu"},
                        timeout_s=300, batch_rows=ROWS) as pool:  # fmt: skip
            pool.score(prompts, completions, {})
            ways["reward in a worker process"] = lambda: pool.score(prompts, completions, {})
            times = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    start = processor_time()
                    way()
                    times[name].append(processor_time() - start)
        report(times, sum(map(len, bare.rows)), bare.model.num_parameters())


def processor_time() -> float:
    """Seconds of this process and of those that it started."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in [own, *own.children(recursive=True)])


class BareModel:
    """The forward passes alone."""

    def __init__(self, folder: Path, prompts: list[str], completions: list[str]) -> None:
        scorer = SequenceScorer(str(folder), device="cpu", batch_tokens=BATCH_TOKENS)
        self.model = scorer.model
        self.rows = row_tokens(scorer.tokenizer, prompts, completions)
        self.batches = []
        for batch in length_buckets([len(row) for row in self.rows], BATCH_TOKENS):
            ids = [torch.tensor(self.rows[i]) for i in batch]
            padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
            self.batches.append((padded, mask))

    @torch.inference_mode()
    def run(self) -> None:
        for ids, mask in self.batches:
            self.model(input_ids=ids, attention_mask=mask, use_cache=False)


def make_model(folder: Path) -> Path:
    tokenizer = make_tokenizer(TokenizerSection(characters=string.ascii_letters + string.digits + " .,:?\n"))
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=768, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, num_labels=1, pad_token_id=0, eos_token_id=1, max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def responses() -> tuple[list[str], list[str]]:
    """Prompts of 20 to 60 and completions of 5 to 300 characters, each a token."""
    rng = random.Random(0)
    letters = string.ascii_letters + " " * 10
    text = lambda low, high: "".join(rng.choices(letters, k=rng.randint(low, high)))  # noqa: E731
    return [text(20, 60) for _ in range(ROWS)], [text(5, 300) for _ in range(ROWS)]


def report(times: dict[str, list[float]], num_tokens: int, num_parameters: int) -> None:
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{ROWS} rows, {num_tokens} tokens, {num_parameters / 1e6:.1f}M parameters, {torch.get_num_threads()} thread")
    print("| | tokens/s | throughput of the bare model |\n|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {num_tokens / seconds:,.0f} | {medians['bare model'] / seconds:.0%} |")


if __name__ == "__main__":
    main()
