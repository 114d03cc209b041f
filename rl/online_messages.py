"""Messages that the current policy writes, in place of a cache: problems of an iteration become synthesis prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rl.inference.voting import elected_message
from rl.recipe import OnlineMessagesSection
from rl.rollout import as_sampling
from rl.scoring import ScoredTrajectory, Scorer
from rollouts.collect import TokenizedPrompt, collect, encode_content, tokenized
from rollouts.engine import Engine
from rollouts.message_cache import CachedMessage, CachedProblem
from rollouts.pacore import PacorePrompts, compact
from rollouts.processing import Processing
from rollouts.rows import Row
from rollouts.trajectory import PromptContent, prompt_id_of


@dataclass(frozen=True)
class OnlineMessages:
    """Rewrites the prompts of an iteration; see `RlLoop.rewrite`."""

    section: OnlineMessagesSection
    engine: Engine
    scorer: Scorer
    tokenizer: Processing
    success: float
    """a message is right when its reward is at least this"""
    room: int
    """tokens that a synthesis prompt may have"""

    def __call__(self, prompts: Sequence[TokenizedPrompt], seed: int) -> list[TokenizedPrompt]:
        """The same prompts, those of the named sources with messages. One whose messages have no grade stays."""
        chosen = [one for one in prompts if self._gets_messages(one)]
        if not chosen:
            return list(prompts)
        answers = collect(
            self.engine,
            chosen,
            samples_per_prompt=self.section.samples_per_prompt,
            sampling=as_sampling(self.section.sampling),
            seed=seed + 1,
        )
        by_prompt: dict[str, list[ScoredTrajectory]] = {}
        for item in self.scorer.score(answers).scored:
            by_prompt.setdefault(item.trajectory.prompt.prompt_id, []).append(item)
        return [self._rewritten(one, by_prompt.get(one.prompt.prompt_id, []), seed) for one in prompts]

    def _gets_messages(self, one: TokenizedPrompt) -> bool:
        return not self.section.sources or one.prompt.origin in self.section.sources

    def _rewritten(self, one: TokenizedPrompt, answers: Sequence[ScoredTrajectory], seed: int) -> TokenizedPrompt:
        if not answers or not self._gets_messages(one):
            return one
        row = self._synthesis_row(one, answers, seed)
        content = row["prompt"]
        assert isinstance(content, str | list)
        columns = {key: value for key, value in row.items() if key != "prompt"}
        prompt = replace(one.prompt, prompt_id=prompt_id_of(content), content=content, columns=columns)
        return tokenized(self.tokenizer, prompt)

    def _synthesis_row(self, one: TokenizedPrompt, answers: Sequence[ScoredTrajectory], seed: int) -> Row:
        prompt, section = one.prompt, self.section
        messages = tuple(map(self._message, answers))
        problem = CachedProblem(prompt.prompt_id, prompt.content, dict(prompt.columns), messages)
        low, high = section.messages
        source = PacorePrompts(
            [problem], low, high, section.template, seed, self._fits, section.overflow, elected_message
        )
        return source.row(0)

    def _fits(self, content: PromptContent) -> bool:
        return len(encode_content(self.tokenizer, content)) <= self.room

    def _message(self, item: ScoredTrajectory) -> CachedMessage:
        return CachedMessage(
            conclusion=compact(item.trajectory.completion, conclusion=self.section.conclusion),
            reward=item.reward,
            correct=item.reward >= self.success,
            num_tokens=item.trajectory.num_sampled_tokens,
        )
