"""Work says how far it is, to whoever listens and to nobody else."""

import threading

import pytest

from optogram.core.progress import listening, tell


def test_a_listener_hears_for_the_length_of_a_with():
    heard: list[tuple] = []
    tell("work", 0, 2)
    with listening(lambda *said: heard.append(said)):
        tell("work", 1, 2)
        with listening(lambda *said: heard.append(("inner", *said))):
            tell("work", 2, 2)
        tell("more", 1, 1)
    tell("work", 3, 2)
    assert heard == [("work", 1, 2), ("inner", "work", 2, 2), ("more", 1, 1)]


def test_a_listener_is_gone_after_an_error():
    heard: list[tuple] = []
    with pytest.raises(ZeroDivisionError), listening(lambda *said: heard.append(said)):
        raise ZeroDivisionError
    tell("work", 1, 2)
    assert heard == []


def test_another_thread_is_not_heard():
    heard: list[tuple] = []
    with listening(lambda *said: heard.append(said)):
        thread = threading.Thread(target=tell, args=("work", 1, 2))
        thread.start()
        thread.join()
    assert heard == []
