"""Screens as pages of HTML and CSS: what is on a page comes from a seed, where it ends up only a browser knows.

A page is plain text of our own without scripts or anything remote. `draft(seed)` writes it and lists its elements;
`rollouts.screens.chromium` fills in the boxes and the picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from rollouts.screens import words
from rollouts.screens.canvas import Canvas
from rollouts.screens.concepts import CONCEPTS
from rollouts.screens.element import Element, Kind
from rollouts.screens.screen import Platform, Screen
from rollouts.screens.svg import svg
from rollouts.screens.theme import Colour, Theme, pick_theme

_UNPLACED = (0, 0, 0, 0)
_LARGE = ((800, 600), (1024, 768), (1280, 720), (1440, 900))
_SMALL = ((320, 568), (360, 640), (392, 844))
_SCALES = (1.0, 1.0, 1.25, 1.5, 2.0)
_FONTS = ("sans-serif", "sans-serif", "serif", "system-ui, sans-serif", "monospace")


@dataclass(frozen=True)
class Draft:
    """A page before a browser has laid it out; the boxes of `screen` are empty, and it cannot be drawn yet."""

    screen: Screen
    html: str
    """the element with the attribute data-i="n" is number n of covered + elements"""


class Page:
    """Writes markup and registers, in the same order, what it shows."""

    def __init__(self, canvas: Canvas) -> None:
        self.c = canvas
        self.rng = canvas.rng

    def add(self, kind: Kind, text: str = "", *, concept: str = "", icon: str = "", beside: str = "", css: str = "",
            enabled: bool = True, words_first: bool = False, inner: str = "") -> str:  # fmt: skip
        """One element; `css` names classes, `inner` is markup that is no text (the knob of a switch)."""
        number = len(self.c.covered) + len(self.c.elements)
        clickable = kind is not Kind.LABEL
        self.c.add(Element(kind, _UNPLACED, text, icon, concept, "", beside, None, clickable, enabled))
        parts = [svg(icon) if icon else "", f"<span>{escape(text)}</span>" if text else "", inner]
        body = "".join(reversed(parts) if words_first else parts)
        name = str(kind).replace(" ", "-")
        return f'<div data-i="{number}" class="e {name} {css}{"" if enabled else " off"}">{body}</div>'

    def label(self, text: str, css: str = "") -> str:
        return self.add(Kind.LABEL, text, css=css)

    def icons(self, concepts: Sequence[str], *, beside: str = "", css: str = "", off: float = 0.0) -> str:
        """Buttons that show an icon alone; each is greyed out with the chance `off`."""
        return "".join(
            self.add(Kind.BUTTON, concept=key, icon=CONCEPTS[key].icon, beside=beside, css=css + " icon",
                     enabled=self.rng.random() >= off)
            for key in concepts
        )  # fmt: skip

    def pick(self, pool: Sequence[str], low: int, high: int) -> list[str]:
        return words.distinct(self.rng, tuple(pool), self.rng.randint(low, high))

    def series(self, group: str, axis: str, build: Callable[[], str]) -> str:
        """What is built is one group, and its clickable elements one series."""
        since = len(self.c.elements)
        markup = build()
        self.c.number(group, axis, since)
        return markup

    def cover(self) -> None:
        """Something opens over everything so far."""
        self.c.covered += self.c.elements
        self.c.elements = []


def _bar(content: str, css: str = "") -> str:
    return f'<div class="bar {css}">{content}</div>'


def _title_bar(p: Page, title: str) -> str:
    controls = p.series("title bar", "x", lambda: p.icons(("minimise", "maximise", "close")))
    return _bar(f'<div class="grow centre">{p.label(title)}</div>{controls}')


_TOOLS = ("add", "open", "save", "print", "undo", "redo", "copy", "delete", "edit", "search", "share", "lock", "upload",
          "download", "filter", "help", "settings")  # fmt: skip


def _rows(p: Page, names: Sequence[str], icon: str, actions: Sequence[str], group: str) -> str:
    """A list whose rows end in icons. The rows are registered first, so that they are one series."""
    heads = p.series(group, "y", lambda: "\0".join(p.add(Kind.ROW, name, icon=icon, css="grow") for name in names))
    lines = [f'<div class="line">{head}{p.icons(actions, beside=n)}</div>' for head, n in zip(heads.split("\0"), names)]
    return f'<div class="rows">{"".join(lines)}</div>'


def _form(p: Page, count: int) -> str:
    fields, options = p.pick(words.FIELDS, count, count), p.pick(words.OPTIONS, count, count)
    values = iter(p.pick(words.CHOICES, 9, 9))

    def build() -> str:
        lines = []
        for text, option in zip(fields, options):
            kind = p.rng.choice((Kind.FIELD, Kind.FIELD, Kind.CHECKBOX, Kind.SWITCH, Kind.DROPDOWN))
            on, enabled = p.rng.random() < 0.5, p.rng.random() > 0.12
            if kind is Kind.CHECKBOX:
                mark = f'<i class="tick{" on" if on else ""}"></i>'
                lines.append(p.add(kind, option, inner=mark, words_first=True, enabled=enabled))
                continue
            name = text if kind is Kind.FIELD else option
            if kind is Kind.SWITCH:
                control = p.add(kind, beside=name, css="on" if on else "", inner="<b></b>", enabled=enabled)
            else:
                value = next(values, "Never") if kind is Kind.DROPDOWN else ""
                control = p.add(kind, value, beside=name, css="grow", enabled=enabled)
            lines.append(f'<div class="name">{p.label(name)}</div>{control}')
        return "".join(f'<div class="line">{line}</div>' for line in lines)

    return f'<div class="form">{p.series("form", "y", build)}</div>'


def _buttons(p: Page, concepts: Sequence[str], group: str) -> str:
    def build() -> str:
        return "".join(
            p.add(Kind.BUTTON, CONCEPTS[key].label, concept=key, css="push" + (" main" if place == 0 else ""),
                  enabled=p.rng.random() > 0.15)
            for place, key in enumerate(concepts)
        )  # fmt: skip

    return f'<div class="foot">{p.series(group, "x", build)}</div>'


def _dialog(p: Page) -> str:
    p.cover()
    title, concepts = p.rng.choice(
        (("Unsaved work", ("save", "cancel")), ("Remove entry", ("delete", "cancel")), ("Paper", ("print", "cancel")))
    )
    close = p.series("dialog's top line", "x", lambda: p.icons(("close",)))
    head = _bar(f'<div class="grow">{p.label(title)}</div>{close}')
    return f'<div class="shade"><div class="dialog">{head}<div class="say">{p.label(words.sentence(p.rng))}</div>' + (
        f"{_buttons(p, concepts, 'dialog')}</div></div>"
    )


def _explorer(p: Page) -> str:
    top = _title_bar(p, f"{p.rng.choice(words.APP_NAMES)} files")
    menus = p.series("menu bar", "x", lambda: "".join(p.add(Kind.MENU, m) for m in p.pick(words.MENUS, 3, 6)))
    tools = p.series("toolbar", "x", lambda: p.icons(p.pick(_TOOLS, 5, 11), css=p.rng.choice(("", "push")), off=0.15))
    side = p.series(
        "side bar", "y", lambda: "".join(p.add(Kind.ROW, f, icon="folder") for f in p.pick(words.FOLDERS, 4, 9))
    )
    names = words.file_names(p.rng, p.rng.randint(4, 10))
    rows = _rows(p, names, p.rng.choice(("sheet", "note")), p.pick(("delete", "edit", "download", "more"), 1, 3),
                 "file list")  # fmt: skip
    body = f"{top}{_bar(menus)}{_bar(tools)}<div class='split'><div class='side'>{side}</div>{rows}</div>"
    chance = p.rng.random()
    if chance < 0.3:
        p.cover()
        items = p.pick(words.MENU_ITEMS, 4, 9)
        menu = p.series(
            "open menu",
            "y",
            lambda: "".join(p.add(Kind.MENU_ITEM, item, enabled=p.rng.random() > 0.2) for item in items),
        )
        return f'{body}<div class="menu-open">{menu}</div>'
    return body + (_dialog(p) if chance < 0.5 else "")


def _preferences(p: Page) -> str:
    top = _title_bar(p, f"{p.rng.choice(words.APP_NAMES)} options")
    names = p.pick(("General", "Display", "Network", "Privacy", "Advanced", "Keyboard"), 3, 5)
    tabs = p.series("tab bar", "x", lambda: "".join(p.add(Kind.TAB, name) for name in names))
    form, feet = _form(p, p.rng.randint(4, 9)), _buttons(p, ("confirm", "cancel"), "bottom bar")
    return f"{top}{_bar(tabs)}{form}{feet}"


def _shop(p: Page) -> str:
    topics = p.pick(words.TOPICS, 3, 5)
    links = p.series("navigation", "x", lambda: "".join(p.add(Kind.LINK, topic) for topic in topics))
    search = p.add(Kind.FIELD, "Search", icon="magnifying glass", concept="search", css="search")
    head = _bar(f'{links}<div class="grow"></div>{search}{p.icons(("cart",))}')
    cards = []
    for name in p.pick(words.PRODUCTS, 4, 8):
        line = f'<div class="line">{p.add(Kind.LINK, name, css="grow")}{p.icons(("like",), beside=name)}</div>'
        price = p.label(f"{p.rng.randint(3, 99)}.{p.rng.choice(('00', '50', '95'))} EUR")
        buy = p.add(Kind.BUTTON, "Add to cart", beside=name, css="push main", enabled=p.rng.random() > 0.25)
        cards.append(f'<div class="card">{line}<div class="photo"></div>{price}{buy}</div>')
    return f'{head}<div class="cards">{"".join(cards)}</div>' + (_dialog(p) if p.rng.random() < 0.2 else "")


def _sign_up(p: Page) -> str:
    links = p.series("navigation", "x", lambda: "".join(p.add(Kind.LINK, t) for t in p.pick(words.TOPICS, 2, 4)))
    form, feet = _form(p, p.rng.randint(4, 8)), _buttons(p, ("sign_up", "cancel"), "bottom line")
    return f'{_bar(links)}<div class="sheet">{form}{feet}</div>'


def _top_bar(p: Page, title: str) -> str:
    left = p.icons((p.rng.choice(("back", "menu")),))
    right = p.icons(p.pick(("search", "more", "filter", "add"), 1, 2))
    return _bar(f'{left}<div class="grow">{p.label(title)}</div>{right}', "tall")


def _bottom_bar(p: Page) -> str:
    keys = p.pick(("home", "search", "alerts", "account", "chat", "favourites", "settings"), 3, 5)
    tabs = p.series("bottom bar", "x", lambda: "".join(
        p.add(Kind.TAB, CONCEPTS[key].label, concept=key, icon=CONCEPTS[key].icon, css="stack grow") for key in keys
    ))  # fmt: skip
    return _bar(tabs, "bottom")


def _inbox(p: Page) -> str:
    top = p.series("top bar", "x", lambda: _top_bar(p, p.rng.choice(("People", "Team", "Inbox"))))
    rows = _rows(p, words.people(p.rng, p.rng.randint(4, 8)), "person",
                 p.pick(("mail", "camera", "like", "delete"), 1, 2), "list")  # fmt: skip
    page = f"{top}{rows}{_bottom_bar(p)}"
    return page + (_dialog(p) if p.rng.random() < 0.25 else "")


def _options(p: Page) -> str:
    top = p.series("top bar", "x", lambda: _top_bar(p, p.rng.choice(("Device", "Connections"))))
    form = _form(p, p.rng.randint(5, 8))
    return f"{top}{form}{_bottom_bar(p)}"


def _apps(p: Page) -> str:
    search = p.add(Kind.FIELD, "Search the phone", icon="magnifying glass", concept="search", css="wide")
    keys = p.pick(("account", "alarm", "calendar", "camera", "cart", "chat", "home", "mail", "maps", "music", "photos",
                   "settings", "help"), 6, 12)  # fmt: skip
    apps = "".join(p.add(Kind.APP, CONCEPTS[k].label, concept=k, icon=CONCEPTS[k].icon, css="stack") for k in keys)
    return f'<div class="line">{search}</div><div class="apps">{apps}</div>'


LAYOUTS: dict[Platform, dict[str, Callable[[Page], str]]] = {
    "desktop": {"html explorer": _explorer, "html preferences": _preferences},
    "web": {"html shop": _shop, "html sign up": _sign_up},
    "mobile": {"html inbox": _inbox, "html options": _options, "html apps": _apps},
}


def draft(seed: int, platforms: Sequence[Platform]) -> Draft:
    """The page of a seed."""
    rng = random.Random(f"html screen {seed}")
    platform = rng.choice(list(platforms))
    width, height = rng.choice(_SMALL if platform == "mobile" else _LARGE)
    scale, layout = rng.choice(_SCALES), rng.choice(list(LAYOUTS[platform]))
    canvas = Canvas(round(width * scale), round(height * scale), scale, pick_theme(rng), rng)
    style = _style(canvas.theme, rng.choice(_FONTS), rng.choice((4, 6, 9)))
    body = LAYOUTS[platform][layout](Page(canvas))
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'unsafe-inline'\"><style>{style}</style></head><body>{body}</body>"
    )
    return Draft(Screen(platform, layout, seed, tuple(canvas.elements), tuple(canvas.covered), canvas), html)


def _style(t: Theme, face: str, pad: int) -> str:
    def rgb(colour: Colour) -> str:
        return "rgb({},{},{})".format(*colour)

    main = (t.accent, t.on_accent) if t.filled_buttons else (t.surface, t.accent)
    return f"""*{{box-sizing:border-box;margin:0}}
html,body{{width:100%;height:100%;overflow:hidden}}
body{{display:flex;flex-direction:column;background:{rgb(t.page)};color:{rgb(t.text)};font:{t.text_points}px {face}}}
.e{{display:flex;align-items:center;gap:6px;white-space:nowrap;padding:{pad}px 8px;flex:none;line-height:1.25}}
.label{{padding:0;display:inline-flex}} .off{{color:{rgb(t.muted)}}} .grow{{flex:1 1 0;min-width:0}}
.centre{{text-align:center}} svg{{width:18px;height:18px;flex:none}} .icon{{padding:{max(3, pad - 2)}px}}
.bar{{display:flex;align-items:center;gap:2px;padding:3px 6px;background:{rgb(t.bar)};flex:none;
 border-bottom:1px solid {rgb(t.line)}}} .tall{{min-height:48px;font-size:1.15em}}
.bottom{{margin-top:auto}} .stack{{flex-direction:column;justify-content:center;gap:3px;font-size:11px}}
.push,.tab,.field,.drop-down-list{{background:{rgb(t.surface)};border:1px solid {rgb(t.line)};
 border-radius:{t.radius}px}}
.bottom .tab{{background:none;border:0;padding:4px 0}} .push.off{{background:{rgb(t.bar)}}}
.main:not(.off){{background:{rgb(main[0])};color:{rgb(main[1])}}} .push{{justify-content:center}}
.foot{{display:flex;justify-content:flex-end;gap:8px;padding:10px 16px;flex:none}} .foot .e{{min-width:76px}}
.split{{display:flex;flex:1;min-height:0;background:{rgb(t.surface)}}}
.side{{width:150px;flex:none;background:{rgb(t.bar)};padding:4px}} .rows{{flex:1;background:{rgb(t.surface)}}}
.line{{display:flex;align-items:center;gap:4px;padding:1px 8px}} .rows .line{{border-bottom:1px solid {rgb(t.line)}}}
.form{{padding:12px 16px;max-width:640px;display:flex;flex-direction:column;gap:8px;flex:none}}
.form .line{{padding:0;min-height:32px}} .name{{width:42%;flex:none}} .checkbox{{padding-left:0}}
.field,.drop-down-list{{min-height:30px}} .field{{color:{rgb(t.muted)}}} .field.off{{background:{rgb(t.bar)}}}
.drop-down-list{{justify-content:space-between}} .drop-down-list::after{{content:"";width:7px;height:7px;flex:none;
 border:solid currentColor;border-width:0 2px 2px 0;transform:translateY(-2px) rotate(45deg)}}
.tick{{width:15px;height:15px;flex:none;border:1.5px solid {rgb(t.muted)};border-radius:{min(t.radius, 3)}px}}
.tick.on{{background:{rgb(t.accent)};border-color:{rgb(t.accent)}}} .off .tick.on{{background:{rgb(t.muted)}}}
.switch{{width:38px;height:20px;padding:2px;border-radius:10px;background:{rgb(t.line)}}}
.switch.on{{background:{rgb(t.accent)};justify-content:flex-end}} .switch.off{{background:{rgb(t.muted)}}}
.switch b{{width:16px;height:16px;border-radius:50%;background:{rgb(t.surface)};border:1px solid {rgb(t.muted)}}}
.link{{color:{rgb(t.accent)}}} .search{{width:160px}} .wide{{flex:1;margin:10px 4px}}
.cards{{display:grid;grid-template-columns:repeat(auto-fill,170px);gap:14px;padding:14px}}
.card{{background:{rgb(t.surface)};border:1px solid {rgb(t.line)};border-radius:{t.radius}px;padding:8px}}
.card .line{{padding:0}} .card .link{{padding-left:0}} .card .push{{margin-top:6px}}
.photo{{height:52px;background:{rgb(t.bar)};margin:4px 0}}
.sheet{{width:min(460px,94%);margin:16px auto;background:{rgb(t.surface)};border:1px solid {rgb(t.line)};
 border-radius:{t.radius}px;flex:none}} .apps{{display:grid;grid-template-columns:repeat(4,1fr);gap:10px;padding:8px}}
.app svg{{width:44px;height:44px;padding:9px;border-radius:{t.radius + 4}px;background:{rgb(t.bar)}}}
.app{{padding:6px 0}}
.shade{{position:fixed;inset:0;background:rgba(0,0,0,.45);display:flex;align-items:center;justify-content:center}}
.dialog{{width:min(370px,92%);background:{rgb(t.surface)};border:1px solid {rgb(t.line)};border-radius:{t.radius}px;
 overflow:hidden}} .say{{padding:16px;font-size:.9em}}
.menu-open{{position:fixed;left:8px;top:64px;padding:4px 0;background:{rgb(t.surface)};border:1px solid {rgb(t.line)};
 min-width:180px;box-shadow:0 3px 9px rgba(0,0,0,.3)}}"""
