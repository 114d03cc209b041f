"""Layouts of web pages in a browser: a shop, and a form to sign up."""

from __future__ import annotations

from collections.abc import Callable

from rollouts.screens import words
from rollouts.screens.canvas import Canvas
from rollouts.screens.desktop import buttons
from rollouts.screens.element import Box, Kind
from rollouts.screens.forms import form
from rollouts.screens.widgets import button, field, icon_button, shrink, text_element


def browser(c: Canvas) -> Box:
    """The frame of a web browser; the box of the page."""
    t = c.theme
    since, x, height = len(c.elements), c.u(8), c.u(28)
    c.fill((0, 0, c.width, c.u(70)), t.bar)
    for name in words.distinct(c.rng, words.TOPICS, c.rng.randint(1, 3)):
        tab = (x, c.u(4), x + c.u(130), c.u(4) + height)
        c.fill(tab, t.surface, outline=t.line)
        text_element(c, tab, name + " page", Kind.TAB)
        x += c.u(134)
    c.number("tab bar", "x", since)
    since, x, y = len(c.elements), c.u(8), c.u(37)
    for concept in ("back", "forward", "refresh", "home")[: c.rng.randint(3, 4)]:
        icon_button(c, (x, y, x + height, y + height), concept)
        x += height + c.u(4)
    end = c.width - 2 * (height + c.u(6))
    c.number("address bar", "x", since)
    field(
        c,
        (x + c.u(4), y, end, y + height),
        "",
        value=f"https://{c.rng.choice(words.NOUNS)}.example/{c.rng.randint(1, 99)}",
    )
    for concept in words.distinct(c.rng, ("favourites", "menu", "account", "download"), 2):
        icon_button(c, (end + c.u(6), y, end + c.u(6) + height, y + height), concept)
        end += height + c.u(4)
    return 0, c.u(70), c.width, c.height


def shop(c: Canvas) -> None:
    """A web page of links and goods on cards."""
    t = c.theme
    page = browser(c)
    c.fill((page[0], page[1], page[2], page[1] + c.u(44)), t.surface, outline=t.line)
    since, x, y, height = len(c.elements), c.u(16), page[1] + c.u(8), c.u(28)
    for name in words.distinct(c.rng, words.TOPICS, c.rng.randint(3, 6)):
        width = c.measure(name) + c.u(18)
        if x + width > page[2] - c.u(240):
            break
        text_element(c, (x, y, x + width, y + height), name, Kind.LINK, ink=t.accent, align="middle")
        x += width
    c.number("navigation", "x", since)
    field(
        c,
        (page[2] - c.u(232), y, page[2] - c.u(70), y + height),
        "",
        value="Search",
        icon="magnifying glass",
        concept="search",
    )
    icon_button(c, (page[2] - c.u(58), y, page[2] - c.u(58) + height, y + height), "cart")
    wide, gap = c.u(c.rng.choice((170, 190, 220))), c.u(16)
    high = c.u(c.rng.choice((132, 150)))
    columns = max(1, (page[2] - gap) // (wide + gap))
    rows = max(1, (page[3] - page[1] - c.u(44) - gap) // (high + gap))
    for place, name in enumerate(words.distinct(c.rng, words.PRODUCTS, min(columns * rows, 10))):
        left, top = gap + place % columns * (wide + gap), page[1] + c.u(44) + gap + place // columns * (high + gap)
        _card(c, (left, top, left + wide, top + high), name)


def _card(c: Canvas, box: Box, name: str) -> None:
    t = c.theme
    c.fill(box, t.surface, radius=c.u(t.radius), outline=t.line)
    foot, head = c.u(34), c.u(26)
    c.fill((box[0] + c.u(6), box[1] + head, box[2] - c.u(6), box[3] - foot - c.u(24)), t.bar)
    link = text_element(
        c, (box[0] + c.u(2), box[1] + c.u(2), box[2] - c.u(30), box[1] + head), name, Kind.LINK, ink=t.accent
    )
    side = c.u(22)
    icon_button(
        c, (box[2] - side - c.u(5), box[1] + c.u(2), box[2] - c.u(5), box[1] + c.u(2) + side), "like", beside=link.text
    )
    price = (box[0] + c.u(8), box[3] - foot - c.u(22), box[2] - c.u(8), box[3] - foot)
    c.label(f"{c.rng.randint(3, 99)}.{c.rng.choice(('00', '50', '95'))} EUR", price)
    sold_out = c.rng.random() < 0.25
    area = shrink((box[0], box[3] - foot, box[2], box[3]), c.u(6), c.u(4))
    button(c, area, "Add to cart", primary=True, enabled=not sold_out, beside=link.text)


def sign_up(c: Canvas) -> None:
    """A web page with a form in its middle."""
    page = browser(c)
    wide = min(c.u(460), page[2] - c.u(40))
    left = (page[2] - wide) // 2
    box = (left, page[1] + c.u(16), left + wide, page[3] - c.u(12))
    c.fill(box, c.theme.surface, radius=c.u(c.theme.radius), outline=c.theme.line)
    form(c, shrink((box[0], box[1] + c.u(4), box[2], box[3] - c.u(52)), c.u(20), c.u(8)), fields=True)
    buttons(
        c,
        (box[0], box[3] - c.u(46), box[2] - c.u(20), box[3] - c.u(8)),
        "bottom line",
        ("sign_up", "cancel"),
        more=False,
    )


WEB: dict[str, Callable[[Canvas], None]] = {"shop": shop, "sign up": sign_up}
