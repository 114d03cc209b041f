"""What is on a screen: elements with their boxes, and the names of what they do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels; x2 and y2 are the first column and row outside"""


class Kind(StrEnum):
    """What an element is; its value is the word for it in an instruction."""

    BUTTON = "button"
    FIELD = "field"
    CHECKBOX = "checkbox"
    RADIO = "option"
    SWITCH = "switch"
    DROPDOWN = "drop-down list"
    TAB = "tab"
    MENU = "menu"
    MENU_ITEM = "menu item"
    ROW = "row"
    LINK = "link"
    APP = "app"
    LABEL = "label"


@dataclass(frozen=True)
class Series:
    """The place of an element among its like in a group, such as the buttons of a toolbar."""

    axis: str
    """x: from left to right, y: from top to bottom"""
    index: int
    """from 0"""
    length: int


@dataclass(frozen=True)
class Element:
    """One visible thing. No two elements of a screen overlap; text and icon lie inside the box."""

    kind: Kind
    box: Box
    text: str = ""
    """as it is shown, so possibly cut and ending in ..."""
    icon: str = ""
    """key of rollouts.screens.icons.ICONS"""
    concept: str = ""
    """what it does: key of rollouts.screens.concepts.CONCEPTS, or nothing"""
    group: str = ""
    """the part of the screen it is in, such as `toolbar`; no two parts have one name"""
    beside: str = ""
    """text of the label or row that it belongs to"""
    series: Series | None = None
    clickable: bool = True
    """False for labels, and for everything outside an open dialog or menu"""
    enabled: bool = True
    """False where it is shown greyed out"""
    text_box: Box | None = None
    icon_box: Box | None = None

    @property
    def is_target(self) -> bool:
        """Whether an instruction may ask for it."""
        return self.clickable and self.enabled

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box, in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share a pixel."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(inner: Box, outer: Box) -> bool:
    """Whether a box lies within another one, common edges allowed."""
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]
