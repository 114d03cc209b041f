"""Screens: the truth about them is true, instructions have one target, and a seed gives the same bytes everywhere."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rl.cli import main
from rollouts.layouts import converted
from rollouts.rows import DatasetError, read_rows
from rollouts.screens.concepts import CONCEPTS
from rollouts.screens.dataset import export, screens
from rollouts.screens.element import Element, Kind
from rollouts.screens.icons import ICONS, icon_mask
from rollouts.screens.instructions import KINDS, ORDINALS, hard_negatives, instructions, pick
from rollouts.screens.screen import LAYOUTS, make_screen

ROOT = Path(__file__).parent.parent
SEEDS = st.integers(min_value=0, max_value=2**40)
PROPERTY = settings(max_examples=150, deadline=None)


def contains(outer, inner):
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


@given(SEEDS)
@PROPERTY
def test_boxes_lie_in_the_screen_hold_their_text_and_icon_and_do_not_overlap(seed):
    screen = make_screen(seed)
    for element in screen.elements:
        x1, y1, x2, y2 = element.box
        assert 0 <= x1 < x2 <= screen.width and 0 <= y1 < y2 <= screen.height, element
        for part in (element.text_box, element.icon_box):
            assert part is None or contains(element.box, part), element
        assert bool(element.text) == (element.text_box is not None)
        assert bool(element.icon) == (element.icon_box is not None)
    for i, a in enumerate(screen.elements):
        for b in screen.elements[:i]:
            apart = a.box[2] <= b.box[0] or b.box[2] <= a.box[0] or a.box[3] <= b.box[1] or b.box[3] <= a.box[1]
            assert apart, (a, b)


@given(SEEDS)
@PROPERTY
def test_a_series_is_numbered_in_the_order_in_which_it_is_seen(seed):
    groups: dict[str, list[Element]] = {}
    for element in make_screen(seed).elements:
        if element.series is not None:
            groups.setdefault(element.group, []).append(element)
    for members in groups.values():
        (axis,) = {e.series.axis for e in members}
        members.sort(key=lambda e: e.box[0 if axis == "x" else 1])
        places = [e.series.index for e in members]
        assert places == sorted(set(places))
        if any(e.clickable for e in members):  # no dialog has taken some of them away
            assert places == list(range(members[0].series.length))


# -- instructions: the oracle reads the English, and knows nothing of how it was written ------------------------------


def told(pattern, text):
    return re.fullmatch(pattern, text)


def resolve(text, seen):
    """The elements among those seen that an instruction can mean."""
    tail = r'(?: in the (?P<part>[^"]+)| for "(?P<owner>.+)"|(?P<lit> that is not greyed out))?\.'
    if match := told(r"I want to (?P<want>.+)", text):
        keys = [k for k, c in CONCEPTS.items() if told(re.escape(f"I want to {c.purpose}") + tail, text)]
        keys.sort(key=lambda k: -len(CONCEPTS[k].purpose))
        match = told(re.escape(f"I want to {CONCEPTS[keys[0]].purpose}") + tail, text)
        found = [e for e in seen if e.concept == keys[0]]
    elif match := told(r'Click the (?:field|switch|drop-down list) labelled "(?P<label>.+)"\.', text):
        return [e for e in seen if e.beside == match["label"] and e.kind in ("field", "switch", "drop-down list")]
    elif match := told(r'Click the (?P<noun>.+) directly (?P<way>to the right of|below) "(?P<text>.+)"\.', text):
        (anchor,) = [e for e in seen if e.text == match["text"]]
        side = 0 if match["way"] == "to the right of" else 1
        after = [e for e in seen if e.group == anchor.group and e.series and e.box[side] >= anchor.box[side + 2]]
        return sorted(after, key=lambda e: e.box[side])[:1]
    elif match := told(r"Click the (?P<nth>\w+) (?P<noun>.+) from the (?P<side>\w+) in the (?P<part>.+)\.", text):
        axis = 0 if match["side"] in ("left", "right") else 1
        row = sorted((e for e in seen if e.group == match["part"] and e.series), key=lambda e: e.box[axis])
        if match["side"] in ("right", "bottom"):
            row.reverse()
        assert match["noun"] == "control" or {str(e.kind) for e in row} == {match["noun"]}
        return [row[ORDINALS.index(match["nth"])]]
    elif match := told(r'Click "(?P<text>.+?)"' + tail, text):
        found = [e for e in seen if e.text.casefold() == match["text"].casefold()]
    else:
        match = told(r"Click the (?P<icon>.+?) icon" + tail, text)
        assert match, text
        found = [e for e in seen if e.icon == match["icon"]]
    if match["part"]:
        found = [e for e in found if e.group == match["part"]]
    if match["owner"]:
        found = [e for e in found if e.beside == match["owner"]]
    if match["lit"]:
        found = [e for e in found if e.enabled]
    return found


@given(SEEDS)
@PROPERTY
def test_an_instruction_read_by_another_reader_means_its_target_and_nothing_else(seed):
    screen = make_screen(seed)
    for instruction in instructions(screen):
        target = screen.elements[instruction.target]
        assert target.clickable and target.enabled and target.kind is not Kind.LABEL
        seen = screen.elements + screen.covered if "from the" not in instruction.text else screen.elements
        assert resolve(instruction.text, seen) == [target], instruction.text


@given(SEEDS)
@PROPERTY
def test_hard_negatives_share_something_with_the_target_and_are_never_it(seed):
    screen = make_screen(seed)
    for instruction in pick(screen, 3, random.Random(seed)):
        target = screen.elements[instruction.target]
        assert instruction.target not in instruction.hard_negatives
        assert instruction.hard_negatives == hard_negatives(screen, instruction.target)
        for index in instruction.hard_negatives:
            other = screen.elements[index]
            names = [e.text or e.beside for e in (target, other)]
            same_start = all(names) and re.split(r"[ .]", names[0])[0].lower() == re.split(r"[ .]", names[1])[0].lower()
            assert same_start or target.icon == other.icon or target.concept == other.concept


def test_every_kind_of_instruction_layout_and_hard_negative_occurs():
    kinds, layouts, themes, twins, lookalikes, similar = set(), set(), set(), 0, 0, 0
    for seed in range(400):
        screen = make_screen(seed)
        layouts.add(screen.layout)
        themes.add(screen.theme)
        for instruction in pick(screen, 2, random.Random(seed)):
            kinds.add(instruction.kind)
            target = screen.elements[instruction.target]
            others = [screen.elements[index] for index in instruction.hard_negatives]
            twins += any(o.text == target.text and not o.enabled for o in others if o.text)
            lookalikes += any(o.icon == target.icon and o.text != target.text for o in others if o.icon)
            similar += any(o.text != target.text and not o.icon for o in others if o.text and target.text)
    assert kinds == set(KINDS)
    assert layouts == {name for group in LAYOUTS.values() for name in group}
    assert len(themes) == 6
    assert min(twins, lookalikes, similar) >= 10, (twins, lookalikes, similar)


def test_a_text_that_is_seen_twice_is_never_asked_for_alone():
    repeated = qualified = 0
    for seed in range(150):
        screen = make_screen(seed)
        seen = [e.text for e in screen.elements + screen.covered if e.text]
        texts = {i.text for i in instructions(screen) if i.kind == "text"}
        for text in {t for t in seen if seen.count(t) > 1}:
            repeated += 1
            assert f'Click "{text}".' not in texts
            qualified += any(t.startswith(f'Click "{text}" ') for t in texts)
    assert repeated > 30 and qualified > 10


# -- pixels -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    ours = [hashlib.sha256(make_screen(seed).png()).hexdigest() for seed in range(6)]
    program = (
        "import hashlib; from rollouts.screens.screen import make_screen\n"
        "print(*[hashlib.sha256(make_screen(seed).png()).hexdigest() for seed in reversed(range(6))])"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True, env=env
    )
    assert output.stdout.split()[::-1] == ours
    assert len(set(ours)) == 6


@given(SEEDS)
@settings(max_examples=12, deadline=None)
@example(3)
@example(643)  # tiles in the colour of the bar
def test_every_text_and_icon_is_there_in_pixels(seed):
    screen = make_screen(seed)
    pixels = np.asarray(screen.render()).astype(int)
    assert pixels.shape == (screen.height, screen.width, 3)
    for element in screen.elements:
        for part in (element.text_box, element.icon_box):
            if part is not None:
                x1, y1, x2, y2 = part
                crop = pixels[y1:y2, x1:x2]
                contrast = (crop.max(axis=(0, 1)) - crop.min(axis=(0, 1))).max()
                assert contrast >= 30, (contrast, element)


def test_no_two_icons_look_alike():
    masks = {name: np.asarray(icon_mask(name, 24)) / 255 for name in ICONS}
    for a in ICONS:
        for b in ICONS:
            if a < b:
                assert np.abs(masks[a] - masks[b]).mean() > 0.02, (a, b)


def test_every_concept_has_an_icon_that_exists_and_a_purpose_of_its_own():
    assert {c.icon for c in CONCEPTS.values() if c.icon} <= set(ICONS)
    assert len({c.purpose for c in CONCEPTS.values()}) == len(CONCEPTS)
    assert len({c.icon for c in CONCEPTS.values() if c.icon}) == sum(bool(c.icon) for c in CONCEPTS.values())


# -- splits and export ------------------------------------------------------------------------------------------------


def test_splits_share_no_content_and_repeat_none():
    contents = {}
    for split in ("train", "validation", "test"):
        stream = screens(0, split)
        contents[split] = [next(stream).content for _ in range(60)]
    everything = sum(contents.values(), [])
    assert len(set(everything)) == 180


def test_the_split_depends_on_the_content_alone():
    screen = make_screen(1)
    twins = [replace(screen, seed=seed, canvas=make_screen(seed).canvas) for seed in range(10)]  # other sizes and looks
    assert {twin.split for twin in twins} == {screen.split}
    renamed = replace(screen, elements=(*screen.elements[:-1], replace(screen.elements[-1], text="other")))
    assert renamed.content != screen.content


def test_an_exported_set_is_read_as_screenspot_with_the_boxes_of_its_targets(tmp_path):
    out = tmp_path / "set"
    exported = export(out, count=6, seed=3, split="test", per_screen=2)
    rows = read_rows(str(out / "annotations.jsonl"))
    assert len(rows) == exported.num_instructions
    stream = screens(3, "test")
    by_name = {f"{number:06d}.png": next(stream) for number in range(6)}
    for row, ours in zip(rows, converted(rows, str(out / "annotations.jsonl"))):
        screen = by_name[row["img_filename"]]
        boxes = [list(e.box) for e in screen.elements if e.is_target]
        assert ours["target_box"] in boxes
        assert ours["image_size"] == [screen.width, screen.height]
        with Image.open(ours["image"]) as image:
            assert image.size == (screen.width, screen.height)
        assert row["split"] == "test"


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(DatasetError, match="not an empty folder"):
        export(tmp_path, count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_command_writes_the_set_and_a_sheet(tmp_path, capsys):
    out, sheet = tmp_path / "set", tmp_path / "sheet.png"
    arguments = ["screens", str(out), "--count", "4", "--seed", "2", "--platform", "mobile", "--sheet", str(sheet)]
    assert main(arguments) == 0
    assert "wrote 4 screens with 4 instructions" in capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "annotations.jsonl").read_text().splitlines()]
    assert {row["platform"] for row in rows} == {"mobile"}
    with Image.open(sheet) as image:
        assert image.width == 4 * 460
    assert main(arguments) == 2
    assert "not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sheet.xyz", "no/such/folder/sheet.png"])
def test_a_sheet_that_cannot_be_written_is_noticed_before_anything_is_drawn(tmp_path, capsys, name):
    assert main(["screens", str(tmp_path / "set"), "--count", "1", "--sheet", str(tmp_path / name)]) == 2
    assert "--sheet takes the name of a .png file" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
