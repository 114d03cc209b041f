"""What starts before the first stage: the command loads no torch before Ray starts; the time line of a start."""

import gc
import subprocess
import sys

import pytest

from rl.startup import StartupClock
from rollouts.engine import EngineStart
from rollouts.quick_imports import quick_imports


def test_nothing_that_is_imported_before_ray_starts_loads_torch():
    # torch and transformers take seconds, which the engines would start later
    code = "import rl.cli, rl.preflight, rl.display, rl.pipeline, sys; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_adapters_are_imported_by_runs_that_have_some():
    # peft imports bitsandbytes where it is installed: seconds, and a warning on the screen
    code = "import rl.learner, rl.models, sys; print({'peft', 'bitsandbytes'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_time_line_counts_from_the_start_of_the_process():
    clock = StartupClock()
    with clock.part("Ray"):
        pass
    clock.stop()
    began = clock.content()["began"]
    clock.add_engines([EngineStart(began + 2.0, began + 3.0, began + 7.0, began + 7.5)])
    content = clock.content()
    assert content["timeline_s"]["engine 0 imports"] == pytest.approx([3.0, 7.0], abs=1e-5)
    assert content["parts_s"]["engine 0 process"] == pytest.approx(1.0, abs=1e-5)
    assert content["parts_s"]["engine 0 model"] == pytest.approx(0.5, abs=1e-5)
    (_, commanded), (ray_began, ray_ended) = (content["timeline_s"][name] for name in ("command", "Ray"))
    assert 0 < commanded <= ray_began <= ray_ended <= content["total_s"]


def test_imports_are_not_collected_and_the_collector_is_as_before():
    assert gc.isenabled()
    with pytest.raises(ImportError), quick_imports():
        assert not gc.isenabled()
        import no_such_module  # noqa: F401
    assert gc.isenabled()
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled()
    gc.enable()
