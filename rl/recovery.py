"""Before a run continues: what an earlier process left is checked, and what is damaged is named and set aside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from rl.durable import checksum, clear_leftovers, damage, mend_log, remove, set_aside_damaged
from rl.recipe import MessageCacheStage, PreferenceModelStage, Recipe, RlStage, SftStage, sources_of
from rl.recipe.sources import MessageCacheSource
from rl.run_directory import RunDirectory, checksum_of

Say = Callable[[str], None]


def recover(run: RunDirectory, recipe: Recipe, say: Say) -> None:
    """Leaves only what is whole: a stage whose result is damaged counts as not finished, and is done again from its
    newest good checkpoint (which `rl.checkpoint` checks).

    Args:
        say: told of everything that is set aside, by name.
    """
    for path in clear_leftovers(run.path):
        say(f"{path}: an earlier process ended before this was whole; removed")
    for path in run.logs():
        if lines := mend_log(path):
            say(f"{path}: damaged lines left out (kept in {path.name}.damaged): {', '.join(map(str, lines[:20]))}")
    _mend_state(run, say)
    _check_files(run, recipe, say)
    _check_models(run, recipe, say)


def _mend_state(run: RunDirectory, say: Say) -> None:
    """state.json as it is, or as it was before the last stage was added to it, or none."""
    for path in (run.state, run.previous_state):
        if not path.exists():
            continue
        problem = _state_problem(path)
        if problem is None:
            if path != run.state:
                run.state.write_bytes(path.read_bytes())
            return
        say(f"{path} is damaged and passed over: {problem}; kept as {set_aside_damaged(path).name}")


def _state_problem(path: Path) -> str | None:
    try:
        content = json.loads(path.read_bytes())
        stored = content.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({type(error).__name__})"
    return None if stored == checksum_of(content) else "its content has changed since it was written"


def _check_files(run: RunDirectory, recipe: Recipe, say: Say) -> None:
    """Message caches and held-out measurements against the checksums in state.json."""
    if not run.state.exists():
        return
    for name, stored in json.loads(run.state.read_bytes())["files"].items():
        path = run.path / name
        if path.exists() and checksum(path) == stored:
            continue
        if path.exists():
            say(f"{path} is damaged and passed over; kept as {set_aside_damaged(path).name}")
        for stage in run.records():
            if path == run.message_cache(stage) and stage in _still_needed(run, recipe):
                _do_again(run, stage, say)


def _check_models(run: RunDirectory, recipe: Recipe, say: Say) -> None:
    """The models that what is left to do starts from."""
    if run.final.exists() and (problem := damage(run.final)):
        say(f"{run.final} is damaged and exported again: {problem}")
        remove(run.final)
    if run.model.exists() and (problem := damage(run.model)):
        say(f"{run.model} is damaged and made again: {problem}")
        remove(run.model)
    if run.final.exists():
        return
    finished = run.records()
    for name in [name for name in finished if isinstance(recipe.stages[name], PreferenceModelStage)]:
        if name in _still_needed(run, recipe):
            _model_is_whole(run, name, say)
    for name in reversed([name for name in finished if isinstance(recipe.stages[name], SftStage | RlStage)]):
        if _model_is_whole(run, name, say):
            return  # earlier ones have no use any more


def _model_is_whole(run: RunDirectory, stage: str, say: Say) -> bool:
    path = run.stage_model(stage)
    problem = damage(path)
    if problem is None:
        return True
    say(f"{path} is damaged and passed over: {problem}")
    _do_again(run, stage, say)
    remove(path)
    return False


def _do_again(run: RunDirectory, stage: str, say: Say) -> None:
    remove(run.outcome(stage))
    run.drop_record(stage)
    say(f"{stage} is done again from its newest good checkpoint, or from its start where it has none")


def _still_needed(run: RunDirectory, recipe: Recipe) -> set[str]:
    """Finished stages that an unfinished one reads the result of."""
    finished = run.records()
    return {wanted for name in recipe.stages if name not in finished for wanted in _read_by(recipe, name)}


def _read_by(recipe: Recipe, name: str) -> Iterator[str]:
    stage = recipe.stages[name]
    if isinstance(stage, RlStage | MessageCacheStage):
        yield from (reward.from_stage for reward in stage.rewards if reward.from_stage is not None)
    for source in sources_of(stage):
        if isinstance(source, MessageCacheSource):
            yield source.message_cache
