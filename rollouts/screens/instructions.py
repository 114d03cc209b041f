"""Instructions for a screen, each with exactly one right target.

    | kind     | example                                               | what must be unique                          |
    |----------|-------------------------------------------------------|----------------------------------------------|
    | text     | Click "Save".                                         | the text, among everything that is visible   |
    | text     | Click the field labelled "E-mail".                    | the label                                    |
    | icon     | Click the gear icon.                                  | the icon                                     |
    | position | Click the third button from the left in the toolbar.  | nothing: a part of the screen has one name   |
    | position | Click the row directly below "Report.pdf".            | the neighbour's text                         |
    | function | I want to get this on paper.                          | the purpose                                  |

Where text, icon or purpose is not unique, the instruction says what tells the target from the others: the part of the
screen (`in the dialog`), the row or label it belongs to (`for "Report.pdf"`), or that the others are greyed out. What
a dialog hides in part counts as visible. If nothing tells it apart there is no such instruction.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rollouts.screens.concepts import CONCEPTS
from rollouts.screens.element import Element, Kind
from rollouts.screens.screen import Screen

InstructionKind = Literal["text", "icon", "position", "function"]
KINDS: tuple[InstructionKind, ...] = ("text", "icon", "position", "function")

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
ENABLED = " that is not greyed out"
_LABELLED = (Kind.FIELD, Kind.DROPDOWN, Kind.SWITCH)


@dataclass(frozen=True)
class Instruction:
    """What to do, and the one element to do it to."""

    text: str
    kind: InstructionKind
    target: int
    """index in the screen's elements"""
    hard_negatives: tuple[int, ...]
    """elements that a careless reader could take for the target"""


def instructions(screen: Screen) -> list[Instruction]:
    """All instructions of a screen, element by element."""
    found: list[Instruction] = []
    for index, element in enumerate(screen.elements):
        if element.is_target:
            negatives = hard_negatives(screen, index)
            for kind, texts in _texts(screen, index).items():
                found += [Instruction(text, kind, index, negatives) for text in texts]
    return found


def _texts(screen: Screen, index: int) -> dict[InstructionKind, Iterator[str]]:
    element = screen.elements[index]
    return {
        "text": _by_text(screen, element),
        "icon": _by_icon(screen, element),
        "position": _by_position(screen, index),
        "function": _by_function(screen, element),
    }


def pick(screen: Screen, count: int, rng: random.Random) -> list[Instruction]:
    """Instructions with different targets, of kinds as even as the screen allows; those with hard negatives first."""
    everything = instructions(screen)
    rng.shuffle(everything)
    everything.sort(key=lambda instruction: not instruction.hard_negatives)  # stable: random among equals
    chosen: list[Instruction] = []
    kinds = list(KINDS)
    rng.shuffle(kinds)
    while len(chosen) < count:
        taken = {instruction.target for instruction in chosen}
        free = [instruction for instruction in everything if instruction.target not in taken]
        if not free:
            break
        kind = kinds[len(chosen) % len(kinds)]
        chosen.append(next((instruction for instruction in free if instruction.kind == kind), free[0]))
    return chosen


def hard_negatives(screen: Screen, target: int) -> tuple[int, ...]:
    """Elements with the same icon or purpose, the same text, a label that begins alike, or the same label's row."""
    wanted = screen.elements[target]
    return tuple(index for index, other in enumerate(screen.elements) if index != target and _confusable(wanted, other))


def _confusable(a: Element, b: Element) -> bool:
    if b.kind is Kind.LABEL:
        return False
    if (a.icon and a.icon == b.icon) or (a.concept and a.concept == b.concept):
        return True
    names = (_name(a), _name(b))
    return all(names) and _stem(names[0]) == _stem(names[1])


def _name(element: Element) -> str:
    return element.text or (element.beside if element.kind in _LABELLED else "")


def _stem(text: str) -> str:
    return text.casefold().split()[0].split(".")[0]


def _visible(screen: Screen) -> tuple[Element, ...]:
    return screen.elements + screen.covered


def _by_text(screen: Screen, element: Element) -> Iterator[str]:
    if element.kind in _LABELLED and element.beside:
        labels = [e for e in _visible(screen) if e.text.casefold() == element.beside.casefold()]
        owners = [
            e for e in _visible(screen) if e.kind in _LABELLED and e.beside.casefold() == element.beside.casefold()
        ]
        if len(labels) == len(owners) == 1:
            yield f'Click the {element.kind} labelled "{element.beside}".'
    elif element.text:
        alike = [e for e in _visible(screen) if e.text.casefold() == element.text.casefold()]
        for suffix in _told_apart(screen, element, alike):
            yield f'Click "{element.text}"{suffix}.'


def _by_icon(screen: Screen, element: Element) -> Iterator[str]:
    if element.icon:
        for suffix in _told_apart(screen, element, [e for e in _visible(screen) if e.icon == element.icon]):
            yield f"Click the {element.icon} icon{suffix}."


def _by_function(screen: Screen, element: Element) -> Iterator[str]:
    if element.concept:
        alike = [e for e in _visible(screen) if e.concept == element.concept]
        for suffix in _told_apart(screen, element, alike):
            if suffix != ENABLED:  # a purpose says nothing about how things look
                yield f"I want to {CONCEPTS[element.concept].purpose}{suffix}."


def _told_apart(screen: Screen, element: Element, alike: list[Element]) -> Iterator[str]:
    """What to add so that the element is the only one of those alike; nothing comes where no addition does it."""
    if len(alike) == 1:
        yield ""
        return
    if element.group and sum(e.group == element.group for e in alike) == 1:
        yield f" in the {element.group}"
    owners = [e for e in _visible(screen) if e.text == element.beside]
    if element.beside and len(owners) == 1 and sum(e.beside == element.beside for e in alike) == 1:
        yield f' for "{element.beside}"'
    if sum(e.enabled for e in alike) == 1:
        yield ENABLED


def _by_position(screen: Screen, index: int) -> Iterator[str]:
    element = screen.elements[index]
    if element.series is None or element.series.length < 2:
        return
    members = [e for e in screen.elements if e.series is not None and e.group == element.group]
    kinds = {e.kind for e in members}
    noun = str(element.kind) if len(kinds) == 1 else "control"
    place, length, axis = element.series.index, element.series.length, element.series.axis
    start, end = ("left", "right") if axis == "x" else ("top", "bottom")
    for number, side in ((place, start), (length - 1 - place, end)):
        if number < len(ORDINALS) and number <= length // 2:
            yield f"Click the {ORDINALS[number]} {noun} from the {side} in the {element.group}."
    before = next((e for e in members if e.series is not None and e.series.index == place - 1), None)
    if before is None or not before.text:
        return
    if sum(e.text.casefold() == before.text.casefold() for e in _visible(screen)) == 1:
        where = "to the right of" if axis == "x" else "below"
        yield f'Click the {noun} directly {where} "{before.text}".'
