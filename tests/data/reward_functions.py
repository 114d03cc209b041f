"""Reward functions that misbehave, for the tests of the worker pool and the registry."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path


def obey(prompts, completions, **columns):
    """Each completion says what happens to it."""
    return [_obey(text) for text in completions]


def _obey(text):
    if text == "hang":
        while True:
            time.sleep(0.01)
    if text == "hang in C":
        (10**400_000_000).bit_length()
    if text.startswith("orphan "):
        child = subprocess.Popen(["sleep", "1000"])
        with open(text.split(" ", 1)[1], "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(1000)
    if text.startswith("die once "):
        note = Path(text.removeprefix("die once "))
        if not note.exists():
            note.touch()
            os.kill(os.getpid(), 9)
        return 8.0
    if text == "raise":
        raise ValueError("a bad row")
    if text == "exit":
        sys.exit(3)
    if text == "die":
        os.kill(os.getpid(), 9)
    special = {"nan": float("nan"), "inf": float("inf"), "none": None, "text": "high", "list": [1.0], "true": True}
    return special[text] if text in special else float(text)


def print_and_score(completions, **columns):
    print("noise")  # a reward that talks
    return [1.0 for _ in completions]


def too_few(completions, **columns):
    return [1.0] * (len(completions) - 1)


def not_a_list(completions, **columns):
    return 1.0


def row_count(completions, **columns):
    return [float(len(completions)) for _ in completions]


async def eventually(completions, solution, **columns):
    await asyncio.sleep(0.01)
    return [float(text == gold) for text, gold in zip(completions, solution)]


def logs(completions, log_metric, log_extra, **columns):
    log_metric("half", 0.5)
    log_extra("length", [len(text) for text in completions])
    log_extra("words", list(completions))
    return [0.0 for _ in completions]


def on_the_way(completions, completion_ids, log_partial, **columns):
    """1.0 each; half of it, or what a number says, earned with the token of that index."""
    log_partial([[(int(text), 0.5)] if text.isdigit() else [(0, float(text))] for text in completions])
    return [1.0 for _ in completions]


def narrow(completions, solution):
    """A function without **columns, which gets only what it names."""
    return [float(text == gold) for text, gold in zip(completions, solution)]


def brevity(completions, *, max_chars: int = 10, **columns):
    return [float(len(text) <= max_chars) for text in completions]


def make_brevity(max_chars: int):
    def reward(completions, **columns):
        return [float(len(text) <= max_chars) for text in completions]

    return reward


def make_nothing(max_chars: int = 1):
    return None


class Longer:
    """A class is a factory."""

    def __init__(self, than: int):
        self.than = than

    def __call__(self, completions, **columns):
        return [float(len(text) > self.than) for text in completions]


def everything(**columns):
    return [0.0 for _ in columns["completions"]]


def worker_pid(completions, **columns):
    return [float(os.getpid()) for _ in completions]


NOT_A_FUNCTION = 3
