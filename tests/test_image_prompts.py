"""Images stay where prompts are rewritten: synthesis prompts, caches, appended text, published layouts."""

import json

import numpy as np
import pytest
from fakes import picture_prompt, png, tiny_vision_model

from rl.inference.evaluation_data import with_appended
from rl.recipe.sources import DatasetSource
from rl.sources import SourceOpener, dataset_rows
from rollouts.collect import tokenized
from rollouts.message_cache import CachedMessage, CachedProblem, from_json, to_json
from rollouts.pacore import SYNTHESIS_TEMPLATE, PacorePrompts, synthesis_prompt
from rollouts.processing import load_processing
from rollouts.prompts import MixedSource, row_content, to_prompt
from rollouts.rows import DatasetError
from rollouts.trajectory import images_of, prompt_id_of, text_of

EARLIER = [
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "first"}]},
    {"role": "assistant", "content": "one"},
]
LAST = {
    "role": "user",
    "content": [
        {"type": "image", "image": "b.png"},
        {"type": "image", "image": "c.png"},
        {"type": "text", "text": "How many cats?"},
    ],
}


def test_a_synthesis_prompt_keeps_every_image_and_replaces_the_last_text_alone():
    found = synthesis_prompt([*EARLIER, LAST], ["two", "three"], template=SYNTHESIS_TEMPLATE)
    assert found[:2] == EARLIER
    assert images_of(found) == ["a.png", "b.png", "c.png"]
    text = text_of(found[2])
    assert "How many cats?" in text and "two" in text and "three" in text
    assert [part["type"] for part in found[2]["content"]] == ["image", "image", "text"]


def test_images_go_through_the_message_cache():
    messages = tuple(CachedMessage(text, 1.0, True, 3) for text in ("two", "three"))
    problem = CachedProblem(prompt_id_of([LAST]), [LAST], {"solution": "2"}, messages)
    again = from_json(json.loads(to_json(problem)))
    assert again == problem
    row = PacorePrompts([again], 1, 2, SYNTHESIS_TEMPLATE, 0).row(0)
    assert images_of(row_content(row, "prompt", "x")) == ["b.png", "c.png"]


def test_appended_text_comes_last():
    (turn,) = with_appended([LAST], " Answer in one word.")
    assert images_of([turn]) == ["b.png", "c.png"]
    assert text_of(turn) == "How many cats? Answer in one word."


def test_screenspot_annotations_become_prompts_with_their_screenshot(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "s.png").write_bytes(png("red", size=(100, 50)))
    row = {"img_filename": "s.png", "bbox": [10, 5, 20, 10], "instruction": "Click OK", "data_type": "text"}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    source = DatasetSource(dataset=str(tmp_path / "rows.json"), layout="screenspot", chat=True, system="Click.")
    (found,) = dataset_rows(source, "problem")
    assert images_of(row_content(found, "prompt", "x")) == [str(tmp_path / "images" / "s.png")]
    assert found["prompt"][0] == {"role": "system", "content": "Click."}
    assert found["target_box"] == [10, 5, 30, 15]


def test_a_parquet_file_holds_images_as_datasets_writes_them(tmp_path):
    import datasets

    rows = {"prompt": ["what?"], "image": [{"bytes": png("red"), "path": None}]}
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    data.to_parquet(tmp_path / "rows.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    data.to_parquet(folder / "train.parquet")
    for name in ("rows.parquet", "folder"):
        opener = SourceOpener(lambda stage: tmp_path)
        row = opener.rows(DatasetSource(dataset=str(tmp_path / name)), "problem", seed=0).row(0)
        (image,) = images_of(row_content(row, "prompt", "x"))
        assert image.startswith("data:image/png;base64,")


def test_parts_of_another_kind_are_refused():
    turn = {"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}
    with pytest.raises(DatasetError, match="parts that are text or images"):
        row_content({"prompt": [turn]}, "prompt", "x")


def test_the_model_sees_the_images_of_a_synthesis_prompt(tmp_path):
    processing = load_processing(tiny_vision_model(tmp_path / "model"))
    asked = picture_prompt("red", "blue", text="how many?")
    messages = tuple(CachedMessage(text, 1.0, True, 3) for text in ("two", "three"))
    problem = CachedProblem(asked.prompt_id, asked.content, {"solution": "2"}, messages)
    source = MixedSource(PacorePrompts([problem], 1, 2, SYNTHESIS_TEMPLATE, 0), 1.0, "synthesis")
    alone, synthesis = (tokenized(processing, one) for one in (asked, to_prompt(source, source.rows.row(0))))
    assert len(synthesis.token_ids) > len(alone.token_ids)
    pixels = [prompt.model_inputs.per_image["pixel_values"] for prompt in (alone, synthesis)]
    assert pixels[0].shape[1] == 2
    np.testing.assert_array_equal(*pixels)
