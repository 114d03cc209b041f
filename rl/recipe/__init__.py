"""The schema of a recipe. Frozen, complete, and light: imports no torch, ray or vllm.

One file is one pipeline. `read_recipe` (file.py) reads it; the files beside it say what it may contain.
"""

from rl.recipe.algorithm import AlgorithmSection, CriticSection, OptimizerSection
from rl.recipe.keeping import NonFiniteSection, SavingSection
from rl.recipe.machines import AdapterSection, EngineSection, LearnerSection, RaySection, ServerSection
from rl.recipe.model import CreateModel, ModelSection, TokenizerSection, VisionSection
from rl.recipe.pipeline import EvaluationSection, Recipe, rewards_of
from rl.recipe.rewards import RewardActorSection, RewardSection, RunningNormalisation
from rl.recipe.sampling import EpisodeSection, LongTailSection, OnlineMessagesSection, SamplingSection, SynthesisSection
from rl.recipe.section import Section
from rl.recipe.sources import DatasetSource, MessageCacheSource, Source, TaskSource, WeightedSource, looks_local
from rl.recipe.stages import (
    EarlyStopSection,
    LoraSection,
    MessageCacheStage,
    PreferenceModelStage,
    RlStage,
    SftPhase,
    SftStage,
    Stage,
    sources_of,
)

__all__ = [
    "AdapterSection",
    "AlgorithmSection",
    "CreateModel",
    "CriticSection",
    "DatasetSource",
    "EarlyStopSection",
    "EngineSection",
    "EpisodeSection",
    "EvaluationSection",
    "LearnerSection",
    "LongTailSection",
    "LoraSection",
    "MessageCacheSource",
    "MessageCacheStage",
    "ModelSection",
    "NonFiniteSection",
    "OnlineMessagesSection",
    "OptimizerSection",
    "PreferenceModelStage",
    "RaySection",
    "Recipe",
    "RewardActorSection",
    "RewardSection",
    "RlStage",
    "RunningNormalisation",
    "SamplingSection",
    "SavingSection",
    "Section",
    "ServerSection",
    "SftPhase",
    "SftStage",
    "Source",
    "Stage",
    "SynthesisSection",
    "TaskSource",
    "TokenizerSection",
    "VisionSection",
    "WeightedSource",
    "looks_local",
    "rewards_of",
    "sources_of",
]
