import threading

from stepwise.triton.round_robin import RoundRobin


def job(told, name, pieces, begin=None):
    for piece in range(pieces):
        if begin is not None:
            begin.wait(10)
        told.append((name, piece))
        yield


def run(*jobs):
    """Run the jobs and return their pieces in order; all jobs are queued before the first ends."""
    told, begin, worker = [], threading.Event(), RoundRobin("test")
    for owner, name, pieces in jobs:
        worker.submit(owner, job(told, name, pieces, begin))
    begin.set()
    worker.close()
    return told


def test_an_owners_jobs_keep_their_order():
    told = run(("a", "first", 3), ("a", "second", 1), ("a", "third", 2))
    assert [name for name, _ in told] == ["first"] * 3 + ["second"] + ["third"] * 2


def test_a_long_job_delays_others_by_at_most_one_piece():
    told = run(("a", "video", 37), ("b", "picture", 1), ("c", "picture", 1))
    assert told.index(("picture", 0)) <= 2
    assert [piece for name, piece in told if name == "video"] == list(range(37))


def test_a_job_that_raises_ends_only_itself(caplog):
    def failing():
        yield
        raise OSError("no space left")

    told, jobs = [], RoundRobin("test")
    jobs.submit("a", failing())
    jobs.submit("a", job(told, "after", 1))
    jobs.submit("b", job(told, "other", 3))
    jobs.close()
    assert sorted(name for name, _ in told) == ["after"] + ["other"] * 3
    assert "no space left" in caplog.text


def test_close_finishes_queued_jobs():
    assert len(run(("a", "video", 5), ("b", "video", 5))) == 10
