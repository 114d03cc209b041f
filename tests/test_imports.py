"""Imports point one way: rl -> rollouts, rl -> rewards. And no code outside recipe and pipeline knows a kind of stage."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {"rl": {"rl", "rewards", "rollouts"}, "rewards": {"rewards"}, "rollouts": {"rollouts"}}


def imported_packages(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package):
    for file in (ROOT / package).rglob("*.py"):
        ours = imported_packages(file) & set(ALLOWED)
        assert ours <= ALLOWED[package], f"{file.relative_to(ROOT)} imports {sorted(ours - ALLOWED[package])}"


def test_the_check_notices_a_wrong_import(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from rl.recipe import Recipe\n")
    assert imported_packages(file) == {"rl"}


def test_rewards_and_recipes_import_nothing_heavy():
    program = "import sys, rewards, rl.recipe.file; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"torch", "ray", "vllm", "transformers", "sympy"} & set(loaded.stdout.split())
