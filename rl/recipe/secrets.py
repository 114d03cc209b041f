"""Keys and passwords do not belong in a recipe: it is copied into the run directory, its forks and its report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_SECRET_KEYS = frozenset(
    ("api_key", "apikey", "api-key", "x-api-key", "authorization", "password", "passwd", "secret", "client_secret",
     "access_token", "auth_token", "bearer_token", "hf_token", "private_key")
)  # fmt: skip
# What the services that hand out keys begin them with, and a password inside of an address.
_SECRET_VALUE = re.compile(r"\b(sk-[\w-]{16,}|hf_\w{16,}|gh[pous]_\w{16,}|AKIA\w{12,})|://[^/\s:@]+:[^/\s@]+@")
_VARIABLE = re.compile(r"\$\w|\$\{\w")


def secret_problems(value: Any, key: str = "") -> Iterator[str]:
    """`key.path: what is wrong` for each value of a recipe that is, or is named as, a secret. The value is not shown.

    A value that names an environment variable ("Bearer $JUDGE_KEY") is none.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from secret_problems(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from secret_problems(inner, f"{key}.{index}")
    elif isinstance(value, str) and _is_secret(key.rpartition(".")[2], value):
        yield (
            f"{key}: a key or password stands here, and a recipe is copied into the run directory; "
            f"name an environment variable in its place (api_key_env of the rewards judge and pairwise, "
            f"$NAME in the headers of the reward http)"
        )


def _is_secret(name: str, value: str) -> bool:
    if not value or _VARIABLE.search(value):
        return False
    return name.lower() in _SECRET_KEYS or _SECRET_VALUE.search(value) is not None
