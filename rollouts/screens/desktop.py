"""Layouts of a desktop: windows with menus and toolbars, lists of files, forms, and dialogs over them."""

from __future__ import annotations

from collections.abc import Callable

from rollouts.screens import words
from rollouts.screens.canvas import Canvas
from rollouts.screens.concepts import CONCEPTS
from rollouts.screens.element import Box, Kind
from rollouts.screens.forms import form
from rollouts.screens.widgets import button, button_width, icon_button, icon_row, text_element, tick

_TOOLS = (
    "add",
    "open",
    "save",
    "print",
    "undo",
    "redo",
    "copy",
    "delete",
    "edit",
    "search",
    "share",
    "preview",
    "lock",
    "upload",
    "download",
    "filter",
    "help",
    "settings",
)
_WINDOW_CONTROLS = ("minimise", "maximise", "close")


def window(c: Canvas, title: str) -> Box:
    """A window with a title bar; the box inside it."""
    t = c.theme
    margin = c.rng.choice((0, 0, c.u(10), c.u(24)))
    box = (margin, margin, c.width - margin, c.height - margin)
    c.fill(box, t.surface, outline=t.line)
    height = c.u(30)
    bar = (box[0], box[1], box[2], box[1] + height)
    c.fill(bar, t.bar, outline=t.line)
    size, left = c.u(24), c.rng.random() < 0.4
    order = _WINDOW_CONTROLS[::-1] if left else _WINDOW_CONTROLS
    x = bar[0] + c.u(6) if left else bar[2] - 3 * size - c.u(12)
    y = bar[1] + (height - size) // 2
    since = len(c.elements)
    for concept in order:
        icon_button(c, (x, y, x + size, y + size), concept)
        x += size + c.u(2)
    c.number("title bar", "x", since)
    room = 3 * size + c.u(20)
    c.label(title, (bar[0] + room, bar[1], bar[2] - room, bar[3]), align="middle", group="title bar")
    return box[0] + c.u(2), bar[3], box[2] - c.u(2), box[3] - c.u(2)


def menu_bar(c: Canvas, box: Box) -> tuple[Box, list[Box]]:
    """A row of menus; what is left of the box, and the box of each menu."""
    height, x = c.u(26), box[0] + c.u(4)
    c.fill((box[0], box[1], box[2], box[1] + height), c.theme.bar)
    since = len(c.elements)
    boxes: list[Box] = []
    for name in words.distinct(c.rng, words.MENUS, c.rng.randint(3, 6)):
        width = c.measure(name) + c.u(18)
        boxes.append(text_element(c, (x, box[1], x + width, box[1] + height), name, Kind.MENU, align="middle").box)
        x += width
    c.number("menu bar", "x", since)
    return (box[0], box[1] + height, box[2], box[3]), boxes


def toolbar(c: Canvas, box: Box) -> Box:
    """A row of icon buttons, some with text, some greyed out; what is left of the box."""
    height, x = c.u(36), box[0] + c.u(6)
    c.fill((box[0], box[1], box[2], box[1] + height), c.theme.bar, outline=c.theme.line)
    framed, since = c.rng.random() < 0.4, len(c.elements)
    for concept in words.distinct(c.rng, _TOOLS, c.rng.randint(5, 11)):
        top, bottom = box[1] + c.u(4), box[1] + height - c.u(4)
        label = CONCEPTS[concept].label
        wide = c.rng.random() < 0.2
        width = button_width(c, label, icon=True) if wide else bottom - top
        if x + width > box[2] - c.u(6):
            break
        enabled = c.rng.random() > 0.15
        if wide:
            button(c, (x, top, x + width, bottom), label, icon=CONCEPTS[concept].icon, concept=concept, enabled=enabled)
        else:
            icon_button(c, (x, top, x + width, bottom), concept, framed=framed, enabled=enabled)
        x += width + c.u(c.rng.choice((2, 4, 10)))
    c.number("toolbar", "x", since)
    return box[0], box[1] + height, box[2], box[3]


def editor(c: Canvas) -> None:
    """A window with menus, a toolbar and running text; perhaps a menu hangs open."""
    body, menus = menu_bar(c, window(c, f"{words.file_names(c.rng, 1)[0]} - {c.rng.choice(words.APP_NAMES)}"))
    body = toolbar(c, body)
    line = c.line_height() + c.u(6)
    x, y = body[0] + c.u(24), body[1] + c.u(16)
    while y + line < body[3] - c.u(30):
        if c.rng.random() < 0.8:
            c.label(words.sentence(c.rng), (x, y, body[2] - c.u(24), y + line))
        y += line
    if c.rng.random() < 0.55:
        place = c.rng.randrange(len(menus))
        open_menu(c, menus[place])
    elif c.rng.random() < 0.6:
        dialog(c)


def open_menu(c: Canvas, menu: Box) -> None:
    """A menu that hangs open below its name; some of its items are greyed out."""
    t = c.theme
    named = (
        "save",
        "save_as",
        "print",
        "select_all",
        "paste",
        "cut",
        "copy",
        "undo",
        "redo",
        "settings",
        "help",
        "open",
    )
    concepts = {CONCEPTS[key].label: key for key in words.distinct(c.rng, named, c.rng.randint(2, 5))}
    texts = [*concepts, *words.distinct(c.rng, words.MENU_ITEMS, c.rng.randint(2, 5))]
    c.rng.shuffle(texts)
    height = c.u(25)
    width = max(map(c.measure, texts)) + c.u(60)
    x = min(menu[0], c.width - width - c.u(2))
    texts = texts[: max(1, (c.height - menu[3] - c.u(12)) // height)]
    box = (x, menu[3], x + width, menu[3] + height * len(texts) + c.u(8))
    c.open_over(box)
    c.fill(box, t.surface, outline=t.line)
    y, since = box[1] + c.u(4), len(c.elements)
    for text in texts:
        item = (box[0] + c.u(2), y, box[2] - c.u(2), y + height)
        text_element(
            c, item, text, Kind.MENU_ITEM, concept=concepts.get(text, ""), enabled=c.rng.random() > 0.2, margin=14
        )
        y += height
    c.number("open menu", "y", since)


def files(c: Canvas) -> None:
    """Folders on the left, files with a small row of icons each on the right."""
    t = c.theme
    body = toolbar(c, window(c, c.rng.choice(words.APP_NAMES) + " files"))
    split = body[0] + c.u(150)
    c.fill((body[0], body[1], split, body[3]), t.bar)
    row = c.u(c.rng.choice((26, 30, 34)))
    since, y = len(c.elements), body[1] + c.u(6)
    for name in words.distinct(c.rng, words.FOLDERS, c.rng.randint(4, 9)):
        if y + row > body[3]:
            break
        icon_row(c, (body[0] + c.u(4), y, split - c.u(4), y + row), "folder", name, ink=t.text)
        y += row
    c.number("side bar", "y", since)
    below = body[3]
    if c.rng.random() < 0.6:
        below -= c.u(76)
        twins(c, (split + c.u(6), below, body[2] - c.u(6), body[3]))
    _file_rows(c, (split, body[1] + c.u(6), body[2], below), row)
    if c.rng.random() < 0.35:
        dialog(c)


def _file_rows(c: Canvas, box: Box, row: int) -> None:
    t = c.theme
    actions = words.distinct(c.rng, ("delete", "edit", "download", "share", "more"), c.rng.randint(1, 3))
    side = row - c.u(6)
    room = len(actions) * (side + c.u(6)) + c.u(8)
    y, number = box[1], c.rng.randint(5, 14)
    rows: list[tuple[str, int]] = []
    since = len(c.elements)
    icon = c.rng.choice(("sheet", "picture", "note"))
    for name in words.file_names(c.rng, number):
        if y + row > box[3]:
            break
        shown = icon_row(c, (box[0] + c.u(6), y, box[2] - room, y + row), icon, name)
        rows.append((shown.text, y))
        y += row + c.u(2)
    c.number("file list", "y", since)
    for name, top in rows:
        x = box[2] - room + c.u(4)
        c.line(box[0] + c.u(6), top + row, box[2] - c.u(6), top + row, t.line)
        for concept in actions:
            icon_button(c, (x, top + c.u(3), x + side, top + c.u(3) + side), concept, beside=name)
            x += side + c.u(6)


def twins(c: Canvas, box: Box) -> None:
    """Two jobs with one button each; the buttons say the same, and one of them is greyed out."""
    c.line(box[0], box[1], box[2], box[1], c.theme.line)
    text, grey = c.rng.choice(("Stop", "Try again", "Show")), c.rng.randrange(2)
    width, row = button_width(c, text), (box[3] - box[1]) // 2
    for place, name in enumerate(words.distinct(c.rng, ("Backup", "Index", "Scan", "Update check"), 2)):
        top = box[1] + place * row
        c.label(name, (box[0] + c.u(4), top, box[2] - width - c.u(12), top + row))
        area = (box[2] - width, top + c.u(4), box[2], top + row - c.u(4))
        button(c, area, text, enabled=place != grey, beside=name)


def preferences(c: Canvas) -> None:
    """Tabs above a form, with buttons at the bottom."""
    t = c.theme
    body = window(c, c.rng.choice(words.APP_NAMES) + " options")
    x, height, since = body[0] + c.u(8), c.u(30), len(c.elements)
    for name in words.distinct(
        c.rng, ("General", "Display", "Network", "Privacy", "Advanced", "Keyboard"), c.rng.randint(3, 5)
    ):
        width = c.measure(name) + c.u(28)
        if x + width > body[2]:
            break
        tab = (x, body[1] + c.u(6), x + width, body[1] + c.u(6) + height)
        c.fill(tab, t.bar, outline=t.line)
        text_element(c, tab, name, Kind.TAB, align="middle")
        x += width + c.u(3)
    c.number("tab bar", "x", since)
    area = (
        body[0] + c.u(20),
        body[1] + height + c.u(22),
        min(body[2] - c.u(20), body[0] + c.u(640)),
        body[3] - c.u(54),
    )
    form(c, area)
    buttons(c, (body[0], body[3] - c.u(48), body[2] - c.u(16), body[3] - c.u(10)), "bottom bar")


def buttons(
    c: Canvas, box: Box, group: str, concepts: tuple[str, ...] = ("confirm", "cancel"), more: bool = True
) -> None:
    """A row of push buttons at the right end of the box; one may be greyed out."""
    texts = [(CONCEPTS[key].label, key) for key in concepts]
    if more and c.rng.random() < 0.6:
        texts.append((c.rng.choice(("Apply", "Details...", "Options...")), ""))
    if c.rng.random() < 0.4:
        c.rng.shuffle(texts)
    widths = [max(c.u(76), button_width(c, text)) for text, _ in texts]
    x, since = box[2] - sum(widths) - c.u(8) * (len(texts) - 1), len(c.elements)
    grey = c.rng.randrange(len(texts)) if c.rng.random() < 0.3 else -1
    height = min(c.u(32), box[3] - box[1])
    top = (box[1] + box[3] - height) // 2
    for place, ((text, concept), width) in enumerate(zip(texts, widths)):
        area = (x, top, x + width, top + height)
        button(c, area, text, primary=place == 0, enabled=place != grey, concept=concept)
        x += width + c.u(8)
    c.number(group, "x", since)


_QUESTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Unsaved work", "The document has changes that are not on the disk.", ("save", "cancel")),
    ("Remove entry", "What is removed cannot be brought back.", ("delete", "cancel")),
    ("Paper", "The printer is ready. One page will be printed.", ("print", "cancel")),
    ("Sign out", "Everybody will be signed out on this machine.", ("confirm", "cancel")),
    ("New version", "A new version can be installed now.", ("download", "cancel", "help")),
)


def dialog(c: Canvas) -> None:
    """A dialog over everything; labels behind it may repeat those of its buttons."""
    t = c.theme
    title, message, concepts = c.rng.choice(_QUESTIONS)
    width = min(c.u(c.rng.randint(330, 420)), c.width - c.u(20))
    height = c.u(c.rng.randint(150, 190))
    x, y = (c.width - width) // 2, c.rng.randint(c.height // 6, max(c.height // 6, (c.height - height) * 2 // 3))
    box = (x, y, x + width, y + height)
    c.open_over(box)
    if c.rng.random() < 0.6:
        c.shade()
    c.fill(box, t.surface, radius=c.u(t.radius), outline=t.line)
    head = c.u(30)
    since = len(c.elements)
    icon_button(c, (box[2] - head, y + c.u(3), box[2] - c.u(5), y + c.u(3) + head - c.u(5)), "close")
    c.number("dialog's top line", "x", since)
    c.label(title, (x + c.u(14), y + c.u(4), box[2] - head - c.u(8), y + head), points=t.text_points + 2)
    c.label(message, (x + c.u(14), y + head + c.u(8), box[2] - c.u(14), y + head + c.u(34)))
    if c.rng.random() < 0.5:
        top = y + head + c.u(40)
        tick(c, (x + c.u(14), top, box[2] - c.u(14), top + c.u(22)), "Do not ask again", on=c.rng.random() < 0.5)
    buttons(c, (x + c.u(8), box[3] - c.u(44), box[2] - c.u(12), box[3] - c.u(6)), "dialog", concepts, more=False)


DESKTOP: dict[str, Callable[[Canvas], None]] = {"editor": editor, "files": files, "preferences": preferences}
