from pipelines.inflight.queue import Queue
from tests.unit.pipelines.inflight.build import request


def names(batch):
    return [(picture.seed, picture.index) for picture in batch]


def test_a_batch_never_exceeds_its_slots_and_keeps_the_order_of_arrival():
    queue = Queue(slots=5)
    for seed, guidance in ((1, 3.0), (2, 3.0), (3, 3.0), (4, 0.0)):
        queue.submit(request(seed=seed, guidance=guidance)[0])
    batch = queue.next_batch()
    # Two guided pictures take four slots; nobody overtakes the third, which takes two.
    assert [picture.seed for picture in batch] == [1, 2]
    queue.remove(batch[:1])
    assert [picture.seed for picture in queue.next_batch()] == [2, 3, 4]


def test_the_pictures_of_one_request_have_seeds_that_count_up():
    queue = Queue(slots=16)
    queue.submit(request(seed=7, num_images=3)[0])
    assert names(queue.next_batch()) == [(7, 0), (8, 1), (9, 2)]


def test_buckets_take_turns():
    queue = Queue(slots=2)
    for side in (4, 8, 4):
        queue.submit(request(side=side, guidance=3.0)[0])
    sides = []
    for _ in range(4):
        sides.append(queue.next_batch()[0].request.settings.latent_shape[1])
    assert sides == [4, 8, 4, 8]


def test_removing_a_request_takes_out_its_waiting_pictures_too():
    queue = Queue(slots=2)
    wanted, other = request(num_images=4)[0], request(seed=50)[0]
    queue.submit(wanted)
    queue.submit(other)
    assert len(queue) == 5
    queue.next_batch()
    queue.remove_request(wanted)
    assert len(queue) == 1
    assert queue.next_batch()[0].request is other


def test_an_empty_queue_has_no_batch():
    assert Queue(slots=2).next_batch() == []
