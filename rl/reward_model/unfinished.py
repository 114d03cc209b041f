"""What a preference_model stage that goes on has done: checkpoints of each member's trainer, and finished members."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.durable import MANIFEST, damage, folder_written_aside, remove, set_aside_damaged
from rl.reward_model.quality import PairScores

_RESULT = "member.json"
_TRAINER_STATE = "trainer_state.json"  # transformers' name


@dataclass(frozen=True)
class MemberResult:
    """A member that is trained: its model is in a folder of its own."""

    numbers: dict[str, float]
    """for the record of the stage"""
    scores: PairScores
    """of the held-out pairs"""

    @property
    def steps(self) -> int:
        """Optimizer steps that it was trained for."""
        return int(self.numbers["steps"])


@dataclass(frozen=True)
class UnfinishedWork:
    """Where a stage keeps what it continues from, and what it does beside saving."""

    folder: Path
    checkpoint_every: int
    """steps"""
    before_saving: Callable[[], None] = lambda: None
    """called before a checkpoint is written, so that no checkpoint is ahead of its log"""
    stop_asked: Callable[[], bool] = lambda: False
    """True when the stage shall save and stop"""
    say: Callable[[str], None] = lambda text: None
    """told of everything that is damaged and passed over"""

    def trainer(self, member: int) -> Path:
        """Folder of a member's checkpoints, which transformers names checkpoint-<step>."""
        return self.folder / f"member_{member}"

    def model(self, member: int) -> Path:
        """A finished member's model."""
        return self.trainer(member) / "model"

    def finished(self, member: int) -> MemberResult | None:
        """What came of a member, where it is finished and its model is as it was written."""
        path = self.model(member)
        if not path.exists():
            return None
        if problem := damage(path):
            self.say(f"{path} is damaged and trained again: {problem}; kept as {set_aside_damaged(path).name}")
            return None
        stored = json.loads((path / _RESULT).read_text())
        sides = {side: tuple(scores) for side, scores in stored["scores"].items()}
        return MemberResult(stored["numbers"], PairScores(**sides))

    def finish(self, member: int, write: Callable[[Path], MemberResult]) -> MemberResult:
        """Keeps a finished member, whose model `write` leaves in the folder that it is given."""
        with folder_written_aside(self.model(member)) as aside:
            result = write(aside)
            (aside / _RESULT).write_text(json.dumps(dataclasses.asdict(result)))
        for path in self.trainer(member).glob("checkpoint-*"):
            remove(path)
        return result

    def hand_over(self, member: int, folder: Path) -> None:
        """Copies a finished member's model."""
        ignored = shutil.ignore_patterns(_RESULT, MANIFEST)
        shutil.copytree(self.model(member), folder, ignore=ignored, dirs_exist_ok=True)

    def newest_checkpoint(self, member: int) -> Path | None:
        """The newest checkpoint that is whole, and whose best one is; what was cut off in writing is removed."""
        for path in sorted(self.trainer(member).glob("checkpoint-*"), key=_step, reverse=True):
            if path.suffix:  # set aside
                continue
            if not (path / MANIFEST).exists():  # the process was killed while it wrote
                remove(path)
                continue
            problem = damage(path) or self._damage_of_best(path)
            if problem is None:
                return path
            self.say(f"{path} is damaged and passed over: {problem}; kept as {set_aside_damaged(path).name}")
        return None

    def _damage_of_best(self, path: Path) -> str | None:
        """Early stopping goes back to the best checkpoint, which is an earlier one."""
        step = _trainer_state(path).get("best_global_step")
        problem = damage(path.with_name(f"checkpoint-{step}")) if step else None
        return f"its best checkpoint, {step}: {problem}" if problem else None

    def steps_done(self, members: int) -> int:
        """Steps of finished members, and of the newest checkpoint of the next one."""
        total = 0
        for member in range(members):
            if result := self.finished(member):
                total += result.steps
                continue
            newest = self.newest_checkpoint(member)
            return total + (_step(newest) if newest else 0)
        return total


def _step(path: Path) -> int:
    number = path.name.removeprefix("checkpoint-").partition(".")[0]
    return int(number) if number.isdigit() else 0


def _trainer_state(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / _TRAINER_STATE).read_text()))
