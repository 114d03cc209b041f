"""Every `stepladder` command in README and docs is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

from rl.cli import _parsed

ROOT = Path(__file__).parent.parent


def commands():
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = file.read_text().replace("\\\n", " ")
        for block in re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, flags=re.M | re.S):
            for line in block.splitlines():
                if line.startswith("stepladder "):
                    yield f"{file.name}: {line}"


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_in_the_docs_is_taken(command):
    words = shlex.split(command.partition(": ")[2], comments=True)[1:]
    assert callable(_parsed(words).command)


def test_there_are_commands_in_the_docs():
    assert len(list(commands())) >= 8
