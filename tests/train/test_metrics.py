import numpy as np
import pytest
import torch

from ffcv_imagenet.train.metrics import ScoreSums


@pytest.mark.parametrize("classes", [2, 5, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_against_numpy_over_uneven_batches(classes, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(100, classes, generator=generator).to(dtype)
    target = torch.randint(classes, (100,), generator=generator)
    sums = ScoreSums(torch.device("cpu"))
    for part in (slice(0, 64), slice(64, 99), slice(99, 100)):
        sums.add(logits[part], target[part])
    scores = sums.scores()

    exact = logits.double().numpy()
    rank_of_target = (exact > exact[np.arange(100), target][:, None]).sum(axis=1)
    log_sum = np.log(np.exp(exact).sum(axis=1))
    assert scores.top_1 == (rank_of_target < 1).mean()
    assert scores.top_5 == (rank_of_target < 5).mean()
    assert scores.loss == pytest.approx((log_sum - exact[np.arange(100), target]).mean(), rel=1e-6)
    assert scores.images == 100


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="validation set is empty"):
        ScoreSums(torch.device("cpu")).scores()
