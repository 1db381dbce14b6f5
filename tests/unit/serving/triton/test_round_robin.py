import threading

from pipelines.turns import Turns


def job(told, name, pieces, begin=None):
    for piece in range(pieces):
        if begin is not None:
            begin.wait(10)
        told.append((name, piece))
        yield


def run(*jobs):
    """What was done in which order; everything is lined up before the first piece ends."""
    told, begin, turns = [], threading.Event(), Turns("test")
    for owner, name, pieces in jobs:
        turns.submit(owner, job(told, name, pieces, begin))
    begin.set()
    turns.close()
    return told


def test_an_owners_jobs_keep_their_order():
    told = run(("a", "first", 3), ("a", "second", 1), ("a", "third", 2))
    assert [name for name, _ in told] == ["first"] * 3 + ["second"] + ["third"] * 2


def test_a_long_job_holds_nobody_up_for_longer_than_a_piece():
    told = run(("a", "clip", 37), ("b", "picture", 1), ("c", "picture", 1))
    assert told.index(("picture", 0)) <= 2
    assert [piece for name, piece in told if name == "clip"] == list(range(37))


def test_a_job_that_raises_ends_and_no_other(caplog):
    def failing():
        yield
        raise OSError("no space left")

    told, turns = [], Turns("test")
    turns.submit("a", failing())
    turns.submit("a", job(told, "after", 1))
    turns.submit("b", job(told, "beside", 3))
    turns.close()
    assert sorted(name for name, _ in told) == ["after"] + ["beside"] * 3
    assert "no space left" in caplog.text


def test_close_finishes_what_is_there():
    assert len(run(("a", "clip", 5), ("b", "clip", 5))) == 10
