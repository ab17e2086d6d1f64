import functools

import numpy as np
import pytest

from ffcv_imagenet.data.read.orders import QuasiRandomOrder, RepeatedOrder, ShardedOrder, ShuffledOrder

QUASI = functools.partial(QuasiRandomOrder, block=7, window=4)


@pytest.mark.parametrize("kind", [ShuffledOrder, QUASI])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_global_batches_are_the_same_for_any_number_of_ranks(world, kind):
    orders = [kind(101, seed=5, global_batch=12, rank=r, world_size=world) for r in range(world)]
    alone = kind(101, seed=5, global_batch=12).sample_order(3).reshape(8, 12)
    parts = [order.sample_order(3).reshape(8, 12 // world) for order in orders]
    assert np.array_equal(np.concatenate(parts, axis=1), alone)
    assert len(np.unique(alone)) == 96


@pytest.mark.parametrize("kind", [ShuffledOrder, QUASI])
def test_order_depends_on_seed_and_epoch_and_leaves_out_others_each_time(kind):
    order = kind(101, seed=0, global_batch=10)
    assert np.array_equal(order.sample_order(1), order.sample_order(1))
    left_out = [set(range(101)) - set(order.sample_order(e)) for e in range(5)]
    assert len(set.union(*left_out)) > 1
    assert not np.array_equal(order.sample_order(0), order.sample_order(1))
    assert not np.array_equal(order.sample_order(0), kind(101, seed=1, global_batch=10).sample_order(0))


@pytest.mark.parametrize(("repeats", "batch"), [(3, 12), (3, 16), (2, 6), (5, 12)])
def test_a_batch_has_each_of_its_samples_so_often_and_neighbours_differ(repeats, batch):
    order = RepeatedOrder(101, seed=4, global_batch=batch, repeats=repeats)
    steps = 101 // batch
    samples, copies = order.sample_order(2).reshape(steps, batch), order.repeat_numbers().reshape(steps, batch)
    assert len(np.unique(samples)) == -(-steps * batch // repeats)
    pairs = {*zip(samples.flatten().tolist(), copies.flatten().tolist(), strict=True)}
    assert len(pairs) == steps * batch
    assert {copy for _, copy in pairs} == {*range(repeats)}
    for one in samples:
        assert len(np.unique(one)) <= -(-batch // repeats) + 1
        assert (one[::2] != one[1::2]).all()
    assert set(order.sample_order(0)) != set(order.sample_order(1))


@pytest.mark.parametrize("world", [2, 3, 6])
def test_ranks_share_the_batches_with_copies(world):
    options = {"seed": 5, "global_batch": 12, "repeats": 3}
    ranks = [RepeatedOrder(101, rank=rank, world_size=world, **options) for rank in range(world)]
    whole = RepeatedOrder(101, **options)
    for of in (lambda order: order.sample_order(3), lambda order: order.repeat_numbers()):
        parts = np.concatenate([of(order).reshape(8, -1) for order in ranks], axis=1)
        assert np.array_equal(parts, of(whole).reshape(8, 12))


def test_a_batch_larger_than_the_data_set_is_refused():
    with pytest.raises(ValueError, match=r"training.batch_size: got 11, allowed are at most the 10 images"):
        ShuffledOrder(10, seed=0, global_batch=11)


@pytest.mark.parametrize("samples", [1, 2, 7, 50])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shards_hold_every_sample_exactly_once(samples, world):
    shards = [ShardedOrder(samples, rank, world).sample_order(0) for rank in range(world)]
    assert np.array_equal(np.concatenate(shards), np.arange(samples))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("samples", [1, 6, 7, 8, 101, 5000])
@pytest.mark.parametrize(("block", "window"), [(1, 1), (1, 256), (7, 1), (7, 4), (64, 256), (10_000, 3)])
def test_the_quasi_random_order_holds_every_sample_once(samples, block, window):
    order = QuasiRandomOrder(samples, seed=1, global_batch=1, block=block, window=window)
    for epoch in range(3):
        assert np.array_equal(np.sort(order.permutation(epoch)), np.arange(samples))
        blocks = order.blocks(epoch)
        assert np.array_equal(np.sort(np.concatenate([np.arange(*bounds) for bounds in blocks])), np.arange(samples))


def test_the_quasi_random_order_reads_one_window_of_the_file_at_a_time():
    samples, block, window, batch = 100_000, 64, 32, 256
    order = QuasiRandomOrder(samples, seed=0, global_batch=batch, block=block, window=window)
    pages = order.permutation(0) // block  # as large as the blocks, which begin elsewhere: two per block
    ends = np.cumsum(np.diff(order.blocks(0), axis=1))[window - 1 :: window]
    touched = [np.unique(part) for part in np.split(pages, ends)]
    assert max(map(len, touched)) <= 2 * window  # of 1,563; a shuffle touches about 1,150 in as many samples
    # The file is read once, not again and again: a page is needed in one window, or in two where a block ends in it.
    assert np.bincount(np.concatenate(touched)).max() <= 2
    assert not np.array_equal(order.blocks(0)[:, 0] % block, order.blocks(1)[:, 0] % block)


def test_the_quasi_random_order_mixes_its_window():
    samples, block, window, batch = 100_000, 64, 128, 256
    order = QuasiRandomOrder(samples, seed=0, global_batch=batch, block=block, window=window)
    batches = order.sample_order(0).reshape(-1, batch)
    # Neighbours in the file are hardly ever neighbours in the batch: two of a block follow by chance, 1 in 128.
    assert np.mean(np.abs(np.diff(batches, axis=1)) < block) < 3 / window
    # A batch draws from most of the 128 blocks (expected: 128 (1 - (1 - 1/128)^256) = 111).
    assert np.mean([np.unique(row // block).size for row in batches]) > 100
    # Epochs put different samples together.
    other = order.sample_order(1).reshape(-1, batch)
    assert np.intersect1d(batches[0], other[0]).size < 20


def test_the_quasi_random_order_mixes_the_file():
    order = QuasiRandomOrder(100_000, seed=0, global_batch=256, block=64, window=128)
    places = [order.blocks(epoch)[:, 0] for epoch in range(2)]
    for place in places:
        assert abs(np.corrcoef(place, np.arange(len(place)))[0, 1]) < 0.1
    both = np.intersect1d(places[0][:128] // 64, places[1][:128] // 64)  # of 1,563; by chance 10 or 11
    assert both.size < 30


def test_with_blocks_of_one_sample_it_is_a_shuffle_of_everything():
    order = QuasiRandomOrder(20_000, seed=0, global_batch=100, block=1, window=20_000)
    rank = np.argsort(order.permutation(0))
    assert abs(np.corrcoef(rank, np.arange(20_000))[0, 1]) < 0.03
