"""TRL's preference formats become pairs with a prompt, and no prompt is on two sides of the split."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.cli import main
from rl.errors import RunFailed
from rl.recipe import PreferenceModelStage
from rl.reward_model.pairs import Pair, read_pair, split_pairs
from rollouts.prompts import ShuffledRows
from rollouts.rows import DatasetError, read_rows
from rollouts.trajectory import prompt_id_of

USER = {"role": "user", "content": "hi"}


def said(text):
    return {"role": "assistant", "content": text}


def stage(**changes):
    base = {"kind": "preference_model", "pairs": {"task": "requests"}, "num_pairs": 20, "num_held_out": 5}
    return PreferenceModelStage.model_validate(
        {**base, "batch_size": 4, "learning_rate": 1e-3, "max_length": 64, **changes}
    )


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, Pair("a", "b", "c")),
        ({"chosen": "a: b", "rejected": "a: c"}, Pair("a: ", "b", "c")),
        ({"prompt": [USER], "chosen": [said("b")], "rejected": [said("c")]}, Pair([USER], [said("b")], [said("c")])),
        ({"chosen": [USER, said("b")], "rejected": [USER, said("c")]}, Pair([USER], [said("b")], [said("c")])),
        ({"prompt": [USER], "chosen": "b", "rejected": "c"}, Pair([USER], [said("b")], [said("c")])),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2}, Pair("a", "b", "c", 2.0)),
    ],
    ids=["text", "text, implicit", "messages", "messages, implicit", "chat with text sides", "margin"],
)
def test_every_format_gives_prompt_and_two_responses(row, pair):
    assert read_pair(row, "data") == pair


def test_equal_conversations_keep_their_last_turn_as_a_response():
    row = {"chosen": [USER, said("b")], "rejected": [USER, said("b")]}
    assert read_pair(row, "data") == Pair([USER], [said("b")], [said("b")])


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_an_implicit_text_prompt_loses_nothing(prompt, chosen, rejected):
    pair = read_pair({"chosen": prompt + chosen, "rejected": prompt + rejected}, "data")
    assert (pair.prompt + pair.chosen, pair.prompt + pair.rejected) == (prompt + chosen, prompt + rejected)
    assert len(pair.prompt) >= len(prompt)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "a", "chosen": "b"}, "column 'rejected' is missing"),
        ({"prompt": "a", "chosen": "", "rejected": "c"}, "column 'chosen' is ''"),
        ({"prompt": "a", "chosen": [said("b")], "rejected": "c"}, "one of 'chosen' and 'rejected' is text"),
        ({"prompt": "a", "chosen": [said("b")], "rejected": [said("c")]}, "'prompt' is 'a'"),
        ({"chosen": [said("b")], "rejected": [said("c")]}, "no turn in common"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "much"}, "column 'margin' is 'much'"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": float("nan")}, "column 'margin' is 'nan'"),
    ],
)
def test_a_row_that_is_no_pair_is_told(row, told):
    with pytest.raises(DatasetError, match=f"data: .*{told}"):
        read_pair(row, "data")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_is_split_without_a_prompt_on_two_sides(tmp_path, suffix):
    rows = [{"prompt": f"q{i % 40}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(100)]
    path = tmp_path / f"pairs.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    never = frozenset({prompt_id_of("q3"), prompt_id_of("q17")})
    early_stop = {"num_pairs": 7, "evaluate_every": 1}
    source = ShuffledRows(read_rows(str(path)), seed=1)
    split = split_pairs(source, stage(early_stop=early_stop), never, "pairs")
    parts = [{pair.prompt for pair in part} for part in (split.training, split.validation, split.held_out)]
    assert (len(split.training), len(split.validation), len(split.held_out)) == (20, 7, 5)
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert not (parts[0] | parts[1]) & {"q3", "q17"}
    assert len(parts[1]) == 7 and len(parts[2]) == 5


def test_held_out_pairs_that_use_up_every_prompt_end_the_run():
    rows = ShuffledRows([{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(5)], seed=0)
    with pytest.raises(RunFailed, match="use up every prompt"):
        split_pairs(rows, stage(), frozenset(), "pairs")


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"prompt": [USER], "chosen": [said("b")], "rejected": [said("c")]}, "some rows are text and some are messages"),
        ({"prompt": "q", "chosen": "b", "rejected": "c", "margin": 1.0}, "some rows have a margin"),
    ],
)
def test_rows_of_two_forms_are_told(second, told):
    rows = ShuffledRows([{"prompt": "p", "chosen": "a", "rejected": "b"}, second], seed=0)
    with pytest.raises(DatasetError, match=told):
        split_pairs(rows, stage(), frozenset(), "pairs")


def test_a_recipe_with_pairs_without_a_prompt_of_their_own_is_valid(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text('{"chosen": "2+2=4", "rejected": "2+2=5"}\n' * 3)
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "config.json").write_text("{}")
    stage = "{kind: preference_model, pairs: {dataset: pairs.jsonl}, num_pairs: 2, num_held_out: 1, batch_size: 1, "
    stage += "learning_rate: 0.1, max_length: 8}"
    (tmp_path / "rm.yaml").write_text(
        f"model: {{path: start}}\nengine: {{kind: hf, max_model_len: 8}}\nstages:\n  rm: {stage}\n"
    )
    assert main(["validate", "rm.yaml"]) == 0, capsys.readouterr().err
