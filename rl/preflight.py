"""Everything that can be wrong with a run and can be known before a model is loaded."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rewards import BUILT_IN, load_reward, required_columns
from rewards.registry import RewardSpecError
from rl.eyes import vision_problems
from rl.gui.checks import click_problems
from rl.model_hub import hub_problem
from rl.recipe import (
    EvaluationSection,
    MessageCacheStage,
    PreferenceModelStage,
    Recipe,
    RewardSection,
    RlStage,
    SftStage,
    Source,
    Stage,
    WeightedSource,
    looks_local,
)
from rl.recipe.file import RecipeError, read_raw, validated
from rl.recipe.secrets import secret_problems
from rl.recipe.sources import DatasetSource, MessageCacheSource, TaskSource
from rl.reward_model.pairs import read_pair
from rl.sources import SourceOpener, View, held_out_rows
from rollouts.pacore import TemplateError, synthesis_prompt
from rollouts.prompts import ShuffledRows, row_content
from rollouts.row_images import check_images
from rollouts.rows import DatasetError, Row


def read_checked(path: Path, overrides: Sequence[str], *, on_this_machine: bool) -> Recipe:
    """The recipe, read and checked as far as it can be without a model.

    Raises:
        RecipeError: every problem that was found, each with the file that its key comes from.
    """
    raw = read_raw(path, overrides)
    recipe = validated(raw)
    problems = check(recipe, on_this_machine=on_this_machine)
    if problems:
        raise RecipeError([raw.located(problem) for problem in problems])
    return recipe


def check(recipe: Recipe, *, on_this_machine: bool) -> list[str]:
    """Every problem that can be found without loading a model, each as `key.path: value: what is allowed`.

    Args:
        on_this_machine: also what only matters where the recipe is run: Ray and the engine are installed, and
            models and datasets on the hub can be read.
    """
    problems = [*secret_problems(recipe.model_dump(mode="json")), *_model_problems(recipe, on_this_machine)]
    problems += _packing_problems(recipe)
    problems += vision_problems(recipe, load=on_this_machine)
    if on_this_machine:
        problems += _installation_problems(recipe)
    for name, stage in recipe.stages.items():
        problems += [f"stages.{name}.{problem}" for problem in _stage_problems(stage, on_this_machine)]
    problems += _cache_problems(recipe)
    for name, evaluation in recipe.evaluations.items():
        problems += [f"evaluations.{name}.{problem}" for problem in _evaluation_problems(evaluation, on_this_machine)]
    return problems


def model_folder_exists(path: str) -> bool:
    """True for a folder with a config.json."""
    return (Path(path).expanduser() / "config.json").is_file()


def _model_problems(recipe: Recipe, read_hub: bool) -> Iterator[str]:
    if recipe.model.path is not None:
        yield from _start_problems(recipe.model.path, "model.path", read_hub)


def _start_problems(path: str, key: str, read_hub: bool) -> Iterator[str]:
    """What is wrong with a model to start from."""
    if model_folder_exists(path):
        return
    if looks_local(path):
        found = "the folder has no config.json" if Path(path).expanduser().is_dir() else "there is no such folder"
        yield f"{key}: {path!r}: {found}; a folder with a model or a hub name organisation/name is expected"
    elif read_hub and (problem := hub_problem(path)):
        yield f"{key}: {path!r}: there is no such folder, and {problem}"


def _packing_problems(recipe: Recipe) -> Iterator[str]:
    """Packing of a model that takes images, where its configuration can be read without running its code."""
    if not recipe.learner.packing:
        return
    if recipe.model.create is not None:
        has_eyes = recipe.model.create.vision is not None
    else:
        has_eyes = recipe.model.path is not None and _folder_takes_images(Path(recipe.model.path).expanduser())
    if has_eyes:
        yield "learner.packing: true: a model that takes images is not packed; false is expected"


def _folder_takes_images(folder: Path) -> bool:
    """Whether the model in a folder has a vision tower; False where there is no configuration to read."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "vision_config" in config


def _installation_problems(recipe: Recipe) -> Iterator[str]:
    if importlib.util.find_spec("ray") is None:
        yield "ray: Ray is not installed; install it with: pip install ray"
    if recipe.engine.kind == "vllm" and importlib.util.find_spec("vllm") is None:
        yield (
            "engine.kind: 'vllm': vLLM is not installed. Install it (GPU: pip install -e '.[gpu]'; CPU: make install) "
            "or run with engine.kind=hf, which is slower"
        )


def _cache_problems(recipe: Recipe) -> Iterator[str]:
    """Synthesis prompts that ask for more messages than their cache holds."""
    for name, stage in recipe.stages.items():
        for key, source in _cache_sources(stage):
            low, high = source.messages
            held = _messages_held(recipe, source.message_cache)
            if held is not None and low <= high > held:
                yield (
                    f"stages.{name}.{key}.messages: [{low}, {high}]: {source.message_cache!r} keeps {held} answers "
                    f"per problem (its samples_per_prompt), which is the highest number allowed"
                )


def _cache_sources(stage: Stage) -> Iterator[tuple[str, MessageCacheSource]]:
    if isinstance(stage, RlStage):
        mixture = {f"prompts.{index}.source": mixed.source for index, mixed in enumerate(stage.prompts)}
    elif isinstance(stage, MessageCacheStage):
        mixture = {"prompts.source": stage.prompts.source}
    else:
        mixture = {}
    for key, source in mixture.items():
        if isinstance(source, MessageCacheSource):
            yield key, source


def _messages_held(recipe: Recipe, cache: str) -> int | None:
    """Answers per problem of a cache; a second pass keeps those of the first. None where the data decide."""
    stage = recipe.stages.get(cache)
    if not isinstance(stage, MessageCacheStage) or stage.grade_responses:
        return None
    source = stage.prompts.source
    if isinstance(source, MessageCacheSource):
        return _messages_held(recipe, source.message_cache)
    return stage.samples_per_prompt


def _stage_problems(stage: Stage, read_hub: bool) -> Iterator[str]:
    if isinstance(stage, SftStage):
        for number, phase in enumerate(stage.phases):
            for index, mixed in enumerate(phase.sources):
                key = f"phases.{number}.sources.{index}.source"
                yield from _source_problems(mixed.source, "demonstration", key, read_hub)[1]
    elif isinstance(stage, PreferenceModelStage):
        yield from _source_problems(stage.pairs, "preference", "pairs", read_hub)[1]
        if stage.start is not None:
            yield from _start_problems(stage.start, "start", read_hub)
    elif isinstance(stage, MessageCacheStage):
        yield from _pattern_problems(stage.conclusion, "conclusion")
        yield from _scored_problems({"prompts.source": stage.prompts}, stage.rewards, read_hub)
        if stage.grade_responses:
            rows, _ = _source_problems(stage.prompts.source, "problem", "prompts.source", read_hub)
            for row in [row for row in rows if "responses" not in row][:1]:
                yield f"grade_responses: the rows have no column 'responses' to grade; they have: {', '.join(row)}"
    else:
        if stage.online_messages is not None:
            yield from _template_problems(stage.online_messages.template, "online_messages.template")
            yield from _pattern_problems(stage.online_messages.conclusion, "online_messages.conclusion")
        mixture = {f"prompts.{index}.source": mixed for index, mixed in enumerate(stage.prompts)}
        given = _OF_EPISODES if stage.episodes else frozenset()
        yield from _scored_problems(mixture, stage.rewards, read_hub, given)


def _evaluation_problems(section: EvaluationSection, read_hub: bool) -> Iterator[str]:
    if section.synthesis is not None:
        yield from _pattern_problems(section.synthesis.conclusion, "synthesis.conclusion")
        yield from _template_problems(section.synthesis.template, "synthesis.template")
    mixture = {"prompts": WeightedSource(source=section.prompts)}
    given = _OF_EPISODES if section.episodes else frozenset()
    problems = [*_scored_problems(mixture, section.rewards, read_hub, given)]
    yield from problems
    if not problems and _read_now(section.prompts, read_hub):
        try:
            held_out_rows(_opener().rows(section.prompts, "problem", seed=0), section.num_prompts, "prompts")
        except DatasetError as error:
            yield f"num_prompts: {section.num_prompts}: {str(error).removeprefix('prompts: ')}"


def _pattern_problems(pattern: str | None, key: str) -> Iterator[str]:
    try:
        re.compile(pattern or "")
    except (re.error, OverflowError, RecursionError) as error:
        yield f"{key}: {pattern!r}: not a regular expression: {error}"


def _template_problems(template: str, key: str) -> Iterator[str]:
    try:
        synthesis_prompt("problem", ["message"], template=template)
    except TemplateError as error:
        yield f"{key}: {error}"


# Columns that an episode gives its rewards.
_OF_EPISODES = frozenset({"target_boxes", "image_size", "completed"})


def _scored_problems(
    mixture: Mapping[str, WeightedSource],
    rewards: Sequence[RewardSection],
    read_hub: bool,
    given: frozenset[str] = frozenset(),
) -> Iterator[str]:
    """Sources by their key, rewards, and whether the sources have the columns that the rewards need."""
    needed: dict[str, frozenset[str]] = {}
    for index, section in enumerate(rewards):
        needed[section.label], problem = _reward_columns(section)
        if problem:
            yield f"rewards.{index}.{problem}"
    for key, mixed in mixture.items():
        rows, problems = _source_problems(mixed.source, "problem", key, read_hub)
        yield from problems
        for label in mixed.rewards or needed:
            lacking = _missing_columns(rows, needed.get(label, frozenset()) - given, _name(mixed.source))
            if lacking:
                yield f"{key}: {lacking[0]}, which the reward {label!r} needs; {lacking[1]}"
                continue
            for index, section in enumerate(rewards):
                if section.label == label:
                    yield from click_problems(rows, section, f"rewards.{index}", _name(mixed.source))


def _missing_columns(rows: Sequence[Row], needed: frozenset[str], name: str) -> tuple[str, str] | None:
    """(which row lacks which of the columns, what it has), of the first such row."""
    for number, row in enumerate(rows, start=1):
        missing = sorted(needed - row.keys())
        if missing:
            where = f"{name!r}" if number == 1 else f"{name!r}: row {number}"
            return f"{where} has no column {', '.join(missing)}", f"it has: {', '.join(row)}"
    return None


def _reward_columns(section: RewardSection) -> tuple[frozenset[str], str | None]:
    """(columns that the reward cannot do without, `key: what is wrong` with it)."""
    from_stage = {} if section.from_stage is None else {"model": section.from_stage}
    if section.fn == "preference" and "model" not in {**section.args, **from_stage}:
        return frozenset(), "from_stage: 'preference' needs an earlier preference_model stage, or args.model"
    if section.from_stage is not None and section.fn != "preference":  # may read its model, which is not there yet
        unknown = section.fn not in BUILT_IN and ":" not in section.fn
        return frozenset(), f"fn: {section.fn!r} is not a reward" if unknown else None
    try:
        return required_columns(load_reward(section.fn, **{**section.args, **from_stage})), None
    except RewardSpecError as error:
        return frozenset(), f"fn: {error}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module runs here, and may raise anything
        return frozenset(), f"fn: reward {section.fn!r}: loading it raised {type(error).__name__}: {error}"


def _source_problems(source: Source, view: View, key: str, read_hub: bool) -> tuple[Sequence[Row], list[str]]:
    """(rows to look at, what is wrong). No rows where the source does not exist yet or is not read now."""
    if isinstance(source, MessageCacheSource):
        low, high = source.messages
        problems = [f"{key}.messages: [{low}, {high}]: the lowest number comes first"] if low > high else []
        if view != "problem":
            problems.append(f"{key}: a message_cache gives prompts for rl stages, no {view} rows")
        return (), problems + list(_template_problems(source.template, f"{key}.template"))
    if not _read_now(source, read_hub):
        return (), []
    try:
        opened = _opener().rows(source, view, seed=0)
        rows = opened.rows if isinstance(opened, ShuffledRows) else [opened.row(0)]
        for number, row in enumerate(rows, start=1):
            _check_row(row, view, _name(source) if number == 1 else f"{_name(source)}: row {number}")
        if view != "preference":  # pairs are text, and may have no prompt of their own
            check_images(rows, _name(source))
    except (DatasetError, ValueError) as error:
        return (), [f"{key}.{source.kind}: {error}"]
    return rows, []


def _check_row(row: Row, view: View, label: str) -> None:
    """Raises DatasetError where a row is not what the view needs."""
    if view == "preference":
        read_pair(row, label)
    else:
        row_content(row, "prompt", label)


def _read_now(source: Source, read_hub: bool) -> bool:
    """True for a source whose rows can be looked at: a task, a file, and the hub where that is wanted."""
    return isinstance(source, TaskSource) or (
        isinstance(source, DatasetSource) and (read_hub or looks_local(source.dataset))
    )


def _name(source: Source) -> str:
    return source.dataset if isinstance(source, DatasetSource) else source.label


def _opener() -> SourceOpener:
    return SourceOpener(lambda stage: Path(stage))
