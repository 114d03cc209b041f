"""A simulated phone or desktop of four linked screens: open an app, choose a person, fill a form, confirm."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from rollouts.environment import Action, Observation
from rollouts.screens import words
from rollouts.screens.canvas import Canvas
from rollouts.screens.concepts import CONCEPTS
from rollouts.screens.desktop import window
from rollouts.screens.element import Box, Element, Kind
from rollouts.screens.theme import Theme, pick_theme
from rollouts.screens.widgets import button, icon_button, icon_over_text, icon_row
from rollouts.screens.widgets import field as draw_field

DeviceKind = Literal["phone", "desktop"]
Place = Literal["apps", "people", "form", "question"]
Form = Mapping[str, str]
"""text by label; an empty field is not in it"""

_SIZES: Mapping[DeviceKind, tuple[int, int]] = {"phone": (360, 640), "desktop": (800, 600)}
_APPS = ("account", "mail", "chat", "calendar", "cart", "maps", "music", "photos", "favourites", "alarm")


@dataclass(frozen=True)
class Task:
    """What is to be done, and what there is to do it with."""

    apps: tuple[str, ...]
    people: tuple[str, ...]
    labels: tuple[str, ...]
    app: str
    person: str
    form: Form

    @property
    def instruction(self) -> str:
        """In words."""
        fields = ", then ".join(f'"{label}" with "{text}"' for label, text in self.form.items())
        return f'Open {CONCEPTS[self.app].label}, choose "{self.person}", fill {fields}, and at last save and confirm.'


@dataclass(frozen=True)
class State:
    """Everything that actions change."""

    place: Place = "apps"
    app: str = ""
    person: str = ""
    first_row: int = 0
    """of the people, the first one that is shown"""
    focus: str = ""
    """label of the field that typing goes into"""
    form: Form = field(default_factory=dict)
    saved: Mapping[tuple[str, str], Form] = field(default_factory=dict)
    """by app and person; only confirming writes here"""
    is_done: bool = False


class SimulatedDevice:
    """An environment (see rollouts.environment) whose rules are all here.

    Clicking `OK` is what saves; the task is completed when what is saved is what was asked for, for that person in that
    app, and nothing else is saved.
    """

    def __init__(self, kind: DeviceKind = "phone") -> None:
        self.width, self.height = _SIZES[kind]
        self.kind: DeviceKind = kind

    def reset(self, seed: int) -> Observation:
        """Draws a task and a look."""
        rng = random.Random(f"device {self.kind} {seed}")
        apps = tuple(words.distinct(rng, _APPS, 6))
        labels = tuple(words.distinct(rng, ("First name", "Last name", "City", "Company", "Phone", "Job title"), 4))
        people = tuple(words.people(rng, 12))
        wanted = rng.sample(labels, rng.randint(1, 2))
        form = {label: f"{rng.choice(words.NOUNS)} {rng.randint(10, 99)}" for label in wanted}
        self.task = Task(apps, people, labels, rng.choice(apps), rng.choice(people), form)
        self._theme: Theme = pick_theme(rng)
        self.state = State()
        self._shortest = self._count_steps()
        return self._observation()

    def step(self, action: Action) -> Observation:
        """Does one action; what leads nowhere changes nothing."""
        if not self.state.is_done:
            self.state = self._after(self.state, action)
        return self._observation()

    @property
    def completed(self) -> bool:
        """Whether exactly what was asked for is saved."""
        return dict(self.state.saved) == {(self.task.app, self.task.person): self.task.form}

    @property
    def target_box(self) -> Box | None:
        """The box of what to click next; None where the next action is no click."""
        target = self._target(self.state)
        return target.box if isinstance(target, Element) else None

    @property
    def shortest_path(self) -> int:
        """Actions of the shortest way, the last `done` included."""
        return self._shortest

    def best_action(self) -> Action:
        """The next action of the shortest way from here; `done` also where the goal is out of reach."""
        return _to_action(self._target(self.state))

    # -- rules --------------------------------------------------------------------------------------------------------

    def _after(self, state: State, action: Action) -> State:
        if action.kind == "done":
            return replace(state, is_done=True)
        if action.kind == "back":
            return self._back(state)
        if action.kind == "type" and state.place == "form" and state.focus:
            others = {label: text for label, text in state.form.items() if label != state.focus}
            return replace(state, form=others | ({state.focus: action.text} if action.text else {}))
        if action.kind == "scroll" and state.place == "people":
            rows = len(self._rows(state))
            last = max(0, len(self.task.people) - rows)
            step = rows if action.text == "down" else -rows if action.text == "up" else 0
            return replace(state, first_row=min(max(state.first_row + step, 0), last))
        if action.kind == "click" and action.point is not None:
            return self._clicked(state, action.point)
        return state

    def _clicked(self, state: State, point: tuple[float, float]) -> State:
        hit = next((e for e in self.elements(state) if e.is_target and _holds(e.box, point)), None)
        if hit is None or hit.concept in ("minimise", "maximise"):
            return state
        if hit.concept in ("back", "close"):
            return self._back(state)
        if state.place == "apps":
            return replace(state, place="people", app=hit.concept, first_row=0)
        if state.place == "people":
            return self._open_form(state, hit.text)
        if state.place == "form":
            return replace(state, place="question") if hit.concept == "save" else replace(state, focus=hit.beside)
        if hit.concept == "confirm":
            saved = {**state.saved, (state.app, state.person): state.form}
            return replace(state, place="people", saved=saved, person="", focus="", form={})
        return replace(state, place="form")

    def _open_form(self, state: State, person: str) -> State:
        form = state.saved.get((state.app, person), {})
        return replace(state, place="form", person=person, focus="", form=form)

    def _back(self, state: State) -> State:
        if state.place == "question":
            return replace(state, place="form")
        if state.place == "form":
            return replace(state, place="people", person="", focus="", form={})
        return replace(state, place="apps", app="", first_row=0)

    # -- the shortest way ---------------------------------------------------------------------------------------------

    def _target(self, state: State) -> Element | Action:
        """What to click next, or the next action that is no click."""
        task, elements = self.task, [e for e in self.elements(state) if e.is_target]
        if any(key != (task.app, task.person) for key in state.saved):
            return Action("done")  # something else was saved: out of reach
        if dict(state.saved) == {(task.app, task.person): task.form}:
            return Action("done")
        if state.place == "apps":
            return _named(elements, concept=task.app)
        if state.app != task.app or (state.place != "people" and state.person != task.person):
            return Action("back")
        if state.place == "people":
            shown = self._rows(state)
            if task.person in shown:
                return _named(elements, text=task.person)
            below = task.people.index(task.person) > task.people.index(shown[0])
            return Action("scroll", text="down" if below else "up")
        order = dict.fromkeys([*task.form, *task.labels])  # as the instruction names them
        wrong = [label for label in order if state.form.get(label, "") != task.form.get(label, "")]
        if state.place == "question":
            return _named(elements, concept="cancel" if wrong else "confirm")
        if not wrong:
            return _named(elements, concept="save")
        if state.focus in wrong:
            return Action("type", text=task.form.get(state.focus, ""))
        return next(e for e in elements if e.beside == wrong[0])

    def _count_steps(self) -> int:
        state, steps = State(), 0
        while not state.is_done:
            state, steps = self._after(state, _to_action(self._target(state))), steps + 1
        return steps

    # -- pictures -----------------------------------------------------------------------------------------------------

    def elements(self, state: State | None = None) -> tuple[Element, ...]:
        """What is on the screen."""
        return tuple(self._canvas(state or self.state).elements)

    def _observation(self) -> Observation:
        return Observation(self._canvas(self.state).render(), self.task.instruction, self.state.is_done)

    def _rows(self, state: State) -> list[str]:
        """The people who are shown."""
        return [e.text for e in self.elements(state) if e.kind is Kind.ROW]

    def _canvas(self, state: State) -> Canvas:
        c = Canvas(self.width, self.height, 1.0, self._theme, random.Random(0))
        if state.place == "apps":
            self._draw_apps(c)
            return c
        body = self._frame(c, CONCEPTS[state.app].label if state.place == "people" else state.person)
        if state.place == "people":
            self._draw_people(c, body, state)
        else:
            self._draw_form(c, body, state)
        if state.place == "question":
            self._draw_question(c)
        return c

    def _frame(self, c: Canvas, title: str) -> Box:
        """A window, or a bar with an arrow; the box below it."""
        if self.kind == "desktop":
            return window(c, title)
        c.fill((0, 0, c.width, 48), c.theme.bar, outline=c.theme.line)
        icon_button(c, (6, 7, 40, 41), "back")
        c.label(title, (50, 0, c.width - 10, 48), points=c.theme.text_points + 3)
        return 0, 48, c.width, c.height

    def _draw_apps(self, c: Canvas) -> None:
        columns = 3 if self.kind == "phone" else 6
        cell = min(c.width // columns, 110)
        for place, concept in enumerate(self.task.apps):
            x, y = 10 + place % columns * cell, 40 + place // columns * (cell + 10)
            icon_over_text(c, (x, y, x + cell - 12, y + cell), concept, Kind.APP, tile=c.theme.accent)

    def _draw_people(self, c: Canvas, body: Box, state: State) -> None:
        height = 62
        count = (body[3] - body[1] - 4) // height
        for place, person in enumerate(self.task.people[state.first_row : state.first_row + count]):
            top = body[1] + 2 + place * height
            icon_row(c, (body[0] + 2, top, body[2] - 10, top + height - 2), "person", person)
        thumb = (body[3] - body[1]) * count // len(self.task.people)
        start = body[1] + (body[3] - body[1]) * state.first_row // len(self.task.people)
        c.fill((body[2] - 7, start, body[2] - 2, min(start + thumb, body[3])), c.theme.muted, radius=3)

    def _draw_form(self, c: Canvas, body: Box, state: State) -> None:
        left, right = body[0] + 16, min(body[2] - 16, body[0] + 460)
        for place, label in enumerate(self.task.labels):
            top = body[1] + 14 + place * 62
            c.label(label, (left, top, right, top + 20))
            draw_field(c, (left, top + 22, right, top + 52), label, value=state.form.get(label, ""), typed=True)
            if label == state.focus:
                c.fill((left, top + 52, right, top + 55), c.theme.accent)
        top = body[1] + 14 + len(self.task.labels) * 62 + 10
        button(c, (left, top, left + 130, top + 36), "Save", primary=True, concept="save")

    def _draw_question(self, c: Canvas) -> None:
        x, y = (c.width - 300) // 2, c.height // 2 - 70
        box = (x, y, x + 300, y + 140)
        c.open_over(box)
        c.shade()
        c.fill(box, c.theme.surface, radius=c.theme.radius, outline=c.theme.line)
        c.label("Save these entries?", (x + 14, y + 14, x + 286, y + 44))
        button(c, (x + 100, y + 92, x + 186, y + 126), "OK", primary=True, concept="confirm")
        button(c, (x + 196, y + 92, x + 286, y + 126), "Cancel", concept="cancel")


def _named(elements: list[Element], *, concept: str = "", text: str = "") -> Element:
    return next(e for e in elements if (concept and e.concept == concept) or (text and e.text == text))


def _to_action(target: Element | Action) -> Action:
    return target if isinstance(target, Action) else Action("click", point=target.centre)


def _holds(box: Box, point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
