"""Public graders that are no packages, each made callable as (response, reference) from a checkout of its repository.

    python benchmarks/rewards_math.py --checkout prm800k=PATH --checkout verl=PATH --checkout oat=PATH
        --checkout Qwen2.5-Math=PATH --checkout ROLL=PATH

| name | repository | what is called |
|---|---|---|
| prm800k | openai/prm800k | grading.grader.grade_answer, with the content of the last box |
| verl | volcengine/verl | compute_score of math_reward, math_dapo and prime_math: three columns |
| oat | sail-sg/understand-r1-zero | boxed_reward_fn, with math-verify |
| Qwen2.5-Math | QwenLM/Qwen2.5-Math | extract_answer, strip_string and math_equal, as its evaluation does |
| ROLL | alibaba/ROLL | what its mathematics worker runs, in this process |

They need `pylatexenc`, `word2number` and the one version of antlr that sympy's LaTeX parser takes
(`antlr4-python3-runtime==4.11`, which math-verify takes too); without it that parser fails and these graders go on
without it. The file of each grader is executed alone: of the packages around it only what it imports itself, and
training frameworks that it imports but does not use for grading are stood in for.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewards.mathematics.boxes import boxes

Grader = Callable[[str, str], bool]  # (reference, response)


def last_box(response: str) -> str:
    """The content of the last box of a response; "" without one."""
    return ([content or "" for _, _, content in boxes(response)] or [""])[-1]


def graders_of(name: str, checkout: Path) -> dict[str, Grader]:
    """The graders of a repository by the name of their column.

    Raises:
        SystemExit: an unknown name, or no such checkout.
    """
    if name not in CHECKOUTS or not checkout.is_dir():
        raise SystemExit(f"--checkout {name}={checkout}: expected a folder, after one of {', '.join(CHECKOUTS)}")
    return CHECKOUTS[name](checkout)


def _prm800k(checkout: Path) -> dict[str, Grader]:
    sys.path.insert(0, str(checkout / "prm800k"))
    grade_answer = importlib.import_module("grading.grader").grade_answer
    return {"prm800k": lambda gold, response: grade_answer(last_box(response), gold)}


def _verl(checkout: Path) -> dict[str, Grader]:
    _bare_package("verl", checkout / "verl")
    _bare_package("verl.utils", checkout / "verl/utils")
    _bare_package("verl.utils.reward_score", checkout / "verl/utils/reward_score")
    # Its own needs tensordict; the benchmark has a limit in time around every call.
    _stand_in("verl.utils.py_functional", timeout_limit=lambda **_: lambda function: function)
    math, dapo, prime = (
        importlib.import_module(f"verl.utils.reward_score.{name}").compute_score
        for name in ("math_reward", "math_dapo", "prime_math")
    )
    return {
        "verl-math": lambda gold, response: math(response, gold) > 0,
        "verl-dapo": lambda gold, response: bool(dapo(response, gold)["acc"]),
        "verl-prime": lambda gold, response: bool(prime(response, gold)[0]),
    }


def _oat(checkout: Path) -> dict[str, Grader]:
    grader = _file("oat_math_grader", checkout / "understand_r1_zero/math_grader.py")
    return {"oat": lambda gold, response: grader.boxed_reward_fn(response, gold, fast=False)[1] > 0}


def _qwen(checkout: Path) -> dict[str, Grader]:
    from latex2sympy2_extended import latex2sympy  # the repository vendors an older one, for antlr 4.7

    _stand_in("latex2sympy2", latex2sympy=latex2sympy)
    _stand_in("utils", __all__=[])  # the parser takes nothing of it for grading
    parser = _file("qwen_parser", checkout / "evaluation/parser.py")
    grader = _file("qwen_grader", checkout / "evaluation/grader.py")

    def grade(gold: str, response: str) -> bool:
        answer = parser.strip_string(parser.extract_answer(response, "math"))
        return bool(grader.math_equal(answer, parser.strip_string(gold)))

    return {"Qwen2.5-Math": grade}


def _roll(checkout: Path) -> dict[str, Grader]:
    path = "roll/pipeline/rlvr/rewards/math_rule_reward_worker.py"
    for name in ("", ".configs", ".distributed", ".distributed.executor", ".distributed.scheduler", ".models"):
        _stand_in(f"roll{name}", __path__=[])
    _stand_in("roll.configs.worker_config", WorkerConfig=object)
    _stand_in("roll.distributed.executor.worker", Worker=object)
    dispatch = types.SimpleNamespace(ONE_TO_ALL=None, DP_MP_COMPUTE=None)
    _stand_in("roll.distributed.scheduler.decorator", Dispatch=dispatch, register=lambda **_: lambda function: function)
    _stand_in("roll.distributed.scheduler.protocol", DataProto=object)
    _stand_in("roll.models.model_providers", default_reward_model_provider=None, default_tokenizer_provider=None)
    if importlib.util.find_spec("codetiming") is None:
        _stand_in("codetiming", Timer=None)
    worker = _file("roll_math_worker", checkout / path)

    def grade(gold: str, response: str) -> bool:
        result: list[tuple[bool, str, str]] = []
        # It reads what follows the thinking; a response without any is given an empty one.
        text = response if "</think>" in response else f"</think>{response}"
        worker._hf_verify_math_sample(text, f"${gold}$", result, "")
        return bool(result and result[0][0])

    return {"ROLL": grade}


CHECKOUTS: dict[str, Callable[[Path], dict[str, Grader]]] = {
    "prm800k": _prm800k, "verl": _verl, "oat": _oat, "Qwen2.5-Math": _qwen, "ROLL": _roll,
}  # fmt: skip


def _file(name: str, path: Path) -> types.ModuleType:
    """The module of one file, without the packages that it lies in."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path}: no such file in this checkout")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _bare_package(name: str, folder: Path) -> None:
    """A package whose modules can be imported and whose __init__ is not run."""
    _stand_in(name, __path__=[str(folder)])


def _stand_in(name: str, **attributes: Any) -> None:
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(attributes)
