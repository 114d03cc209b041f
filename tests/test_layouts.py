"""Published data files as rows with prompt and the columns that rewards take."""

import json

import pytest
from PIL import Image

from rewards import load_reward
from rollouts.layouts import converted
from rollouts.rows import DatasetError, read_rows


def one(row, name="data.jsonl", layout="auto"):
    return converted([row], name, layout)[0]


def right(row, completion):
    """What the math reward says of an answer to the converted row."""
    return load_reward("math")([completion], solution=[row["solution"]])


def test_gsm8k_takes_what_follows_the_hashes():
    row = one({"question": "Eggs?", "answer": "She sells 9 <<16-7=9>>.\n#### 1,018"})
    assert (row["prompt"], row["solution"]) == ("Eggs?", "1018")
    assert right(row, r"\boxed{1018}") == [1.0]


def test_math_500_takes_the_answer_and_not_the_worked_solution():
    row = one({"problem": "Half?", "solution": "Because \\boxed{7}", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 1, "unique_id": "x"})
    assert row == {"prompt": "Half?", "solution": "\\frac{1}{2}", "subject": "Algebra", "level": 1, "unique_id": "x"}
    assert right(row, "0.5") == [1.0]


@pytest.mark.parametrize("names", [("Problem", "Answer"), ("problem", "answer"), ("question", "answer")])
def test_aime_has_integers_under_several_names(names):
    problem, answer = names
    row = one({"ID": "2024-I-1", problem: "Find it.", answer: 204})
    assert (row["prompt"], row["solution"], row["id"]) == ("Find it.", "204", "2024-I-1")


def test_pacore_train_keeps_conversation_responses_and_reference():
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]
    row = one({"conversation": turns, "responses": ["x"], "ground_truth": {"answer": "3"}})
    assert row["prompt"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert (row["responses"], row["solution"]) == (["x"], "3")
    assert one({"messages": [{"role": "user", "content": "a"}], "ground_truth": {"answer": "B"}})["solution"] == "B"


def test_screenspot_boxes_are_corners_in_pixels_of_the_screenshot(tmp_path):
    (tmp_path / "screenspot_imgs").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "screenspot_imgs" / "a.png")
    row = {"img_filename": "a.png", "bbox": [10, 20, 30, 40], "instruction": "close", "data_type": "icon", "data_source": "ios"}
    got = one(row, str(tmp_path / "screenspot_mobile.json"))
    assert got["target_box"] == [10, 20, 40, 60]
    assert got["image_size"] == [200, 100]
    assert (got["prompt"], got["data_type"]) == ("close", "icon")
    reward = load_reward("gui_click")
    columns = {"target_box": [got["target_box"]] * 2, "image_size": [got["image_size"]] * 2}
    assert reward(["click(39, 59)", "click(45, 59)"], **columns) == [1.0, -1.0]


def test_screenspot_pro_has_corners_and_the_size_already():
    got = one({"img_filename": "b/a.png", "bbox": [10, 20, 30, 40], "instruction": "x", "img_size": [3840, 2160], "ui_type": "text"}, "f/x.json")
    assert (got["target_box"], got["image_size"], got["image"]) == ([10, 20, 30, 40], [3840, 2160], "f/b/a.png")


def test_a_screenshot_that_is_not_there_is_named():
    with pytest.raises(DatasetError, match=r"x\.json: row 1: .*a\.png.*there is no such file"):
        one({"img_filename": "a.png", "bbox": [1, 2, 3, 4], "instruction": "x"}, "no/x.json")


def test_rows_of_no_known_layout_and_rows_with_a_prompt_stay_as_they_are():
    for row in ({"a": 1}, {"prompt": "p", "problem": "x", "answer": "y"}):
        assert one(row) == row


def test_a_wrong_layout_is_refused():
    with pytest.raises(DatasetError, match="no layout 'aime'; there are: auto, pacore-train"):
        one({}, layout="aime")
    with pytest.raises(DatasetError, match="row 1 does not have the layout gsm8k"):
        one({"a": 1}, layout="gsm8k")


def test_json_lists_and_parquet_and_folders_are_read(tmp_path):
    import datasets

    rows = [{"question": "1+1?", "answer": "2"}, {"question": "1+2?", "answer": "3"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("a.json", "b.parquet", "folder"):
        got = converted(read_rows(str(tmp_path / name), split="test"), name)
        assert got == [{"prompt": "1+1?", "solution": "2"}, {"prompt": "1+2?", "solution": "3"}]
    (tmp_path / "bad.json").write_text('{"a": 1}')
    with pytest.raises(DatasetError, match=r"bad\.json: a \.json file holds one list of objects"):
        read_rows(str(tmp_path / "bad.json"))


def test_a_recipe_names_the_layout_of_its_dataset(tmp_path):
    from rl.recipe.sources import DatasetSource
    from rl.sources import dataset_rows

    (tmp_path / "gsm.jsonl").write_text('{"question": "Eggs?", "answer": "Nine.\\n#### 9"}\n')
    source = DatasetSource(dataset=str(tmp_path / "gsm.jsonl"), layout="gsm8k", chat=True)
    assert dataset_rows(source, "problem") == [{"prompt": [{"role": "user", "content": "Eggs?"}], "solution": "9"}]
    with pytest.raises(DatasetError, match="has no column 'prompt'"):
        dataset_rows(source.model_copy(update={"layout": "none"}), "problem")


def test_a_dataset_with_several_configurations_is_asked_for_one(tmp_path):
    from rl.recipe.sources import DatasetSource
    from rl.sources import dataset_rows

    for name, answer in (("main", 2), ("socratic", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl").write_text(json.dumps({"question": "1+1?", "answer": f"#### {answer}"}) + "\n")
    files = "".join(f"- config_name: {name}\n  data_files: {name}/test.jsonl\n" for name in ("main", "socratic"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    source = DatasetSource(dataset=str(tmp_path), config="socratic", layout="gsm8k")
    assert dataset_rows(source, "problem") == [{"prompt": "1+1?", "solution": "3"}]
    with pytest.raises(DatasetError, match=r"available configs: \['main', 'socratic'\]"):
        read_rows(str(tmp_path))
    with pytest.raises(DatasetError, match="of config 'other'"):
        read_rows(str(tmp_path), config="other")
    with pytest.raises(DatasetError, match="a file has no configurations, config is 'main'"):
        read_rows(str(tmp_path / "main" / "test.jsonl"), config="main")
