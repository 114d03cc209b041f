"""Every snippet of the page on rewards runs, in order, in one empty directory."""

import re
import sys
from pathlib import Path

from rewards import BUILT_IN

PAGE = (Path(__file__).parent.parent / "docs" / "rewards.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python(?: file=(\S+))?\n(.*?)^```", PAGE, re.M | re.S)


def test_every_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {}
    for file, code in SNIPPETS:
        if file:
            Path(file).write_text(code)
        else:
            exec(compile(code, "docs/rewards.md", "exec"), names)
    sys.modules.pop("brevity", None)
    assert len(SNIPPETS) >= 8


def test_every_built_in_is_on_the_page():
    table = PAGE.split("## Built-in rewards")[1].split("###")[0]
    assert [name for name in BUILT_IN if not re.search(rf"\b{name}\b", table)] == []
