"""Where rows come from, as a recipe names them: a procedural task, a dataset, or a message cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from rl.recipe.section import PositiveFloat, Section
from rollouts.pacore import SYNTHESIS_TEMPLATE


class TaskSource(Section):
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


class DatasetSource(Section):
    """Rows of a file (.jsonl, .parquet), a folder that `datasets` reads, or a hub dataset organisation/name."""

    dataset: str
    split: str = "train"
    """split of a folder or hub dataset; a file has only one"""
    config: str | None = None
    """of a folder or hub dataset that has several, as GSM8K has main and socratic"""
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


class MessageCacheSource(Section):
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


Source = Annotated[
    Annotated[TaskSource, Tag("task")]
    | Annotated[DatasetSource, Tag("dataset")]
    | Annotated[MessageCacheSource, Tag("message_cache")],
    Discriminator(
        source_kind,
        custom_error_type="source_kind",
        custom_error_message="a source needs exactly one of the keys: task, dataset, message_cache",
    ),
]


class WeightedSource(Section):
    """A source of prompts and its share in a mixture."""

    source: Source
    weight: PositiveFloat = 1.0
    name: str | None = None
    """label in metrics; not given: the name of the task, dataset or cache"""
    rewards: list[str] = []
    """labels of the rewards that apply to these prompts; empty: all rewards of the stage"""

    @property
    def label(self) -> str:
        """The name under which metrics show this source."""
        return self.name or self.source.label


def looks_local(path: str) -> bool:
    """True for what can only be on disk: a data file, not of the form organisation/name, or there already."""
    return (
        path.startswith((".", "/", "~"))
        or path.endswith((".jsonl", ".json", ".parquet"))
        or path.count("/") != 1
        or Path(path).exists()
    )
