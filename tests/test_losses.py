import pytest
import torch
from torch.nn import functional as F

from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.train.loss_module import LossModule

K = 7


def make_loss(name, **options):
    return LossModule(LOSSES.choose(name, options), K)


def batch(size=16, *, all_right=False, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, K, generator=generator, dtype=torch.float64)
    target = torch.randint(K, (size,), generator=generator)
    if all_right:
        target = logits.argmax(dim=1)
    return logits.to(dtype), target


def smoothing_at_logit_level(logits, target, smoothing):
    right = logits.gather(1, target[:, None])[:, 0]
    return F.cross_entropy(logits, target) + smoothing * (right - logits.mean(dim=1)).mean()


def maxsup(alpha):
    return make_loss("maxsup", alpha_start=alpha, alpha_end=alpha).double()


def test_baseline_is_torch_cross_entropy():
    logits, target = batch()
    assert make_loss("baseline")(logits, target) == F.cross_entropy(logits, target)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_label_smoothing_is_torch_label_smoothing_and_its_logit_form(smoothing):
    logits, target = batch()
    loss = make_loss("label_smoothing", smoothing=smoothing)(logits, target)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, label_smoothing=smoothing))
    torch.testing.assert_close(loss, smoothing_at_logit_level(logits, target, smoothing))


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.25])
def test_maxsup_is_cross_entropy_and_the_excess_of_the_top_logit(alpha):
    logits, target = batch()
    top = torch.stack([row.max() - row.sum() / K for row in logits]).mean()
    torch.testing.assert_close(maxsup(alpha)(logits, target), F.cross_entropy(logits, target) + alpha * top)


def test_maxsup_equals_label_smoothing_only_where_every_prediction_is_right():
    logits, target = batch(all_right=True)
    torch.testing.assert_close(maxsup(0.1)(logits, target), smoothing_at_logit_level(logits, target, 0.1))
    logits, target = batch(seed=1)
    assert not torch.equal(logits.argmax(1), target)
    assert maxsup(0.1)(logits, target) > smoothing_at_logit_level(logits, target, 0.1) + 1e-3


@pytest.mark.parametrize("name", LOSSES.kinds)
def test_gradients_by_finite_differences(name):
    logits, target = batch(size=4)
    loss = make_loss(name).double()
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())


def both_losses(name):
    """Two modules of the same loss, in the middle of a training."""
    modules = [make_loss(name).double() for _ in range(2)]
    for module in modules:
        module.set_progress(0.5)
    return modules


@pytest.mark.parametrize("name", LOSSES.kinds)
def test_compiled_without_a_break_it_gives_the_same_loss_gradient_and_state(name):
    eager, other = both_losses(name)
    compiled, results = torch.compile(other, fullgraph=True, backend="aot_eager"), []
    for module in (eager, compiled):
        for seed in range(2):
            logits, target = batch(seed=seed)
            loss = module(logits.requires_grad_(), target)
            results.append((loss.item(), *torch.autograd.grad(loss, logits)))
    for one, again in zip(results[:2], results[2:], strict=True):
        assert one[0] == again[0]
        assert torch.equal(one[1], again[1])
    assert all(torch.equal(value, other.state[key]) for key, value in eager.state.items())
    torch._dynamo.reset()


@pytest.mark.parametrize("name", LOSSES.kinds)
def test_what_a_loss_keeps_is_no_part_of_the_graph(name):
    module = make_loss(name).double()
    logits, target = batch()
    module(logits.requires_grad_(), target)
    assert not any(buffer.requires_grad for buffer in module.buffers())


@pytest.mark.parametrize("name", LOSSES.kinds)
def test_the_loss_of_a_mixed_target_is_the_mix_of_the_losses_where_a_loss_says_so(name):
    module = make_loss(name).double()
    logits, target = batch()
    one, other = F.one_hot(target, K).double(), F.one_hot(target.roll(1), K).double()
    mixed = module(logits, 0.3 * one + 0.7 * other)
    equal = torch.isclose(mixed, 0.3 * module(logits, target) + 0.7 * module(logits, target.roll(1)), rtol=1e-12)
    assert equal or not module.loss.linear_in_target


def test_maxsup_logs_the_mean_of_its_penalty_and_its_last_alpha():
    module, penalties = make_loss("maxsup").double(), []
    for seed in range(3):
        logits, target = batch(seed=seed)
        module.set_progress(seed / 3)
        module(logits, target)
        penalties.append((logits.max(dim=1).values - logits.mean(dim=1)).mean())
    columns = module.end_epoch()
    assert list(columns) == ["alpha", "penalty"]
    assert columns["alpha"] == pytest.approx(0.1 + 0.1 * 2 / 3)
    assert columns["penalty"] == pytest.approx(torch.stack(penalties).mean().item(), rel=1e-12)
    module(logits, target)
    assert module.end_epoch()["penalty"] == pytest.approx(penalties[-1].item(), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES.kinds)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_raised_to_float32(name, dtype):
    logits, target = batch(dtype=dtype)
    loss = make_loss(name)
    assert loss(logits, target).dtype == torch.float32
    torch.testing.assert_close(loss(logits, target), loss(logits.float(), target), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES.kinds)
def test_float32_under_autocast(name):
    logits, target = batch(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = make_loss(name)(logits, target)
    torch.testing.assert_close(under_autocast, make_loss(name)(logits, target), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES.kinds)
@pytest.mark.parametrize("size", [1e4, 6e4])
def test_extreme_logits_give_finite_losses_and_gradients(name, size):
    logits = torch.zeros(2, K)
    logits[0, 0] = size
    logits[1, 1] = -size
    logits = logits.half().requires_grad_()
    loss = make_loss(name)(logits, torch.tensor([0, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("progress", "alpha"), [(0.0, 0.1), (0.5, 0.15), (1.0, 0.2)])
def test_alpha_goes_from_start_to_end(progress, alpha):
    loss = make_loss("maxsup")
    loss.set_progress(progress)
    assert loss.alpha.item() == pytest.approx(alpha)


def test_alpha_is_constant_when_both_ends_are_equal():
    loss = make_loss("maxsup", alpha_start=0.3, alpha_end=0.3)
    for progress in (0.0, 0.123, 1.0):
        loss.set_progress(progress)
        assert loss.alpha == torch.tensor(0.3)


def test_alpha_survives_a_checkpoint():
    loss = make_loss("maxsup")
    loss.set_progress(0.7)
    other = make_loss("maxsup")
    other.load_state_dict(loss.state_dict())
    assert other.alpha == loss.alpha


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("baseline", {"smoothing": 0.1}, ["loss.smoothing", "0.1", "no option"]),
        ("maxsup", {"smoothing": 0.0}, ["loss.smoothing", "alpha_start"]),
        ("label_smoothing", {"alpha_end": 0.2}, ["loss.alpha_end", "loss.smoothing"]),
        ("focal", {}, ["loss.name", "focal", "baseline | label_smoothing | maxsup"]),
    ],
)
def test_options_of_another_loss_are_refused(name, options, words):
    with pytest.raises(ValueError) as error:
        make_loss(name, **options)
    assert all(word in str(error.value) for word in words)
