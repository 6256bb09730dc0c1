"""Work waits its turn, is told as it goes, ends when it is told to, and harms nobody else's."""

import threading
import time

import pytest

from optogram.pictures import RequestError
from optogram.web.jobs import Full, Jobs


@pytest.fixture
def jobs():
    made = Jobs(most=2)
    yield made
    made.close()


def ended(job, seconds=30):
    limit = time.monotonic() + seconds
    while not job.over:
        assert time.monotonic() < limit, f"{job} has not ended"
        time.sleep(0.01)
    return job


def until_told(event):
    def work(job):
        while not event.is_set():
            job.tell("waiting", 1, 2)
            time.sleep(0.01)
        return {"answer": 1}

    return work


def test_work_is_done_in_order_and_its_answer_kept(jobs):
    order = []
    made = [
        jobs.start(f"job {n}", {}, lambda job, n=n: order.append(n) or {"n": n}) for n in (1, 2)
    ]
    assert [ended(job).result for job in made] == [{"n": 1}, {"n": 2}]
    assert order == [1, 2]
    assert [job.number for job in jobs] == [2, 1]


def test_the_queue_has_a_bound_and_takes_again_when_there_is_room(jobs):
    go = threading.Event()
    first = jobs.start("first", {}, until_told(go))
    while first.state == "waiting":
        time.sleep(0.01)
    waiting = [jobs.start("next", {}, until_told(go)) for _ in range(2)]
    with pytest.raises(Full, match="2 jobs are waiting"):
        jobs.start("too much", {}, until_told(go))
    go.set()
    for job in (first, *waiting):
        assert ended(job).state == "done"
    assert ended(jobs.start("again", {}, until_told(go))).state == "done"


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_at_its_next_step(jobs):
    never = threading.Event()
    first, second = (jobs.start("job", {}, until_told(never)) for _ in range(2))
    assert jobs.cancel(second.number).state == "cancelled"
    jobs.cancel(first.number)
    assert ended(first).state == "cancelled"
    assert jobs.cancel(first.number).state == "cancelled"


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (RequestError("no such unit"), "no such unit"),
        (ValueError("odd"), "ValueError: odd"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_a_fault_is_told_and_the_next_job_goes_on(jobs, problem, said):
    def fail(_):
        raise problem

    failed = ended(jobs.start("bad", {}, fail))
    assert (failed.state, failed.result) == ("failed", None)
    assert said in failed.error
    assert ended(jobs.start("good", {}, lambda _: {})).state == "done"


def test_steps_below_are_heard_and_the_picture_on_its_way_is_kept(jobs):
    import torch

    from optogram.core import film, progress

    def work(job):
        progress.tell("steps", 1, 4)
        film.show(torch.rand(1, 3, 8, 8))
        progress.tell("steps", 4, 4)
        return {}

    job = ended(jobs.start("climb", {}, work))
    assert (job.what, job.done, job.total, job.pictures) == ("steps", 4, 4, 1)
    assert job.preview[:4] == b"RIFF"


def test_only_the_last_jobs_are_remembered(jobs):
    for _ in range(Jobs.kept + 5):
        ended(jobs.start("small", {}, lambda _: {}))
    assert len(list(jobs)) == Jobs.kept
    with pytest.raises(RequestError, match="there is no job 1"):
        jobs[1]


def test_closing_ends_what_runs():
    jobs = Jobs(most=2)
    job = jobs.start("long", {}, until_told(threading.Event()))
    jobs.close()
    assert job.over
    with pytest.raises(Full):
        jobs.start("late", {}, lambda _: {})
