import numpy as np
import pytest
import torch

from ffcv_imagenet.train.metrics import Scores, ScoreSums


@pytest.mark.parametrize(("classes", "k"), [(2, 2), (5, 5), (30, 5), (30, 1), (30, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_against_numpy_over_uneven_batches(classes, k, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(100, classes, generator=generator).to(dtype)
    target = torch.randint(classes, (100,), generator=generator)
    sums = ScoreSums(torch.device("cpu"), k)
    for part in (slice(0, 64), slice(64, 99), slice(99, 100)):
        sums.add(logits[part], target[part])
    scores = sums.scores()

    exact = logits.double().numpy()
    rank_of_target = (exact > exact[np.arange(100), target][:, None]).sum(axis=1)
    log_sum = np.log(np.exp(exact).sum(axis=1))
    assert scores.top_1 == (rank_of_target < 1).mean()
    assert (scores.top_k, scores.k) == ((rank_of_target < k).mean(), k)
    assert scores.loss == pytest.approx((log_sum - exact[np.arange(100), target]).mean(), rel=1e-6)
    assert scores.images == 100


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_give_no_scores(value):
    logits, target = torch.zeros(6, 3), torch.zeros(6, dtype=torch.int64)
    logits[2:4, 1] = value
    sums = ScoreSums(torch.device("cpu"), 2)
    sums.add(logits[:3], target[:3])
    sums.add(logits[3:], target[3:])
    assert sums.scores() == Scores(None, None, None, images=6, k=2, nonfinite=2)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="validation set is empty"):
        ScoreSums(torch.device("cpu"), 5).scores()
