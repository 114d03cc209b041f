"""Screens that a real headless Chromium draws: boxes are those of the pixels, a seed is a page, nothing is left."""

import json
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from rl.cli import main
from rollouts.screens import chromium
from rollouts.screens.chromium import Chromium, ChromiumError, chromium_screens
from rollouts.screens.element import inside, overlap
from rollouts.screens.html import LAYOUTS, draft
from rollouts.screens.instructions import instructions
from rollouts.screens.screen import PLATFORMS

try:
    chromium.find_chromium()
    MISSING = ""
except ChromiumError as error:
    MISSING = str(error)
browser_needed = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def browser():
    with Chromium() as running:
        yield running


def of_layout(layout):
    return next(page for page in (draft(seed, PLATFORMS) for seed in range(1000)) if page.screen.layout == layout)


def painted(page, style):
    return replace(page, html=page.html.replace("</style>", style + "</style>"))


@browser_needed
@pytest.mark.parametrize("layout", [name for layouts in LAYOUTS.values() for name in layouts])
def test_a_box_is_the_pixels_of_its_element(browser, layout):
    plain = of_layout(layout)
    drawn = browser.draw(plain)
    everything = plain.screen.covered + plain.screen.elements
    targets = [element for element in drawn.elements if element.is_target]
    assert len(targets) >= 2
    for target in targets[:: max(1, len(targets) // 3)]:
        number = next(
            n
            for n, e in enumerate(everything)
            if replace(e, box=target.box, series=target.series) == target and n >= len(plain.screen.covered)
        )
        rule = f'[data-i="{number}"]{{background:#f0f!important;border-color:#f0f!important;border-radius:0!important}}'
        shown = browser.draw(painted(plain, f'{rule}[data-i="{number}"] *{{visibility:hidden}}'))
        pixels = np.asarray(shown.render()).astype(int)
        rows, columns = np.nonzero(np.abs(pixels - [255, 0, 255]).sum(axis=2) < 8)
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(found, target.box)).max() <= 1


@browser_needed
def test_boxes_lie_in_the_screen_do_not_overlap_and_have_instructions(browser):
    for seed in range(24):
        screen = browser.draw(draft(seed, PLATFORMS))
        assert screen.render().size == (screen.width, screen.height)
        assert instructions(screen), seed
        for place, element in enumerate(screen.elements):
            assert inside(element.box, (0, 0, screen.width, screen.height))
            assert element.box[2] - element.box[0] >= 4 and element.box[3] - element.box[1] >= 4
            assert not any(overlap(element.box, other.box) for other in screen.elements[:place]), (seed, element)


@browser_needed
def test_what_is_hidden_cut_off_or_outside_is_no_target(browser):
    page = of_layout("html preferences")
    whole = browser.draw(page)
    for style in (
        "body::after{content:'';position:fixed;inset:0;background:#888}",
        "body{transform:translateX(100%)}",
        ".e{visibility:hidden}",
    ):
        assert whole.elements and not browser.draw(painted(page, style)).elements


@browser_needed
def test_a_page_can_fetch_nothing(browser, tmp_path):
    (tmp_path / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>')
    page = of_layout("html apps")
    for address in (f"file://{tmp_path}/a.svg", "http://localhost/a.svg"):
        browser.draw(replace(page, html=page.html.replace("</body>", f'<img id="x" src="{address}"></body>')))
        width = browser._call("Runtime.evaluate", {"expression": "document.getElementById('x').naturalWidth"})
        assert width["result"]["value"] == 0


@browser_needed
def test_the_same_seed_is_the_same_data_set_and_nothing_is_left_behind(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("a", "b"):
        options = ["--count", "5", "--seed", "4", "--renderer", "chromium", "--sheet", str(tmp_path / "sheet.png")]
        assert main(["screens", str(tmp_path / name), *options]) == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 6
    assert len({(tmp_path / name / "annotations.jsonl").read_bytes() for name in ("a", "b")}) == 1
    for file in files[1:]:
        a, b = (np.asarray(Image.open(tmp_path / name / file)).astype(int) for name in ("a", "b"))
        assert a.shape == b.shape and np.abs(a - b).mean() < 6, file  # text may be a pixel higher
    rows = [json.loads(line) for line in (tmp_path / "a" / "annotations.jsonl").read_text().splitlines()]
    assert len(rows) == 5 and all(row["layout"].startswith("html ") and row["split"] == "train" for row in rows)
    assert list((tmp_path / "tmp").iterdir()) == []
    profiles = str(tmp_path / "tmp")
    assert not [p for p in psutil.process_iter(["cmdline"]) if any(profiles in a for a in p.info["cmdline"] or ())]


@browser_needed
def test_splits_share_no_content():
    contents = {
        split: {screen.content for screen in islice(chromium_screens(0, split, ("mobile",)), 8)}
        for split in ("validation", "test")
    }
    assert all(len(found) == 8 for found in contents.values())
    assert not contents["validation"] & contents["test"]


@browser_needed
def test_a_browser_that_is_killed_or_silent_is_told():
    with Chromium() as running:
        psutil.Process(running._pid).kill()
        with pytest.raises(ChromiumError, match="ended before its work was done"):
            running.draw(draft(0, PLATFORMS))
        family, folder = list(running._family.values()), running._folder
    assert len(family) > 1 and not any(chromium._alive(process) for process in family)
    assert not folder.exists()


def fake(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "told"),
    [("echo no display >&2; exit 3", "ended before its work was done; it said: no display"), ("exec sleep 100", "no answer to")],
)  # fmt: skip
def test_a_program_that_is_no_browser_is_told_and_ended(tmp_path, monkeypatch, script, told):
    monkeypatch.setenv(chromium.VARIABLE, fake(tmp_path / "browser", script))
    before = set(psutil.Process().children())
    with pytest.raises(ChromiumError, match=told):
        Chromium(timeout_s=1.0)
    assert set(psutil.Process().children()) <= before


def test_without_chromium_the_command_says_what_was_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["screens", str(tmp_path / "set"), "--renderer", "chromium"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "looked for chromium, chromium-browser" in said and "--renderer pillow" in said
    assert not (tmp_path / "set").exists()
