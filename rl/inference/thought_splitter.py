"""Thoughts and answer of a response, whole or while it streams."""

from __future__ import annotations

THINK_END = "</think>"


def split_thoughts(text: str) -> tuple[str, str]:
    """(thoughts, answer): what stands before and after the last </think>; all is answer where there is none."""
    thoughts, found, answer = text.rpartition(THINK_END)
    return (thoughts.removeprefix("<think>").strip(), answer.strip()) if found else ("", text.strip())


class ThoughtSplitter:
    """Splits a streamed response into thoughts and answer at the first </think>.

    Whether a response without <think> in front begins with thoughts (many chat templates put it into the prompt)
    cannot be seen from its start; the rounds before show what the model does. Where thoughts were expected and no
    </think> came, the whole text is the answer, as compaction has it, and is sent at the end.
    """

    def __init__(self, *, expects_thoughts: bool) -> None:
        self.started = False
        self._text = ""
        self._sent = 0
        self._thinking = expects_thoughts
        self._answer_started = False

    def add(self, piece: str) -> list[dict[str, str]]:
        """The deltas that a new piece makes certain."""
        self.started = True
        self._text += piece
        if self._sent == 0 and "<think>".startswith(self._text[: len("<think>")]):
            if len(self._text) < len("<think>"):
                return []  # may become <think>
            self._thinking, self._sent = True, len("<think>")
        if not self._thinking:
            return self._answer(len(self._text))
        end = self._text.find(THINK_END)
        if end < 0:  # the last characters may be the start of </think>
            return self._thoughts(max(len(self._text) - len(THINK_END) + 1, self._sent))
        deltas = self._thoughts(end)
        self._thinking, self._sent = False, end + len(THINK_END)
        return deltas + self._answer(len(self._text))

    def end(self) -> list[dict[str, str]]:
        """The deltas that are left."""
        if not self._thinking:
            return self._answer(len(self._text))
        rest = self._thoughts(len(self._text))
        return [*rest, {"content": self._text.removeprefix("<think>").strip()}]

    def _thoughts(self, end: int) -> list[dict[str, str]]:
        text, self._sent = self._text[self._sent : end], max(end, self._sent)
        return [{"reasoning_content": text}] if text else []

    def _answer(self, end: int) -> list[dict[str, str]]:
        text, self._sent = self._text[self._sent : end], end
        if not self._answer_started:
            text = text.lstrip()
        self._answer_started = self._answer_started or bool(text)
        return [{"content": text}] if text else []
