"""Where memory runs out, less is done at once, and all the same comes out."""

import pytest
import torch

from optogram.core import memory
from optogram.core.memory import Room, at_once, ran_out
from optogram.pictures.errors import RequestError
from tests.survey.small import network

CARD = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
PROCESSOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:116] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize("problem", [CARD, PROCESSOR, MemoryError()])
def test_every_device_s_words_are_known(problem):
    assert ran_out(problem)


def test_the_words_are_those_that_torch_says():
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(found.value)


def test_other_errors_are_none_of_it():
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out(ValueError("out of memory"))


def test_what_does_not_fit_is_halved_once_and_for_all():
    tried = []

    def do(some):
        tried.append(len(some))
        if len(some) > 3:
            raise CARD
        return list(some)

    room = Room()
    assert list(room.each(range(8), do)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert tried == [8, 4, 2, 2, 2, 2]
    assert list(room.each(range(3), do)) == [[0, 1], [2]]


def test_where_one_alone_does_not_fit_it_is_said_in_a_sentence():
    def do(some):
        raise PROCESSOR

    with pytest.raises(RequestError, match=r"even for one of the units at a time.*can't allocate"):
        list(Room("units").each(range(4), do))


def test_what_is_no_want_of_memory_is_raised_as_it_is():
    def do(some):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        list(Room().each(range(4), do))


def test_a_batch_is_what_should_fit_into_the_free_memory(monkeypatch):
    small = network()  # its largest answer is of 4 x 10 x 10 numbers
    each = 400 * 4 * memory.LAYERS
    for free, size in ((None, 64), (10**9, 64), (each * 64 * 2, 64), (each * 64, 32), (1, 1)):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        assert at_once(small, 64) == size
    monkeypatch.undo()
    assert memory.free_memory(torch.device("cpu")) > 10**6
