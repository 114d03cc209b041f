"""ScreenSpot's three layouts: read as published, refused where a row is wrong, scored by section and element type."""

import base64
import io
import json
import re
import struct
import zlib

import pytest
from PIL import Image

from rewards.gui_click import ClickOutcome
from rl.cli import main
from rl.errors import UserError
from rl.gui.grounding import judge_predictions, scores
from rl.gui.page import picture, results_table, write_failures
from rollouts.images import MAX_PIXELS, image_size
from rollouts.rows import DatasetError
from rollouts.screens.dataset import export
from rollouts.screenspot import read_annotations

WEB = {
    "img_filename": "web_1.png",
    "bbox": [10, 20, 30, 40],
    "instruction": "view the details",
    "data_type": "text",
    "data_source": "shop",
}
PHONE = {
    "img_filename": "mobile_1.png",
    "bbox": [0, 0, 20, 10],
    "instruction": "go back",
    "data_type": "icon",
    "data_source": "ios",
}
PRO = {"img_filename": "vscode_mac/1.png", "bbox": [10, 20, 30, 40], "img_size": [200, 100], "instruction": "Refresh the file explorer.",
       "instruction_cn": "...", "ui_type": "icon", "group": "Dev", "application": "vscode", "platform": "macos", "id": "vscode_macos_0"}  # fmt: skip


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def screenshot(path, size=(200, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "white").save(path)
    return path


@pytest.fixture
def screenspot(tmp_path):
    """Two published files, of two rows (web) and one row (mobile)."""
    screenshot(tmp_path / "screenspot_imgs" / "web_1.png")
    screenshot(tmp_path / "screenspot_imgs" / "mobile_1.png", (100, 200))
    icon = {**WEB, "bbox": [100, 50, 100, 50], "data_type": "icon", "instruction": "next"}
    return [
        write(tmp_path / "screenspot_web_v2.json", [WEB, icon]),
        write(tmp_path / "screenspot_mobile_v2.json", [PHONE]),
    ]


def judged(files, predictions, tmp_path, **options):
    annotations = read_annotations(files)
    rows = judge_predictions(annotations, write(tmp_path / "predictions.jsonl", predictions), **options)
    return rows, scores(rows, annotations)


def test_screenspot_is_scored_by_platform_and_type_with_edges_inside(screenspot, tmp_path):
    # web text [10, 20, 40, 60]: its corner is a hit; web icon [100, 50, 200, 100]: missed; phone icon: centre of the box (10, 5)
    predictions = [{"completion": "click(40, 60)"}, {"point": [99, 60]}, {"box": [0, 0, 20, 10]}]
    rows, result = judged(screenspot, predictions, tmp_path, coordinate_space="pixels")
    assert [row.outcome for row in rows] == [ClickOutcome.HIT, ClickOutcome.MISS, ClickOutcome.HIT]
    assert {key: (cell.hits, cell.total) for key, cell in result.cells.items()} == {
        ("web", "text"): (1, 1), ("web", "icon"): (0, 1), ("mobile", "icon"): (1, 1)}  # fmt: skip
    assert (result.overall.hits, result.overall.total) == (2, 3)
    assert result.mean_of_cells == pytest.approx(2 / 3)
    assert result.together("web").share == 0.5


def test_the_mean_of_cells_weighs_cells_and_not_rows(screenspot, tmp_path):
    web = read_annotations(screenspot).targets[0]
    many = write(tmp_path / "screenspot_web.json", [WEB] * 3 + [{**WEB, "data_type": "icon"}])
    assert web.section == "web"
    predictions = [{"point": [15, 25]}] * 3 + [{"point": [0, 0]}]
    _, result = judged([many], predictions, tmp_path, coordinate_space="pixels")
    assert (result.overall.share, result.mean_of_cells) == (0.75, 0.5)


def test_the_platform_comes_from_the_file_or_else_from_the_source(tmp_path):
    screenshot(tmp_path / "images" / "web_1.png")
    rows = [{**WEB, "data_source": source} for source in ("ios", "windows", "gitlab", "macos", "android")]
    file = write(tmp_path / "all.json", rows)
    assert [t.section for t in read_annotations([file]).targets] == ["mobile", "desktop", "web", "desktop", "mobile"]


def test_screenspot_pro_is_scored_by_group_with_corners(tmp_path):
    screenshot(tmp_path / "images" / "vscode_mac" / "1.png")
    file = write(
        tmp_path / "annotations" / "vscode_macos.json",
        [PRO, {**PRO, "id": "vscode_macos_1", "group": "CAD", "ui_type": "text"}],
    )
    predictions = [{"id": "vscode_macos_1", "point": [0.5, 0.5]}, {"id": "vscode_macos_0", "point": [0.15, 0.4]}]
    rows, result = judged([file], predictions, tmp_path, coordinate_space="unit")
    # (0.15, 0.4) of 200 x 100 is (30, 40): the lower right corner. As [x, y, width, height] the box would reach (40, 60).
    assert {key: cell.hits for key, cell in result.cells.items()} == {("Dev", "icon"): 1, ("CAD", "text"): 0}
    assert result.is_pro and rows[0].click.point == (30, 40)
    _, outside = judged(
        [file], [{**predictions[0]}, {**predictions[1], "point": [0.2, 0.5]}], tmp_path, coordinate_space="unit"
    )
    assert outside.overall.hits == 0


def test_unreadable_and_double_clicks_are_wrong_and_counted(screenspot, tmp_path):
    predictions = [{"completion": "I cannot see it"}, {"completion": "click(1, 1) click(150, 75)"}, {"point": None}]
    rows, result = judged(screenspot, predictions, tmp_path, coordinate_space="pixels")
    assert (result.num_unreadable, result.overall.hits) == (3, 0)
    assert rows[0].click is None


def test_pixels_of_a_resized_image_are_scaled(screenspot, tmp_path):
    predictions = [
        {"point": [50, 80], "input_size": [400, 200]},
        {"point": [300, 150]},
        {"point": [10, 5], "input_size": [100, 200]},
    ]
    rows, _ = judged(screenspot, predictions, tmp_path, coordinate_space="pixels", input_size=[400, 200])
    assert [row.click.point for row in rows] == [(25, 40), (150, 75), (10, 5)]
    assert all(row.is_hit for row in rows)


# -- mistakes ---------------------------------------------------------------------------------------------------------


def huge_png(path, width, height):
    """A valid head that claims a size, without the pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def damage(path, how):
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        noise = Image.effect_noise((200, 100), 80).convert("RGB")
        noise.save(path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif how == "text":
        path.write_text("<html>404</html>")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        huge_png(path, *how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "there is no such file"),
        ("truncated", "damaged or truncated"),
        ("text", "not an image"),
        ("empty", "not an image"),
        ((12_000, 10_000), "12000 x 10000 pixels; at most 100,000,000"),
        ((60_000, 60_000), "an enormous image"),
    ],
)
def test_a_bad_image_is_one_message_with_file_and_row(screenspot, tmp_path, capsys, how, message):
    damage(tmp_path / "screenspot_imgs" / "web_1.png", how)
    predictions = write(tmp_path / "predictions.jsonl", [{"point": [1, 1]}] * 3)
    assert main(["grounding", *screenspot, "--predictions", predictions, "--coordinate-space", "pixels"]) == 2
    error = capsys.readouterr().err
    assert f"{screenspot[0]}: row 1: " in error and message in error and "web_1.png" in error
    assert len(error.strip().splitlines()) == 1 and "Traceback" not in error


@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ([190, 20, 30, 40], r"is not inside the image of 200 x 100"),
        ([-1, 20, 30, 40], r"is not inside the image of 200 x 100"),
        ([40, 60, -30, 40], r"is inverted or empty: as corners it is \[40.0, 60.0, 10.0, 100.0\]"),
        ([40, 60, 0, 5], r"is inverted or empty"),
        ([0.1, 0.2, 0.3, 0.4], r"looks like shares of the screen"),
        ([10, 20, 30], r"does not have the layout screenspot"),
        (["a", 1, 2, 3], r"does not have the layout screenspot"),
        ([float("nan"), 20, 30, 40], r"is inverted or empty"),
    ],
)
def test_a_bad_box_is_named_with_file_and_row(screenspot, tmp_path, bbox, message):
    file = write(tmp_path / "screenspot_web.json", [WEB, {**WEB, "bbox": bbox}])
    with pytest.raises(DatasetError, match=rf"^{re.escape(file)}: row 2:? .*{message}"):
        read_annotations([file])


def test_bad_rows_can_be_left_out_and_are_counted(screenspot, tmp_path, capsys):
    good = {**WEB, "instruction": "other"}
    file = write(tmp_path / "screenspot_web.json", [{**WEB, "bbox": [500, 0, 1, 1]}, good])
    by_name = [
        {"img_filename": "web_1.png", "instruction": text, "point": [15, 25]} for text in ("view the details", "other")
    ]
    predictions = write(tmp_path / "predictions.jsonl", by_name)
    arguments = ["grounding", file, "--predictions", predictions, "--coordinate-space", "pixels", "--skip-bad-rows"]
    assert main([*arguments, "--json", str(tmp_path / "scores.json")]) == 0
    output = capsys.readouterr().out
    assert "1 bad annotation rows left out" in output and "row 1" in output
    written = json.loads((tmp_path / "scores.json").read_text())
    assert (written["overall"]["hits"], written["overall"]["total"], written["refused_rows"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"point": [1, 1]}] * 3, {}, "row 1: what do the numbers mean"),
        (
            [{"point": [1, 1], "coordinate_space": "promille"}] * 3,
            {},
            "'promille' is unknown; allowed are pixels, unit",
        ),
        ([{"point": [1, 1]}] * 2, {"coordinate_space": "unit"}, "2 predictions for 3 annotations"),
        ([{"answer": "x"}] * 3, {"coordinate_space": "unit"}, "row 1: needs one of completion, point, box, has none"),
        ([{"point": [1, 1], "box": [1, 1, 2, 2]}] * 3, {"coordinate_space": "unit"}, "has point, box"),
        ([{"completion": [1, 2]}] * 3, {"coordinate_space": "unit"}, "row 1: completion is the model's text, not list"),
        ([{"point": [1, 1, 1]}] * 3, {"coordinate_space": "unit"}, r"row 1: point \[1, 1, 1\] is not \[x, y\]"),
        ([{"box": "1 2 3"}] * 3, {"coordinate_space": "unit"}, r"row 1: box '1 2 3' is not \[x1, y1, x2, y2\]"),
        ([{"point": [1, 1], "input_size": [0, 5]}] * 3, {"coordinate_space": "pixels"}, "row 1: input_size"),
        (
            [{"point": [1, 1], "img_filename": "no.png", "instruction": "x"}],
            {"coordinate_space": "unit"},
            "no prediction for .*row 1",
        ),
    ],
)
def test_a_mistake_in_the_predictions_is_named(screenspot, tmp_path, rows, options, message):
    with pytest.raises(UserError, match=message):
        judged(screenspot, rows, tmp_path, **options)


def test_a_size_that_the_image_does_not_have_is_refused(tmp_path):
    screenshot(tmp_path / "images" / "vscode_mac" / "1.png", (300, 100))
    file = write(tmp_path / "annotations" / "x.json", [PRO])
    with pytest.raises(DatasetError, match=r"row 1: img_size is \[200, 100\], but .*1\.png has 300 x 100 pixels"):
        read_annotations([file])


def test_an_image_at_the_limit_is_read_and_one_pixel_row_more_is_not(tmp_path):
    huge_png(tmp_path / "a.png", 10_000, MAX_PIXELS // 10_000)
    assert image_size(tmp_path / "a.png") == (10_000, 10_000)
    huge_png(tmp_path / "b.png", 10_000, MAX_PIXELS // 10_000 + 1)
    with pytest.raises(DatasetError, match="at most"):
        image_size(tmp_path / "b.png")


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_target_and_click_where_they_are(screenspot, tmp_path):
    rows, _ = judged(
        screenspot,
        [{"point": [100, 80]}, {"completion": "<script>alert(1)</script>"}, {"point": [5, 5]}],
        tmp_path,
        coordinate_space="pixels",
    )
    image = picture(rows[0])
    assert image.size == (200, 100)
    assert image.getpixel((100, 80)) == (0, 0x60, 0xFF)  # the click
    assert image.getpixel((25, 18)) == (0xE0, 0, 0x30)  # two pixels above the target [10, 20, 40, 60]
    assert image.getpixel((25, 40)) == (255, 255, 255)  # inside the target nothing is hidden
    page = tmp_path / "misses.html"
    assert write_failures(page, rows) == 2
    text = page.read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", text)
    assert [Image.open(io.BytesIO(base64.b64decode(data))).size for data in pictures] == [(200, 100)] * 2
    assert "1 of 3 rows hit; 2 of 2 misses" in text


def test_the_table_has_a_line_for_each_section_and_a_dash_where_there_is_nothing(screenspot, tmp_path):
    _, result = judged(screenspot, [{"point": [15, 25]}] * 3, tmp_path, coordinate_space="pixels")
    table = results_table(result)
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == ["web", "mobile", "all rows"]
    assert columns[1] == ["100.0", "-", "100.0"]
    assert columns[2] == ["0.0", "0.0", "0.0"]
    assert columns[4] == ["2", "1", "3"]


def test_the_truth_about_rendered_screens_scores_100_and_a_shifted_one_0(tmp_path, capsys):
    export(tmp_path / "set", count=5, per_screen=2)
    file = str(tmp_path / "set" / "annotations.jsonl")
    targets = read_annotations([file]).targets
    for shift, expected in ((0, "100.0%"), (10_000, "0.0%")):
        centres = [{"point": [(t.box[0] + t.box[2]) / 2 + shift, (t.box[1] + t.box[3]) / 2]} for t in targets]
        predictions = write(tmp_path / "p.jsonl", centres)
        page = ["--failures", str(tmp_path / "misses.html"), "--max-failures", "3"]
        assert main(["grounding", file, "--predictions", predictions, "--coordinate-space", "pixels", *page]) == 0
        assert f"all rows {expected}" in capsys.readouterr().out
