"""Images of rows in all the usual layouts, and what is wrong with them, by file and row."""

import base64
import io
import json
import zlib

import pytest
from fakes import png
from PIL import Image

from rl.preflight import check
from rl.recipe import Recipe
from rollouts.images import data_url, open_image, read_image
from rollouts.prompts import row_content
from rollouts.row_images import check_images, with_images
from rollouts.rows import DatasetError
from rollouts.trajectory import images_of, prompt_id_of

PLACE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(png("red"))
    return tmp_path


def in_a_place(image):
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "what?"}]}]


def layouts(folder):
    picture = Image.open(folder / "a.png")
    url = "data:image/png;base64," + base64.b64encode(png("red")).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    return {
        "path": {"prompt": "what?", "image": "a.png"},
        "absolute": {"prompt": "what?", "image": str(folder / "a.png")},
        "list": {"prompt": "what?", "images": ["a.png"]},
        "bytes": {"prompt": "what?", "image": {"bytes": png("red"), "path": None}},
        "pillow": {"prompt": PLACE, "images": [picture]},
        "place": {"prompt": PLACE, "image": "a.png"},
        "turn": {"prompt": [{"role": "user", "content": "what?"}], "image": "a.png"},
        "own": {"prompt": in_a_place("a.png")},
        "openai": {"prompt": [{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}]},
    }


def test_every_layout_means_the_same_prompt(folder):
    for name, row in layouts(folder).items():
        (found,) = with_images([{**row, "solution": "1"}], str(folder / "rows.jsonl"))
        assert found.keys() == {"prompt", "solution"}, name
        content = row_content(found, "prompt", "x")
        assert [part["type"] for part in content[0]["content"]] == ["image", "text"], name
        assert content[0]["content"][1]["text"] == "what?", name
        (source,) = images_of(content)
        assert open_image(read_image(source)).getpixel((5, 5)) == (255, 0, 0), name


def test_the_same_picture_is_the_same_problem_by_whatever_name(folder):
    (folder / "copy.png").write_bytes(png("red"))
    (folder / "other.png").write_bytes(png("blue"))
    names = ["a.png", "copy.png", "other.png"]
    rows = with_images([{"prompt": "what?", "image": name} for name in names], str(folder / "rows.jsonl"))
    ids = [prompt_id_of(row_content(row, "prompt", "x")) for row in rows]
    assert ids[0] == ids[1] != ids[2]


def test_rows_of_text_stay_as_they_are(folder):
    rows = [{"prompt": "1+1", "solution": "2"}, {"prompt": [{"role": "user", "content": "1+1"}]}]
    assert with_images(rows, "rows.jsonl") == rows


def enormous(path):
    """A PNG of a few bytes whose head claims 200,000 x 200,000 pixels."""
    Image.new("RGB", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (200_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.png", "there is no such image"),
        ("truncated.png", "damaged or truncated"),
        ("text.png", "not an image"),
        ("enormous.png", "pixels are read"),
        ("https://example.org/a.png", "not fetched from the network"),
    ],
)
def test_a_bad_image_is_one_message_with_file_and_row_before_training(folder, name, told):
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(noise, "PNG")
    (folder / "truncated.png").write_bytes(noise.getvalue()[:900])
    (folder / "text.png").write_text("no picture")
    enormous(folder / "enormous.png")
    rows = [{"prompt": "what?", "solution": "1", "image": image} for image in ("a.png", name)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "model": {"path": str(folder)},
            "engine": {"max_model_len": 64, "kind": "hf"},
            "stages": {
                "rlvr": {
                    "kind": "rl",
                    "iterations": 1,
                    "prompts": [{"source": {"dataset": str(folder / "rows.jsonl")}}],
                    "prompts_per_iteration": 1,
                    "samples_per_prompt": 2,
                    "sampling": {"max_tokens": 8},
                    "rewards": [{"fn": "math"}],
                    "algorithm": {"advantage": "grpo"},
                    "policy": {"learning_rate": 1e-3},
                }
            },
        }
    )
    problems = [problem for problem in check(recipe, on_this_machine=False) if "rows.jsonl" in problem]
    assert len(problems) == 1
    assert "row 2" in problems[0] and told in problems[0]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": PLACE}, "more places for images"),
        ({"prompt": PLACE, "images": ["a.png", "a.png"]}, "1 more images"),
        ({"prompt": "what?", "image": 7}, "is not an image"),
    ],
)
def test_places_and_images_must_match(folder, row, told):
    with pytest.raises(DatasetError, match=told) as error:
        with_images([{"prompt": "text"}, row], str(folder / "rows.jsonl"))
    assert "rows.jsonl: row 2" in str(error.value)


def test_images_that_are_not_base64_are_refused(folder):
    rows = [{"prompt": in_a_place("data:image/png;base64,%%%")}]
    with pytest.raises(DatasetError, match="row 1: .*not a data URL"):
        check_images(with_images(rows, "rows.jsonl"), "rows.jsonl")
    assert data_url(b"abc") == "data:image/png;base64,YWJj"
