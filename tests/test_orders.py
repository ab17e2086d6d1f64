import numpy as np
import pytest

from ffcv_imagenet.data.orders import ShardedOrder, ShuffledOrder


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_global_batches_are_the_same_for_any_number_of_ranks(world):
    orders = [ShuffledOrder(101, seed=5, global_batch=12, rank=r, world_size=world) for r in range(world)]
    alone = ShuffledOrder(101, seed=5, global_batch=12).sample_order(3).reshape(8, 12)
    parts = [order.sample_order(3).reshape(8, 12 // world) for order in orders]
    assert np.array_equal(np.concatenate(parts, axis=1), alone)
    assert len(np.unique(alone)) == 96


def test_order_depends_on_seed_and_epoch_and_leaves_out_others_each_time():
    order = ShuffledOrder(101, seed=0, global_batch=10)
    assert np.array_equal(order.sample_order(1), order.sample_order(1))
    left_out = [set(range(101)) - set(order.sample_order(e)) for e in range(5)]
    assert len(set.union(*left_out)) > 1
    assert not np.array_equal(order.sample_order(0), order.sample_order(1))
    assert not np.array_equal(order.sample_order(0), ShuffledOrder(101, seed=1, global_batch=10).sample_order(0))


def test_a_batch_larger_than_the_data_set_is_refused():
    with pytest.raises(ValueError, match=r"training.batch_size: got 11, allowed are at most the 10 images"):
        ShuffledOrder(10, seed=0, global_batch=11)


@pytest.mark.parametrize("samples", [1, 2, 7, 50])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shards_hold_every_sample_exactly_once(samples, world):
    shards = [ShardedOrder(samples, rank, world).sample_order(0) for rank in range(world)]
    assert np.array_equal(np.concatenate(shards), np.arange(samples))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
