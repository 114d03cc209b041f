"""Where rows come from, as a recipe names them: a procedural task, a dataset, or a message cache."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rollouts.pacore import SYNTHESIS_TEMPLATE


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSource(_Source):
    """A procedural task of rollouts.tasks."""

    task: str
    args: dict[str, Any] = {}
    """arguments of the task's class"""

    @property
    def kind(self) -> Literal["task"]:
        """Which of the three this is."""
        return "task"

    @property
    def label(self) -> str:
        """Name in metrics."""
        return self.task


class DatasetSource(_Source):
    """Rows of a file (.jsonl, .parquet), a folder that `datasets` reads, or a hub dataset organisation/name."""

    dataset: str
    split: str = "train"
    """split of a folder or hub dataset; a file has only one"""
    columns: dict[str, str] = {}
    """name that stepladder expects -> name in the data; columns not named here keep their name"""
    layout: Literal[
        "auto", "none", "pacore-train", "messages", "screenspot", "gsm8k", "problem-answer", "question-answer"
    ] = "none"
    """published layout that the rows have; auto: known by their columns, none: they have the names of `columns`"""
    chat: bool = False
    """turn a text prompt into the user turn of a conversation, so that the model's chat template applies"""
    system: str | None = None
    """system turn put before the conversation; only with chat"""

    @property
    def kind(self) -> Literal["dataset"]:
        """Which of the three this is."""
        return "dataset"

    @property
    def label(self) -> str:
        """Name in metrics."""
        return self.dataset.rsplit("/", 1)[-1].rsplit(".", 1)[0]


class MessageCacheSource(_Source):
    """Synthesis prompts made from the kept problems of an earlier message_cache stage."""

    message_cache: str
    """name of that stage"""
    messages: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    """lowest and highest number of messages in a prompt, both included; drawn uniformly for each prompt"""
    template: str = SYNTHESIS_TEMPLATE
    """jinja2; sees `problem` and `messages`"""
    max_prompt_tokens: Annotated[int, Field(gt=0)] | None = None
    """budget of a synthesis prompt; not given: a prompt that leaves no room for the response is passed over"""
    overflow: Literal["drop", "shorten"] = "drop"
    """what becomes of messages over the budget: the last ones are left out, or each keeps only its end"""

    @property
    def kind(self) -> Literal["message_cache"]:
        """Which of the three this is."""
        return "message_cache"

    @property
    def label(self) -> str:
        """Name in metrics."""
        return self.message_cache


def source_kind(value: object) -> str | None:
    """The tag of a source: the one of its three possible keys that is present, None if there is not exactly one."""
    keys = ("task", "dataset", "message_cache")
    if not isinstance(value, dict):
        return getattr(value, "kind", None)
    present = [key for key in keys if key in value]
    return present[0] if len(present) == 1 else None
