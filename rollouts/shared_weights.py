"""Weights in memory that several processes of one machine see. One copy in, none out, nothing on a disk.

Readers take a tensor as soon as it is written, while the next is being written.

The memory has no name in any folder: it is an anonymous file of the process that publishes, which others open through
/proc. So nothing is left behind, however a process ends. Linux only.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ALIGNED = 4096
_HEADER = 4096
_WRITTEN_AT = 64  # where the header counts the tensors that are written
_PAUSE_S = 0.0002


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    """bytes"""


@dataclass(frozen=True)
class SharedWeights:
    """What another process needs to see the weights, for as long as the publishing one lives."""

    path: str
    mark: str
    """stands at the beginning of the memory: what is opened is what was published"""
    num_bytes: int
    entries: tuple[Entry, ...]

    def tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """The weights by name, each once it is written: views of the shared memory. Do not write into them.

        Raises:
            RuntimeError: the memory is not there, or is of another process.
        """
        memory = _mapped(self.path, self.num_bytes, self.mark)
        for number, entry in enumerate(self.entries):
            while _num_written(memory) <= number:
                time.sleep(_PAUSE_S)
            view = np.frombuffer(memory, np.dtype(entry.dtype), count=int(np.prod(entry.shape)), offset=entry.offset)
            yield entry.name, view.reshape(entry.shape)


def _num_written(memory: mmap.mmap) -> int:
    return int(struct.unpack_from("<q", memory, _WRITTEN_AT)[0])


_MAPPED: dict[str, mmap.mmap] = {}  # by mark: mapping the same memory anew would cost page faults at every update


def _mapped(path: str, num_bytes: int, mark: str) -> mmap.mmap:
    if mark not in _MAPPED:
        _MAPPED.clear()
        try:
            file = os.open(path, os.O_RDWR)  # torch asks for memory that could be written to
        except OSError as error:
            raise RuntimeError(f"the published weights cannot be opened: {error}") from error
        try:
            memory = mmap.mmap(file, num_bytes)
        finally:
            os.close(file)
        if memory[: len(mark)] != mark.encode():
            raise RuntimeError(f"{path} holds something else than the published weights")
        _MAPPED[mark] = memory
    return _MAPPED[mark]


class SharedBuffer:
    """The publishing side. Its memory is used again for every update of the same size."""

    def __init__(self) -> None:
        self._file = -1
        self._memory: mmap.mmap | None = None
        self._weights: SharedWeights | None = None

    @staticmethod
    def is_possible() -> bool:
        """Whether this system has such memory."""
        return sys.platform.startswith("linux") and hasattr(os, "memfd_create")

    def begin(self, weights: Mapping[str, NDArray[np.float32]]) -> SharedWeights:
        """Room for weights like these, with none written yet: readers may begin, and wait for `fill`."""
        entries, num_bytes = _layout(weights)
        if self._weights is None or self._weights.entries != entries:
            self.close()
            self._file = os.memfd_create("weights", os.MFD_CLOEXEC)
            os.ftruncate(self._file, num_bytes)
            self._memory = mmap.mmap(self._file, num_bytes)
            mark = uuid.uuid4().hex
            self._memory[: len(mark)] = mark.encode()
            self._weights = SharedWeights(f"/proc/{os.getpid()}/fd/{self._file}", mark, num_bytes, entries)
        self._count(0)
        return self._weights

    def fill(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Copies the weights in that `begin` was given."""
        assert self._memory is not None
        assert self._weights is not None
        for number, entry in enumerate(self._weights.entries):
            array = weights[entry.name]
            target = np.frombuffer(self._memory, array.dtype, count=array.size, offset=entry.offset)
            np.copyto(target.reshape(array.shape), array)
            self._count(number + 1)

    def _count(self, number: int) -> None:
        assert self._memory is not None
        struct.pack_into("<q", self._memory, _WRITTEN_AT, number)

    def close(self) -> None:
        """Gives the memory up; processes that have opened it keep theirs."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._memory, self._weights = -1, None, None


def _layout(weights: Mapping[str, NDArray[np.float32]]) -> tuple[tuple[Entry, ...], int]:
    entries: list[Entry] = []
    offset = _HEADER
    for name, array in weights.items():
        entries.append(Entry(name, array.shape, array.dtype.str, offset))
        offset += -(-array.nbytes // _ALIGNED) * _ALIGNED
    return tuple(entries), offset
