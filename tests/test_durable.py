"""Files written aside, folders with checksums, logs with cut and damaged lines."""

import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.durable import append_lines, clear_leftovers, damage, folder_written_aside, json_lines, mend_log, write_text

ROWS = [{"stage": "rlvr", "iteration": i, "text": "a\u2028b\udc80\n" * i} for i in range(4)]


def written(folder):
    with folder_written_aside(folder) as aside:
        (aside / "weights.bin").write_bytes(bytes(range(256)) * 8)
        (aside / "sub").mkdir()
        (aside / "sub" / "state.json").write_text("{}")
    return folder


def test_a_folder_written_aside_is_whole(tmp_path):
    assert damage(written(tmp_path / "new")) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


@pytest.mark.parametrize("name", ["weights.bin", "sub/state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "emptied"])
def test_damage_is_found_and_named_by_file(tmp_path, name, how):
    path = written(tmp_path / "folder") / name
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes({"cut": content[:-1], "flipped": content, "emptied": b""}[how])
    problem = damage(tmp_path / "folder")
    assert problem is not None
    if name != "manifest.json":  # a changed manifest blames whatever it no longer describes
        assert problem.startswith(name)


def test_a_block_that_fails_leaves_the_earlier_folder_and_nothing_else(tmp_path):
    written(tmp_path / "folder")
    with pytest.raises(ZeroDivisionError):
        with folder_written_aside(tmp_path / "folder") as aside:
            (aside / "weights.bin").write_bytes(b"new")
            raise ZeroDivisionError
    assert damage(tmp_path / "folder") is None
    assert (tmp_path / "folder" / "weights.bin").stat().st_size == 2048
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


KILLED = """
import os, sys, pathlib
from rl import durable
folder = pathlib.Path(sys.argv[1])
calls = int(sys.argv[2])
def killing(function):
    def call(*args, **kwargs):
        global calls
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), 9)
        return function(*args, **kwargs)
    return call
for name in ("replace", "mkdir", "unlink", "write_text", "write_bytes"):
    setattr(pathlib.Path, name, killing(getattr(pathlib.Path, name)))
os.fsync = killing(os.fsync)
durable.shutil.rmtree = killing(durable.shutil.rmtree)
with durable.folder_written_aside(folder) as aside:
    (aside / "weights.bin").write_bytes(b"new" * 100)
    (aside / "other.bin").write_bytes(b"new" * 100)
print("done")
"""


def test_kill_9_at_any_step_of_writing_leaves_the_old_or_the_new_folder(tmp_path):
    sizes = set()
    for calls in range(40):
        folder = tmp_path / str(calls) / "folder"
        folder.parent.mkdir()
        written(folder)
        done = subprocess.run([sys.executable, "-c", KILLED, folder, str(calls)], capture_output=True, text=True)
        clear_leftovers(folder.parent)
        assert damage(folder) is None
        assert [path.name for path in folder.parent.iterdir()] == ["folder"]
        sizes.add((folder / "weights.bin").stat().st_size)
        if done.stdout:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "done\n"
    assert sizes == {2048, 300}


def test_write_text_keeps_the_old_file_where_the_disk_is_full(tmp_path):
    import resource

    path = tmp_path / "state.json"
    write_text(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OSError):
            write_text(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.json"]


def log_of(path, rows=ROWS):
    append_lines(path, [json.dumps(row, ensure_ascii=False) for row in rows])
    return path


def test_a_log_that_is_whole_is_not_touched(tmp_path):
    path = log_of(tmp_path / "metrics.jsonl")
    before = path.read_bytes(), path.stat().st_ino
    assert mend_log(path) == []
    assert (path.read_bytes(), path.stat().st_ino) == before
    assert list(json_lines(path)) == ROWS


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 200))
def test_a_log_cut_anywhere_keeps_its_whole_lines_and_takes_new_ones(tmp_path_factory, cut):
    path = log_of(tmp_path_factory.mktemp("log") / "metrics.jsonl")
    content = path.read_bytes()[:-cut]
    path.write_bytes(content)
    whole = content.count(b"\n")
    if len(content.rpartition(b"\n")[2]) and content.endswith(b"}"):
        whole += 1  # only its line end is lost
    assert mend_log(path) == []
    append_lines(path, ['{"next": 1}'])
    assert list(json_lines(path)) == [*ROWS[:whole], {"next": 1}]
    assert not path.with_name("metrics.jsonl.damaged").exists()


def test_damaged_lines_are_named_and_kept_elsewhere(tmp_path):
    path = log_of(tmp_path / "metrics.jsonl")
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:10]
    lines[2] = b"\0" * 20
    path.write_bytes(b"\n".join(lines))
    assert mend_log(path) == [2, 3]
    assert list(json_lines(path)) == [ROWS[0], ROWS[3]]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == lines[1] + b"\n" + lines[2] + b"\n"


def test_mend_log_drops_what_is_not_to_be_kept(tmp_path):
    path = log_of(tmp_path / "metrics.jsonl")
    assert mend_log(path, keep=lambda row: row["iteration"] < 2) == []
    assert list(json_lines(path)) == ROWS[:2]
