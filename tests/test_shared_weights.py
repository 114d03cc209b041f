"""Weights that one process writes and another reads, tensor by tensor, through memory without a name."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from rollouts.shared_weights import SharedBuffer, SharedWeights

READER = """
import pickle, sys
weights = pickle.loads(bytes.fromhex(sys.argv[1]))
print([(name, array.shape, float(array.sum())) for name, array in weights.tensors()])
"""


def weights(factor=1.0):
    return {"a": np.arange(6, dtype=np.float32).reshape(2, 3) * factor, "b": np.full(5000, factor, np.float32)}


def published(buffer, arrays):
    shared = buffer.begin(arrays)
    buffer.fill(arrays)
    return shared


def test_another_process_reads_what_was_written():
    import pickle

    buffer = SharedBuffer()
    shared = published(buffer, weights(2.0))
    command = [sys.executable, "-c", READER, pickle.dumps(shared).hex()]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[('a', (2, 3), 30.0), ('b', (5000,), 10000.0)]"


def test_a_reader_gets_each_tensor_as_soon_as_it_is_there_and_not_before():
    buffer, got = SharedBuffer(), []
    old = published(buffer, weights(1.0))
    shared = buffer.begin(weights(3.0))
    assert shared == old  # the same memory again
    reader = threading.Thread(target=lambda: got.extend((name, array.copy()) for name, array in shared.tensors()))
    reader.start()
    reader.join(0.05)
    assert got == []  # the old weights are there still, and are not taken for the new
    buffer.fill(weights(3.0))
    reader.join(60)
    assert [name for name, _ in got] == ["a", "b"]
    np.testing.assert_array_equal(got[0][1], weights(3.0)["a"])
    np.testing.assert_array_equal(got[1][1], weights(3.0)["b"])


def test_weights_of_another_shape_get_other_memory():
    buffer = SharedBuffer()
    first = published(buffer, weights())
    second = published(buffer, {"a": np.ones((4, 4), np.float32)})
    assert second.mark != first.mark
    assert [(name, array.sum()) for name, array in second.tensors()] == [("a", 16.0)]


def test_memory_of_another_process_is_not_taken_for_weights(tmp_path):
    shared = published(SharedBuffer(), weights())
    other = tmp_path / "other"
    other.write_bytes(bytes(shared.num_bytes))
    with pytest.raises(RuntimeError, match="holds something else"):
        next(SharedWeights(str(other), "f" * 32, shared.num_bytes, shared.entries).tensors())
    gone = f"/proc/{os.getpid()}/fd/1000000"
    with pytest.raises(RuntimeError, match="cannot be opened"):
        next(SharedWeights(gone, "e" * 32, shared.num_bytes, shared.entries).tensors())
