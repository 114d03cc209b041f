"""Procedural tasks with an answer that a program can check, or a utility that it can measure."""

import dataclasses
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rollouts.tasks.addition import Addition
from rollouts.tasks.crossroads import Crossroads
from rollouts.tasks.device import Device
from rollouts.tasks.digit_maxima import DigitMaxima
from rollouts.tasks.requests import Requests
from rollouts.tasks.task import PreferenceTask, Row, Task
from rollouts.tasks.text_screen import TextScreen
from rollouts.tasks.tiny_screen import TinyScreen

__all__ = ["TASKS", "PreferenceTask", "Row", "Task", "load_task"]

TASKS: dict[str, type] = {
    "addition": Addition,
    "device": Device,
    "crossroads": Crossroads,
    "digit_maxima": DigitMaxima,
    "requests": Requests,
    "text_screen": TextScreen,
    "tiny_screen": TinyScreen,
}


def load_task(name: str, **args: object) -> Task:
    """The task `name` with the given arguments.

    Raises:
        ValueError: no such task, no such argument, or a value that the task does not allow.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; allowed: {', '.join(sorted(TASKS))}")
    types = get_type_hints(TASKS[name])
    allowed = [field.name for field in dataclasses.fields(TASKS[name])]
    for key in args:
        if key not in allowed:
            raise ValueError(f"task {name!r} has no argument {key!r}; allowed: {', '.join(allowed)}")
    task: Task = TASKS[name](**{key: _checked(name, key, value, types[key]) for key, value in args.items()})
    return task


def _checked(name: str, key: str, value: object, wanted: Any) -> object:
    try:
        return TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise ValueError(f"task {name!r}: {key} is {value!r}: {problem}") from None
