"""The worker pool: what a reward function may do, and what becomes of it. Real processes, really killed."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rewards.result import RewardStatus
from rewards.worker import RewardLoadError, RewardPool
from rewards.worker_call import cut

FUNCTIONS = Path(__file__).parent / "data" / "reward_functions.py"


def pool_of(name: str, **options) -> RewardPool:
    return RewardPool(f"{FUNCTIONS}:{name}", **{"timeout_s": 60.0, **options})


@pytest.fixture(scope="module")
def obedient():
    with pool_of("obey", num_workers=2, value_range=(-10.0, 100.0)) as pool:
        yield pool


def score(pool: RewardPool, completions: list[str], timeout_s: float | None = None, **columns):
    return pool.score(["q"] * len(completions), completions, columns, timeout_s=timeout_s)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until_gone(pids: list[int], timeout_s: float = 60.0) -> list[int]:
    """Those that are not gone in a time that is long on any machine."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and any(map(is_running, pids)):
        time.sleep(0.02)
    return [pid for pid in pids if is_running(pid)]


def test_results_come_back_in_order(obedient):
    results = score(obedient, [str(i % 90) for i in range(500)])
    assert [result.value for result in results] == [float(i % 90) for i in range(500)]


def test_only_the_bad_rows_of_a_batch_fail(obedient):
    rows = [
        "1",
        "hang",
        "2",
        "raise",
        "3",
        "die",
        "4",
        "exit",
        "5",
        "nan",
        "inf",
        "none",
        "text",
        "list",
        "101",
        "true",
    ]
    results = score(obedient, rows, timeout_s=3.0)  # enough for a good row on a busy machine
    status = {row: result.status for row, result in zip(rows, results)}
    assert status == {
        **dict.fromkeys(["1", "2", "3", "4", "5", "true"], RewardStatus.OK),
        "hang": RewardStatus.TIMEOUT,
        **dict.fromkeys(["raise", "die", "exit"], RewardStatus.ERROR),
        **dict.fromkeys(["nan", "inf", "text", "list", "101"], RewardStatus.INVALID),
        "none": RewardStatus.NOT_APPLICABLE,
    }
    assert [r.value for r in results if r.status is RewardStatus.OK] == [1.0, 2.0, 3.0, 4.0, 5.0, 1.0]
    assert all(r.value is None for r in results if r.status is not RewardStatus.OK)


def test_a_row_whose_worker_was_killed_gets_a_second_one(obedient, tmp_path):
    rows = ["1", f"die once {tmp_path / 'a'}", "2"]
    assert [result.value for result in score(obedient, rows)] == [1.0, 8.0, 2.0]
    assert score(obedient, [f"die once {tmp_path / 'b'}"])[0].value == 8.0  # alone


def test_failures_say_what_happened(obedient):
    messages = {row: score(obedient, [row])[0].message for row in ("raise", "die", "exit", "nan", "text", "101")}
    assert messages["raise"].startswith("ValueError: a bad row (reward_functions.py:")
    assert messages["die"] == "the worker process was killed by SIGKILL"
    assert messages["exit"].startswith("SystemExit: 3")
    assert messages["nan"] == "nan is not a finite number"
    assert messages["text"] == "high is str, not a number"
    assert messages["101"] == "101 is outside the range [-10, 100]"
    hanging = score(obedient, ["hang"], timeout_s=0.5)[0]
    assert hanging.message == "no answer within 0.5 s; the worker was killed"


def test_a_hang_inside_c_is_killed_too(obedient):
    assert score(obedient, ["hang in C"], timeout_s=0.5)[0].status is RewardStatus.TIMEOUT
    assert score(obedient, ["7"])[0].value == 7.0


def test_several_threads_may_score_at_once(obedient):
    sums: dict[int, float] = {}

    def work(number: int) -> None:
        sums[number] = sum(r.value for r in score(obedient, [str(number)] * 100))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == {n: 100.0 * n for n in range(8)}


def test_what_a_killed_worker_started_is_killed_with_it(obedient, tmp_path):
    note = tmp_path / "pids"
    assert score(obedient, [f"orphan {note}"], timeout_s=3.0)[0].status is RewardStatus.TIMEOUT
    assert wait_until_gone([int(pid) for pid in note.read_text().split()]) == []


def test_closing_kills_the_workers_and_wakes_whoever_waits():
    pool = pool_of("worker_pid", timeout_s=5.0)
    pid = int(score(pool, ["x"])[0].value)
    assert is_running(pid)
    pool.close()
    assert wait_until_gone([pid]) == []
    with pytest.raises(RuntimeError, match="closed"):
        score(pool, ["x"])

    hanging = pool_of("obey", timeout_s=60.0)
    timer = threading.Timer(0.5, hanging.close)
    timer.start()
    with pytest.raises(RuntimeError, match="closed"):
        score(hanging, ["hang"])
    timer.join()


def test_closing_while_the_worker_still_loads_says_so(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(30)\ndef fn(completions, **columns): return [0.0]\n")
    loading = RewardPool(f"{tmp_path / 'slow.py'}:fn", timeout_s=5.0)
    timer = threading.Timer(0.5, loading.close)
    timer.start()
    with pytest.raises(RuntimeError, match="closed"):
        score(loading, ["x"])
    timer.join()


@pytest.mark.parametrize("template_first", [False, True])
def test_workers_and_their_children_die_with_a_parent_that_is_killed(tmp_path, template_first):
    note = tmp_path / "pids"
    code = (
        "from rewards.worker import RewardPool\n"
        f"pool = RewardPool({str(FUNCTIONS)!r} + ':obey', timeout_s=600)\n"
        f"pool.score(['q'], ['orphan {note}'], {{}})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    while not (note.exists() and note.read_text().count(" ")):
        assert parent.poll() is None
        time.sleep(0.02)
    pids = [int(pid) for pid in note.read_text().split()]
    assert all(map(is_running, pids))
    if template_first:  # the kernel kills it when one thread of the parent ends, which may be before all have ended
        template = parent_of(pids[0])
        os.kill(template, 9)
        assert wait_until_gone([template]) == []
    parent.kill()
    parent.wait()
    assert wait_until_gone(pids) == []


def test_a_pool_that_is_forgotten_leaves_no_worker():
    pool = pool_of("worker_pid", timeout_s=5.0)
    pid = int(score(pool, ["x"])[0].value)
    threads = list(pool._threads)
    del pool
    for thread in threads:
        thread.join(5)
    assert wait_until_gone([pid]) == []


def test_async_functions_get_their_columns():
    with pool_of("eventually", timeout_s=5.0) as pool:
        assert [r.value for r in score(pool, ["a", "b"], solution=["a", "x"])] == [1.0, 0.0]


def test_what_a_function_logs_arrives_as_metrics():
    with pool_of("logs", timeout_s=5.0) as pool:
        results = score(pool, ["abc", "z"])
    assert [dict(r.metrics) for r in results] == [{"half": 0.5, "length": 3.0}, {"half": 0.5, "length": 1.0}]


def test_where_a_reward_was_earned_arrives_with_it_and_a_place_that_is_no_token_fails_its_row_alone():
    with pool_of("on_the_way") as pool:
        results = pool.score(["q"] * 4, ["2", "3", "nan", "-1e9"], {}, [[5, 6, 7]] * 4)
        (without_tokens,) = pool.score(["q"], ["7"], {})
    assert [result.status for result in results] == ["ok", "error", "error", "ok"]
    assert results[0].partial == ((2, 0.5),) and results[3].partial == ((0, -1e9),)
    assert "row 0 has a reward at token 3; 0 to 2 are allowed" in results[1].message
    assert "the reward nan" in results[2].message
    assert (without_tokens.value, without_tokens.partial) == (1.0, ())


def test_a_function_without_a_catch_all_gets_only_what_it_names():
    with pool_of("narrow", timeout_s=5.0) as pool:
        assert score(pool, ["a"], solution=["a"], other=[1])[0].value == 1.0


def test_a_result_of_the_wrong_shape_is_invalid():
    with pool_of("too_few", timeout_s=5.0) as pool:
        result = score(pool, ["a", "b"])[0]
        assert (result.status, result.message) == (
            RewardStatus.INVALID,
            "the function returned 0 values for 1 completions",
        )
    with pool_of("not_a_list", timeout_s=5.0) as pool:
        result = score(pool, ["a", "b"])[0]
        assert (result.status, result.message) == (
            RewardStatus.INVALID,
            "the function returned float, not a list of numbers",
        )


def test_what_a_reward_prints_does_not_reach_standard_output():
    code = (
        "from rewards.worker import RewardPool\n"
        f"with RewardPool({str(FUNCTIONS)!r} + ':print_and_score', timeout_s=10) as pool:\n"
        "    print(pool.score(['q'], ['a'], {})[0].value)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1.0\n"
    assert "noise" in done.stderr


def test_a_function_that_cannot_be_loaded_is_reported_with_its_traceback():
    with pool_of("missing") as pool, pytest.raises(RewardLoadError, match="has no 'missing'"):
        score(pool, ["x"])


def test_several_rows_go_in_one_call_and_calls_end_between_prompts():
    assert cut(["a", "a", "a", "b", "b", "b", "c"], 4) == [[0, 1, 2], [3, 4, 5, 6]]
    assert cut(["a"] * 5, 2) == [[0, 1], [2, 3], [4]]
    assert cut([], 4) == []
    with pool_of("row_count", timeout_s=5.0, batch_rows=4) as pool:
        results = pool.score(["a", "a", "a", "b", "b", "b", "b"], ["x"] * 7, {})
    assert [r.value for r in results] == [3.0] * 3 + [4.0] * 4


def test_columns_of_the_wrong_length_are_named():
    with pool_of("obey") as pool, pytest.raises(ValueError, match="solution"):
        pool.score(["q"], ["1"], {"solution": ["a", "b"]})


def test_a_timeout_of_zero_is_refused():
    with pytest.raises(ValueError, match="positive"):
        pool_of("obey", timeout_s=0)


def test_no_worker_of_these_tests_is_left(obedient):
    obedient.close()
    mine = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True).stdout
    assert "rewards.worker_template" not in mine
