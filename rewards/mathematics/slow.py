"""The slow path: math-verify and sympy, for answers that our own grammar does not cover.

sympy can take for ever, and nothing inside a Python thread can stop it. So it runs in a process that can be killed:
in a reward worker this one, elsewhere a helper process of our own.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rewards.result import RewardStatus
from rewards.worker_process import IN_WORKER

_MAX_CHARS = 400
_MEMORY_MB = 3_000
_WORTH_IT = re.compile(
    r"\\(?:int|iint|oint|sum|prod|lim|partial|nabla|begin|mathbb|pmod|bmod|mod|cdots|to|forall|exists|infty|prime|"
    r"overline|hat|vec|dot|Re|Im|operatorname)(?![a-zA-Z])"
)
_COMPUTES = re.compile(r"\\(?:int|sum|prod|lim)(?![a-zA-Z])")  # may be a number in the end
_PROSE = re.compile(r"[a-zA-Z]{4,}")

_pool: Any = None
_pool_pid = 0
_pool_lock = threading.Lock()


class Undecided(Exception):
    """The slow path did not answer: it was killed at its deadline, or failed."""


def is_worth_asking(gold: str, pred: str) -> bool:
    """Whether both answers look like mathematics that only sympy may know, and neither like an explosion."""
    if max(len(gold), len(pred)) > _MAX_CHARS or is_explosive(gold) or is_explosive(pred):
        return False
    if not (_WORTH_IT.search(gold) and _WORTH_IT.search(pred) or _COMPUTES.search(gold + pred)):
        return False
    return not any(_PROSE.search(re.sub(r"\\[a-zA-Z]+\*?(?:\{[a-zA-Z*]+\})?", " ", text)) for text in (gold, pred))


def is_explosive(text: str) -> bool:
    """Towers of powers, factorials and exponents of huge numbers: what sympy would try to write out."""
    flat = text.replace(" ", "").replace("{", "").replace("(", "")
    if re.search(r"\^[^\^]{0,12}\^[^\^]{0,12}\^", flat) or re.search(r"\d{4,}[)}]*!|!!", flat):
        return True
    return bool(re.search(r"\^-?\d{5,}|\d{60,}", flat)) or flat.count("^") > 30


def verify_slow(gold: str, pred: str, timeout_s: float) -> bool:
    """What math-verify says of two clean answers.

    Raises:
        Undecided: it was killed after `timeout_s` seconds.
    """
    if os.environ.get(IN_WORKER):
        return ask_math_verify(gold, pred)
    result = _helper().score([""], [pred], {"solution": [gold]}, timeout_s=timeout_s)[0]
    if result.status is not RewardStatus.OK:
        raise Undecided(result.message)
    return bool(result.value)


def slow_reward(completions: Sequence[str], solution: Sequence[str], **columns: Any) -> list[float | None]:
    """What the helper process runs."""
    return [float(ask_math_verify(gold, pred)) for pred, gold in zip(completions, solution)]


@lru_cache(maxsize=10_000)
def ask_math_verify(gold: str, pred: str) -> bool:
    """math-verify on two answers, both boxed, with its alarms off: they need the main thread."""
    from math_verify import LatexExtractionConfig, parse, verify

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Without the fallbacks, by which a formula that it cannot read would be read as a number inside it.
    options = {"fallback_mode": "no_fallback", "parsing_timeout": None}
    trees = [parse(rf"\boxed{{{text}}}", [LatexExtractionConfig()], **options) for text in (gold, pred)]
    if not all(trees):
        return False
    return bool(verify(*trees, timeout_seconds=None))


def close_helper() -> None:
    """End the helper process, if there is one."""
    global _pool
    with _pool_lock:
        if _pool is not None:
            _pool.close()
        _pool = None


def _helper() -> Any:
    global _pool, _pool_pid
    from rewards.worker import RewardPool

    with _pool_lock:
        if _pool is None or _pool_pid != os.getpid():  # a forked child has the pool's memory but not its threads
            spec = "rewards.mathematics.slow:slow_reward"
            _pool = RewardPool(spec, timeout_s=5.0, batch_rows=1, memory_limit_mb=_MEMORY_MB)
            _pool_pid = os.getpid()
        return _pool
