import numpy as np
import pytest

from stepwise.batching.queue import AGEING_SECONDS, Queue
from stepwise.description.errors import Unavailable
from tests.support.batching import request


@pytest.fixture
def queue():
    return Queue(capacity=64)


def submit(queue, now=0.0, **settings):
    built = request(**settings)[0]
    queue.check(built, held=0)
    queue.submit(built, now)
    return built


def seeds(batch):
    return [picture.seed for picture in batch]


def run_to_the_end(queue, now=0.0):
    """Run all pictures to their last step; return their seeds in the order of their first run."""
    order, left = [], {}
    while len(queue):
        batch = queue.next_batch(now)
        order += [picture.seed for picture in batch if picture not in left]
        for picture in batch:
            left[picture] = left.get(picture, len(picture.request.table)) - 1
        queue.remove([picture for picture in batch if left[picture] == 0])
    return order


def test_a_batch_never_exceeds_its_cap_and_keeps_the_order_of_arrival(queue):
    for seed, guidance in ((1, 3.0), (2, 3.0), (3, 3.0), (4, 3.0)):
        submit(queue, seed=seed, guidance=guidance, cap=5)
    batch = queue.next_batch(0.0)
    # Two guided pictures take four rows. The third needs two, and no later one overtakes it.
    assert seeds(batch) == [1, 2]
    queue.remove(batch[:1])
    assert seeds(queue.next_batch(0.0)) == [2, 3]


def test_one_picture_fits_any_cap(queue):
    submit(queue, seed=1, guidance=3.0, cap=1)
    submit(queue, seed=2, guidance=3.0, cap=1)
    assert seeds(queue.next_batch(0.0)) == [1]


def test_pictures_of_one_request_have_consecutive_seeds(queue):
    submit(queue, seed=7, num_images=3)
    assert [(p.seed, p.index) for p in queue.next_batch(0.0)] == [(7, 0), (8, 1), (9, 2)]


def test_no_picture_has_the_seed_that_means_random(queue):
    submit(queue, seed=-2, num_images=3)
    batch = queue.next_batch(0.0)
    assert seeds(batch) == [-2, 2**32 - 1, 0]
    for picture in batch:
        picture.start(0.0)
    (same,) = submit(queue, seed=2**32 - 1).pictures()
    same.start(0.0)
    assert np.array_equal(batch[1].state, same.state)


def test_the_error_of_a_full_queue_says_what_to_do():
    queue = Queue(capacity=4)
    submit(queue, num_images=3)
    with pytest.raises(Unavailable, match="queue is full: 3 pictures run or wait, 2 more.*later"):
        submit(queue, num_images=2)
    submit(queue)
    assert len(queue) == 4


def test_buckets_alternate(queue):
    for side in (4, 8, 4):
        submit(queue, side=side, cap=2)
    sides = [queue.next_batch(0.0)[0].request.settings.latent_shape[1] for _ in range(4)]
    assert sides == [4, 8, 4, 8]


@pytest.mark.parametrize(("priority", "calls"), [(0, 2), (1, 1), (2, 0.5)])
def test_a_bucket_of_higher_priority_gets_more_calls(queue, priority, calls):
    submit(queue, side=4, priority=1)
    submit(queue, side=8, priority=priority)
    sides = [queue.next_batch(0.0)[0].request.settings.latent_shape[1] for _ in range(300)]
    ratio = sides.count(8) / sides.count(4)
    print(f"priority {priority}: {ratio:.2f} calls for one of priority 1, {calls} expected")
    assert ratio == pytest.approx(calls, rel=0.03)


def test_new_buckets_do_not_keep_an_old_one_waiting(queue):
    submit(queue, side=4, seed=4, steps=50)
    calls = 0
    for side in range(5, 65):
        submit(queue, side=side, seed=side)
        batch = queue.next_batch(0.0)
        calls += seeds(batch) == [4]
        queue.remove([picture for picture in batch if picture.seed != 4])
    print(f"{calls} of 60 calls, floor 10")
    assert calls >= 10


def test_a_higher_priority_goes_first(queue):
    for seed, priority in ((1, 1), (2, 2), (3, 0), (4, 1)):
        submit(queue, seed=seed, priority=priority, cap=2)
    assert run_to_the_end(queue) == [3, 1, 4, 2]


def test_waiting_counts_as_priority(queue):
    submit(queue, now=0.0, seed=1, priority=2, cap=2)
    for seed in range(10, 20):
        submit(queue, now=2 * AGEING_SECONDS, seed=seed, priority=0, cap=2)
    assert run_to_the_end(queue, now=2 * AGEING_SECONDS + 1)[0] == 1


def test_clients_get_equal_shares_whatever_their_load(queue):
    for seed in range(10):
        submit(queue, seed=seed, client="greedy", cap=2)
    submit(queue, seed=100, client="modest", cap=2)
    submit(queue, seed=101, client="modest", cap=2)
    order = run_to_the_end(queue)
    print(order)
    assert order.index(100) <= 1
    assert order.index(101) <= 3


@pytest.mark.parametrize("names", [1, 7, 40])
def test_a_peer_gains_nothing_by_inventing_names(queue, names):
    for seed in range(40):
        submit(queue, seed=seed, client=f"invented {seed % names}", peer="10.0.0.1", cap=2)
    for seed in range(100, 105):
        submit(queue, seed=seed, client="honest", peer="10.0.0.2", cap=2)
    order = run_to_the_end(queue)
    places = [order.index(seed) for seed in range(100, 105)]
    print(f"{names} names of one peer: the pictures of the other run at {places}")
    assert all(place <= 2 * number + 1 for number, place in enumerate(places))


def test_clients_of_one_peer_share_the_share_of_their_peer(queue):
    for seed in range(12):
        submit(queue, seed=seed, client="greedy", peer="10.0.0.1", cap=2)
        submit(queue, seed=200 + seed, peer="10.0.0.2", cap=2)
    for seed in (100, 101):
        submit(queue, seed=seed, client="modest", peer="10.0.0.1", cap=2)
    order = run_to_the_end(queue)
    # Every other picture is of the first peer, and every other one of those is the modest client's.
    print(order)
    assert [order.index(seed) <= limit for seed, limit in ((100, 3), (101, 7))] == [True, True]


def test_a_peer_that_waited_gets_no_credit_for_its_absence(queue):
    for seed in range(20):
        submit(queue, seed=seed, peer="10.0.0.1", cap=2)
    for _ in range(8):
        for _ in range(4):
            batch = queue.next_batch(0.0)
        queue.remove(batch)
    for seed in range(100, 110):
        submit(queue, seed=seed, peer="10.0.0.2", cap=2)
    order = run_to_the_end(queue)
    print(order)
    assert sum(seed >= 100 for seed in order[:10]) in (5, 6)


def test_new_clients_do_not_keep_an_old_one_waiting(queue):
    for seed in range(4):
        submit(queue, seed=seed, client="old", cap=2)
    waited = 0
    while any(picture.seed == 3 for picture in queue.waiting()):
        submit(queue, seed=100 + waited, client=f"new {waited}", cap=2)
        for _ in range(4):
            batch = queue.next_batch(0.0)
        queue.remove(batch)
        waited += 1
        assert waited < 40, "the fourth picture of the old client does not get its turn"


def test_removing_a_request_removes_its_waiting_pictures(queue):
    wanted, other = submit(queue, num_images=4, cap=2), submit(queue, seed=50, cap=2)
    assert len(queue) == 5
    queue.next_batch(0.0)
    queue.remove_request(wanted)
    assert len(queue) == 1
    assert queue.next_batch(0.0)[0].request is other


def test_an_empty_queue_has_no_batch(queue):
    assert queue.next_batch(0.0) == []


def test_videos_alternate_by_the_length_of_their_calls(queue):
    """A call costs its frames: a short video gets one call per frame of the long video's call."""
    submit(queue, seed=1, frames=13, steps=50)
    submit(queue, seed=2, frames=1, steps=50)
    calls = [seeds(queue.next_batch(0.0))[0] for _ in range(60)]
    long, first = calls.count(1), calls.index(2)
    print(f"{long} of 60 calls have 13 frames; the short video's first call is number {first}")
    assert first <= 1
    assert 3 <= long <= 6


def test_long_videos_advance_as_many_frames_as_short_ones(queue):
    submit(queue, seed=1, frames=37, steps=2)
    for seed in (2, 3, 4):
        submit(queue, seed=seed, frames=1, steps=1, side=4 + seed)
    order = [seeds(queue.next_batch(0.0))[0] for _ in range(3 * 37 * 4)]
    moved = {seed: order.count(seed) * (37 if seed == 1 else 1) for seed in (1, 2, 3, 4)}
    print(f"frames moved by video: {moved}")
    assert max(moved.values()) <= 1.4 * min(moved.values())
