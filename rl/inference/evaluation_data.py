"""The problems of an evaluation: a data file of any known layout as prompts that the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rl.errors import UserError
from rl.inference.open_sampler import OpenModel, as_conversation, digest_of
from rl.sources import held_out_rows
from rollouts.layouts import converted
from rollouts.prompts import row_content, task_rows
from rollouts.row_images import check_images, with_images
from rollouts.rows import DatasetError, Row, read_rows
from rollouts.tasks import load_task
from rollouts.trajectory import Prompt, PromptContent, appended, prompt_id_of

_TASK = "task:"
_TASK_PROBLEMS = 200
_TASK_SEED = 20_260_101  # of no recipe
_NOT_FOR_REWARDS = frozenset({"prompt", "completion", "completions", "responses"})


def read_problems(
    name: str,
    model: OpenModel,
    *,
    split: str,
    config: str | None,
    columns: Mapping[str, str],
    layout: str,
    limit: int | None,
    append: str,
    chat: bool,
    task_args: Mapping[str, object],
    images: bool = True,
) -> list[Prompt]:
    """The problems in the order of the file.

    Args:
        name: see `read_rows`; or `task:NAME`, problems that a procedural task draws, always the same.
        config: see `read_rows`.
        columns: wanted name -> name in the data.
        layout: see `layouts.converted`.
        limit: the first so many; None: all.
        task_args: arguments of the task.
        append: put behind the last user turn, for example how the final answer is to be written.
        chat: make a plain-text problem the user turn of a conversation.
        images: show the images of rows that have them.

    Raises:
        UserError: the data cannot be read, has another layout, or a problem that the model cannot take.
    """
    try:
        rows = _task_problems(name, task_args, limit) if name.startswith(_TASK) else (
            converted(read_rows(name, split=split, config=config, columns=columns), name, layout)[:limit]
        )
        _check_prompts(rows, name)
        if images and not name.startswith(_TASK):
            rows = with_images(rows, name)
            check_images(rows, name)
        return [_prompt(row, f"{name}: row {number}", model, append, chat) for number, row in enumerate(rows, start=1)]
    except DatasetError as error:
        raise UserError(str(error)) from None


def _check_prompts(rows: Sequence[Row], name: str) -> None:
    for number, row in enumerate(rows, start=1):
        if "prompt" not in row:
            raise DatasetError(
                f"{name}: row {number}: is of no known layout and has no column 'prompt'; it has: {', '.join(row)}. "
                f"Map one with --column prompt=NAME"
            )


def _prompt(row: Row, label: str, model: OpenModel, append: str, chat: bool) -> Prompt:
    content = with_appended(row_content(row, "prompt", label), append)
    try:
        content = model.prompt(as_conversation(content) if chat else content)
    except ValueError as error:
        hint = "; --no-images leaves them out" if "takes no images" in str(error) else ""
        raise DatasetError(f"{label}: {error}{hint}") from None
    columns = {key: value for key, value in row.items() if key not in _NOT_FOR_REWARDS}
    return Prompt(prompt_id_of(content), content, columns, label)


def _task_problems(name: str, args: Mapping[str, object], limit: int | None) -> list[Row]:
    try:
        task = load_task(name.removeprefix(_TASK), **args)
    except ValueError as error:
        raise UserError(str(error)) from None
    return held_out_rows(task_rows(task, "problem", _TASK_SEED), limit or _TASK_PROBLEMS, name)


def with_appended(content: PromptContent, text: str) -> PromptContent:
    """The content with text behind its last user turn."""
    if not text:
        return content
    if isinstance(content, str):
        return content + text
    last = max((index for index, turn in enumerate(content) if turn["role"] == "user"), default=len(content) - 1)
    return [appended(turn, text) if i == last else turn for i, turn in enumerate(content)]


def check_columns(prompts: Sequence[Prompt], needed: frozenset[str], reward: str) -> None:
    """
    Raises:
        UserError: a row lacks a column that the reward needs.
    """
    for prompt in prompts:
        for name in sorted(needed - set(prompt.columns)):
            has = ", ".join(sorted(prompt.columns)) or "none"
            raise UserError(
                f"{prompt.origin} has no column {name!r}, which reward {reward!r} needs; it has: {has}. "
                f"Map one with --column {name}=NAME"
            )


def fingerprint_of(prompts: Sequence[Prompt]) -> str:
    """Changes with any problem or reference."""
    return digest_of([[prompt.content, dict(prompt.columns)] for prompt in prompts])
