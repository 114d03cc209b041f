"""Reward functions with TRL's signature, and what runs them so that none can hang or lie.

    load_reward("math")                          a built-in
    load_reward("my_package.rewards:brevity")    a function that can be imported
    load_reward("rewards/brevity.py:brevity")    a function in a file

Importing this package loads neither torch nor sympy.
"""

from rewards.registry import BUILT_IN, RewardFn, RewardSpecError, load_reward, required_columns
from rewards.result import RewardResult, RewardStatus

__all__ = [
    "BUILT_IN",
    "RewardFn",
    "RewardResult",
    "RewardSpecError",
    "RewardStatus",
    "load_reward",
    "required_columns",
]
