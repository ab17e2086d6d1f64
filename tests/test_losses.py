"""The losses as functions of logits and target: against their formulas in float64, and in every number format."""

import math
import shutil

import numpy as np
import pytest
import torch
from loss_references import loss_of_image, smoothed_parts, zipf
from scipy.stats import rankdata
from torch import nn
from torch.nn import functional as F

from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.losses.cross_entropy import class_weights
from ffcv_imagenet.losses.zipf_label_smoothing import _powers_of_ranks
from ffcv_imagenet.train.loss_module import LossModule

K, LOCATIONS, EPOCHS = 7, 9, 10
#: Training images of each class.
COUNTS = (900, 300, 100, 40, 12, 5, 2)

#: Every loss, and other ways through its code.
CASES = [
    *((name, {}) for name in LOSSES.kinds),
    ("baseline", {"class_weights": "inverse"}),
    ("label_smoothing", {"smoothing_start": 0.3, "smoothing_end": 0.0, "class_weights": "effective"}),
    ("label_smoothing", {"smoothing": 1.0}),
    ("maxsup", {"alpha_start": 0.0, "alpha_end": 1.0, "class_weights": "inverse"}),
    ("logit_penalty", {"beta": 0.5, "class_weights": "effective"}),
    ("online_label_smoothing", {"hard_weight": 0.25, "class_weights": "inverse"}),
    ("online_label_smoothing", {"hard_weight": 1.0}),
    ("zipf_label_smoothing", {"ranking": "logits", "weight": 1.0, "class_weights": "effective"}),
    ("zipf_label_smoothing", {"power": 2.5, "weight": 0.5}),
    ("focal", {"gamma": 0.5, "class_weights": "inverse"}),
    ("focal", {"gamma": 0.0}),
    ("confidence_penalty", {"beta": 2.0, "class_weights": "effective"}),
    ("ls_regularization_only", {"smoothing": 0.5, "class_weights": "inverse"}),
    ("ls_error_amplification_only", {"smoothing_end": 0.9, "class_weights": "inverse"}),
    ("ldam", {"scale": 5.0, "max_margin": 0.2, "class_weights": "effective"}),
]
each_case = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda x: x if isinstance(x, str) else "+".join(x))
each_loss = pytest.mark.parametrize("name", LOSSES.kinds)


def make_loss(name, counts=COUNTS, **options):
    """A loss, in the middle of a training, with soft targets as after an epoch."""
    module = LossModule(LOSSES.choose(name, options), counts, EPOCHS)
    module.set_epoch(0.4 * EPOCHS)
    if name == "online_label_smoothing":
        module.soft_targets.copy_(torch.rand(len(counts), len(counts), generator=torch.Generator().manual_seed(5)))
        module.soft_targets.div_(module.soft_targets.sum(dim=1, keepdim=True))
    return module


def batch(size=16, *, classes=K, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (size,), generator=generator)


def local_classes(size, classes=K, seed=0):
    """Classes of locations, most of them few."""
    generator = torch.Generator().manual_seed(seed)
    return torch.minimum(*torch.randint(classes, (2, size, LOCATIONS), generator=generator))


def call(module, logits, target):
    local = local_classes(len(logits), logits.shape[1]) if module.loss.reads_local_classes else None
    return module(logits, target, local)


def reference(module, name, options, logits, shares):
    """The mean over the images, from the formulas."""
    z, q = logits.double().numpy(), shares.double().numpy()
    local, counts, values = local_classes(len(z), z.shape[1]).numpy(), np.array(COUNTS[: z.shape[1]]), []
    kind = options.get("class_weights", "none")
    weights = np.ones(len(counts))
    if kind != "none":
        weights = 1 / counts if kind == "inverse" else (1 - 0.9999) / (1 - 0.9999**counts)
        weights = weights * counts.sum() / (weights * counts).sum()
    start = options.get("smoothing_start", options.get("smoothing", 0.1))
    end = options.get("smoothing_end", options.get("smoothing", 0.1))
    for i in range(len(z)):
        values.append(
            loss_of_image(
                name,
                z[i],
                q[i],
                options=options,
                weight=weights[q[i].argmax()],
                smoothing=0.6 * start + 0.4 * end,
                alpha=0.6 * options.get("alpha_start", 0.1) + 0.4 * options.get("alpha_end", 0.2),
                soft=module.soft_targets.double().numpy() if name == "online_label_smoothing" else None,
                votes=None if options.get("ranking") == "logits" else local[i],
                counts=counts,
            )
        )
    return pytest.approx(np.mean(values), rel=2e-7)  # scheduled numbers and class weights are float32


@each_case
def test_a_loss_is_its_formula(name, options):
    module = make_loss(name, **options)
    for seed in range(3):
        logits, target = batch(seed=seed)
        assert call(module, logits, target).item() == reference(module, name, options, logits, F.one_hot(target, K))


@each_loss
def test_two_classes(name):
    module = make_loss(name, COUNTS[:2])
    logits, target = batch(classes=2)
    loss = call(module, logits.requires_grad_(), target)
    assert loss.item() == reference(module, name, {}, logits.detach(), F.one_hot(target, 2))
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


@each_case
def test_gradients_by_finite_differences(name, options):
    logits, target = batch(size=4)
    module = make_loss(name, **options).double()
    assert torch.autograd.gradcheck(lambda z: call(module, z, target), logits.requires_grad_())


@each_loss
def test_the_gradient_is_scaled_by_what_comes_after_the_loss(name):
    gradients = []
    for factor in (1.0, 1024.0):
        logits, target = batch(dtype=torch.float32)
        (factor * call(make_loss(name), logits.requires_grad_(), target)).backward()
        gradients.append(logits.grad / factor)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)


@each_loss
def test_the_loss_of_a_mixed_target_is_the_mix_of_the_losses_where_a_loss_says_so(name):
    module = make_loss(name)
    if not module.loss.linear_in_target:
        assert name in ("online_label_smoothing", "zipf_label_smoothing", "ldam")
        return
    logits, target = batch()
    mix = 0.3 * call(module, logits, target) + 0.7 * call(module, logits, target.roll(1))
    one, other = F.one_hot(target, K), F.one_hot(target.roll(1), K)
    assert mix.item() == reference(module, name, {}, logits, 0.3 * one + 0.7 * other)


@each_case
def test_mixed_images_have_the_loss_the_gradient_and_the_columns_of_the_mixed_target(name, options):
    module, parts = (make_loss(name, **options) for _ in range(2))
    if not module.loss.linear_in_target:
        return
    (logits, target), share = batch(), torch.tensor(0.3, dtype=torch.float64)
    loss = module.of_mixture(logits.requires_grad_(), target, target.roll(1), share)
    for classes, part in ((target, 0.3), (target.roll(1), 0.7)):
        loss = loss - part * call(parts, logits, classes)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-12
    columns, expected = module.end_epoch(), parts.end_epoch()
    assert columns["top_logit"] == expected["top_logit"]
    log_p = logits.detach().log_softmax(1)
    own = log_p.gather(1, torch.stack([target, target.roll(1)], 1)).amax(1)
    assert columns["confident_wrong"] == ((log_p.amax(1) > np.log(0.5)) & (own < log_p.amax(1))).double().mean()


def test_the_columns_of_mixed_images_are_the_mix_of_both_labels_columns():
    logits, target = batch()
    mixed, own, partner = (make_loss("label_smoothing") for _ in range(3))
    mixed.of_mixture(logits, target, target.roll(1), torch.tensor(0.3, dtype=torch.float64))
    own(logits, target), partner(logits, target.roll(1))
    columns, one, other = (module.end_epoch() for module in (mixed, own, partner))
    for name in ("penalty", "target_logit"):
        assert columns[name] == pytest.approx(0.3 * one[name] + 0.7 * other[name], rel=1e-12)


def test_an_image_that_is_all_its_partners_counts_as_it():
    logits, target = batch()
    mixed, partner = make_loss("baseline"), make_loss("baseline")
    loss = mixed.of_mixture(logits, target, target.roll(1), torch.tensor(0.0, dtype=torch.float64))
    assert loss == partner(logits, target.roll(1))
    assert mixed.end_epoch() == partner.end_epoch()


def test_bce_with_a_threshold_says_yes_to_both_of_two_mixed_labels():
    logits, target = batch()
    strict, one = make_loss("bce", target_threshold=0.2), F.one_hot(target, K)
    for share, expected in ((0.6, one + F.one_hot(target.roll(1), K) > 0), (0.9, one)):
        loss = strict.of_mixture(logits, target, target.roll(1), torch.tensor(share, dtype=torch.float64))
        assert loss.item() == reference(strict, "bce", {}, logits, expected.double())


def test_bce_takes_mixed_targets_and_with_a_threshold_says_yes_to_their_larger_shares():
    logits, target = batch()
    one, other = F.one_hot(target, K).double(), F.one_hot(target.roll(1), K).double()
    plain, strict = make_loss("bce"), make_loss("bce", target_threshold=0.2)
    mix = 0.9 * one + 0.1 * other
    assert plain(logits, mix).item() == reference(plain, "bce", {}, logits, mix)
    assert strict(logits, mix).item() == reference(strict, "bce", {}, logits, (mix > 0.2).double())
    both = 0.6 * one + 0.4 * other
    assert strict(logits, both).item() == reference(strict, "bce", {}, logits, ((one + other) > 0).double())
    assert strict(logits, target).item() == reference(strict, "bce", {}, logits, one)
    assert torch.autograd.gradcheck(lambda z: strict(z, both), logits.requires_grad_())
    assert (plain.loss.linear_in_target, strict.loss.linear_in_target) == (True, False)


@each_case
def test_compiled_without_a_break_it_gives_the_same_loss_gradient_and_state(name, options):
    if name not in ("baseline", "zipf_label_smoothing") and options:
        pytest.skip("compiled as the loss with its defaults and as the weighted baseline")
    eager, other = (make_loss(name, **options).double() for _ in range(2))
    compiled, results = torch.compile(other, fullgraph=True, backend="aot_eager"), []
    for module in (eager, compiled):
        for seed in range(2):
            logits, target = batch(seed=seed)
            local = local_classes(len(logits)) if eager.loss.reads_local_classes else None
            loss = module(logits.requires_grad_(), target, local)
            results.append((loss.item(), *torch.autograd.grad(loss, logits)))
    # In float64 up to its last bits: torch 2.11 divides some operations into others, which round in another order.
    torch.testing.assert_close(results[:2], results[2:], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(eager.state, other.state, rtol=1e-12, atol=1e-15)
    torch._dynamo.reset()


class All(nn.Module):
    """Every loss, each of logits of its own."""

    def __init__(self):
        super().__init__()
        self.losses = nn.ModuleList(make_loss(name) for name in LOSSES.kinds)

    def forward(self, logits, target, local):
        modules = enumerate(self.losses)
        return torch.stack([m(logits[n], target, local if m.loss.reads_local_classes else None) for n, m in modules])


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@torch._inductor.config.patch(compile_threads=1)
def test_the_compiler_gives_the_same_losses_gradients_and_states():
    """With torch 2.11's compiler MaxSup had wrong gradients on a CPU."""
    eager, other = All(), All()
    results = []
    for module in (eager, torch.compile(other, fullgraph=True)):
        logits, target = batch(size=8, dtype=torch.float32)
        logits = logits.repeat(len(LOSSES.kinds), 1, 1).requires_grad_()
        losses = module(logits, target, local_classes(8))
        results.append((losses.detach(), *torch.autograd.grad(losses.sum(), logits)))
    for one, again in zip(*results, strict=True):
        torch.testing.assert_close(one, again, rtol=1e-5, atol=1e-6)
    for (key, value), again in zip(eager.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, again, rtol=1e-5, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
    torch._dynamo.reset()


@pytest.mark.gpu
def test_compiled_on_a_gpu_it_gives_the_same_losses_and_gradients_and_never_waits():
    results = []
    for compiled in (False, True):
        module = All().cuda()
        run = torch.compile(module, fullgraph=True) if compiled else module
        logits, target = (part.cuda() for part in batch(size=8, dtype=torch.float32))
        logits, local = logits.repeat(len(LOSSES.kinds), 1, 1).requires_grad_(), local_classes(8).cuda()
        for mode in ("default", "error"):
            torch.cuda.set_sync_debug_mode(mode)
            losses = run(logits, target, local)
            gradient = torch.autograd.grad(losses.sum(), logits)[0]
        torch.cuda.set_sync_debug_mode("default")
        results.append([losses.detach(), gradient, *module.buffers()])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@each_loss
def test_what_a_loss_keeps_is_no_part_of_the_graph(name):
    module = make_loss(name)
    logits, target = batch()
    call(module, logits.requires_grad_(), target)
    assert not any(buffer.requires_grad for buffer in module.buffers())


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_raised_to_float32(name, dtype):
    logits, target = batch(dtype=dtype)
    loss = make_loss(name)
    assert call(loss, logits, target).dtype == torch.float32
    torch.testing.assert_close(call(loss, logits, target), call(loss, logits.float(), target), rtol=0, atol=0)


@each_loss
def test_float32_under_autocast(name):
    results = []
    for enabled in (True, False):
        logits, target = batch(dtype=torch.float32)
        module = make_loss(name)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = call(module, logits.requires_grad_(), target)
        results.append([loss, *torch.autograd.grad(loss, logits), *module.buffers()])
    torch.testing.assert_close(*results, rtol=0, atol=0)


@each_case
@pytest.mark.parametrize("size", [1e4, 6e4])
def test_extreme_logits_give_finite_losses_and_gradients(name, options, size):
    logits = torch.zeros(3, K)
    logits[0, 0] = logits[2, 0] = size
    logits[1, 1] = -size
    logits = logits.half().requires_grad_()
    module = make_loss(name, **options)
    loss = call(module, logits, torch.tensor([0, 1, 2]))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad.isfinite().all() or name == "logit_penalty"  # whose gradient may be too large for float16
    assert all(value.isfinite().all() for value in module.state.values())


@pytest.mark.parametrize("case", range(3))
def test_every_loss_logs_its_logits_and_how_often_it_is_confident_and_wrong(case):
    module, images = make_loss("baseline").double(), []
    for seed in range(case, case + 3):
        logits, target = batch(seed=seed)
        module(logits, target)
        images += zip(logits.numpy(), target.numpy(), strict=True)
    columns = module.end_epoch()
    assert columns["top_logit"] == pytest.approx(np.mean([z.max() for z, _ in images]), rel=1e-12)
    assert columns["target_logit"] == pytest.approx(np.mean([z[y] for z, y in images]), rel=1e-12)
    sure = [np.exp(z.max()) / np.exp(z).sum() > 0.5 and z.argmax() != y for z, y in images]
    assert 0.1 < columns["confident_wrong"] == np.mean(sure) < 0.9
    assert not any(buffer.any() for buffer in module.changed_by_steps())


PENALTIES = {
    "label_smoothing": ("smoothing", 0.1, lambda z, y: z[y] - z.mean()),
    "maxsup": ("alpha", 0.14, lambda z, y: z.max() - z.mean()),
    "logit_penalty": ("beta", 2e-3, lambda z, y: (z**2).sum() / 2),
    "zipf_label_smoothing": ("weight", 0.1, None),
    "confidence_penalty": ("beta", 0.1, None),
    "ls_regularization_only": ("smoothing", 0.1, lambda z, y: smoothed_parts(z, np.eye(K)[y])[0]),
    "ls_error_amplification_only": ("smoothing", 0.1, lambda z, y: smoothed_parts(z, np.eye(K)[y])[1]),
    "online_label_smoothing": ("soft_weight", 0.5, None),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_the_log_has_the_penalty_and_its_weight_which_make_the_loss(name):
    weight, value, formula = PENALTIES[name]
    module, cross_entropy = make_loss(name), []
    losses, penalties = [], []
    for seed in range(2):
        logits, target = batch(seed=seed)
        losses.append(call(module, logits, target).item())
        cross_entropy.append(F.cross_entropy(logits, target).item())
        if formula:
            penalties += [formula(z, y) for z, y in zip(logits.numpy(), target.numpy(), strict=True)]
    columns = module.end_epoch()
    assert list(columns) == [weight, "penalty", "top_logit", "target_logit", "confident_wrong"]
    assert columns[weight] == pytest.approx(value)
    assert np.mean(losses) == pytest.approx(np.mean(cross_entropy) + value * columns["penalty"], rel=1e-6)
    if formula:
        assert columns["penalty"] == pytest.approx(np.mean(penalties), rel=1e-6)


def test_baseline_is_torch_cross_entropy_to_the_last_bit():
    logits, target = batch(dtype=torch.float32)
    assert make_loss("baseline")(logits, target) == F.cross_entropy(logits, target)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_label_smoothing_is_torch_label_smoothing_and_its_two_parts_add_up_to_it(smoothing):
    logits, target = batch()
    logits[0, :3] = logits[0, target[0]]  # equal logits are in neither part
    names = ("label_smoothing", "ls_regularization_only", "ls_error_amplification_only")
    whole, regularization, amplification = (make_loss(n, smoothing=smoothing).double()(logits, target) for n in names)
    expected = F.cross_entropy(logits, target, label_smoothing=float(torch.tensor(smoothing)))
    torch.testing.assert_close(whole, expected)
    plain = F.cross_entropy(logits, target)
    torch.testing.assert_close(regularization + amplification - plain, whole)
    assert amplification <= plain <= regularization


def test_maxsup_equals_label_smoothing_only_where_every_prediction_is_right():
    maxsup, smoothing = make_loss("maxsup", alpha_start=0.1, alpha_end=0.1), make_loss("label_smoothing")
    logits, target = batch()
    torch.testing.assert_close(maxsup(logits, logits.argmax(1)), smoothing(logits, logits.argmax(1)))
    assert not torch.equal(logits.argmax(1), target)
    assert maxsup(logits, target) > smoothing(logits, target) + 1e-3


def test_one_of_equal_top_logits_has_maxsups_gradient():
    logits = torch.zeros(1, K, dtype=torch.float64, requires_grad=True)
    module, target = make_loss("maxsup", alpha_start=0.5, alpha_end=0.5), torch.tensor([0])
    (gradient,) = torch.autograd.grad(module(logits, target), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, target), logits)
    of_penalty = (gradient - plain)[0].sort(descending=True).values
    torch.testing.assert_close(of_penalty, (torch.arange(K) == 0) * 0.5 - torch.full((K,), 0.5 / K).double())


def test_focal_with_a_detached_weight_has_the_gradient_of_weighted_cross_entropy():
    logits, target = batch()
    whole, detached = (make_loss("focal", detach_weight=flag)(logits.requires_grad_(), target) for flag in (0, 1))
    assert whole == detached
    p = logits.softmax(1).gather(1, target[:, None])[:, 0].detach()
    expected = ((1 - p) ** 2 * F.cross_entropy(logits, target, reduction="none")).mean()
    (gradient,), (weighted,) = torch.autograd.grad(detached, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, weighted)
    assert not torch.allclose(gradient, torch.autograd.grad(whole, logits)[0])


@pytest.mark.parametrize("power", [1.0, 0.7])
def test_votes_are_ranked_as_scipy_ranks_them(power):
    votes = local_classes(50)
    found = _powers_of_ranks(votes, torch.zeros(50, K, dtype=torch.float64), power)
    counts = np.stack([np.bincount(row, minlength=K) for row in votes.numpy()])
    np.testing.assert_allclose(found, rankdata(-counts, "min", axis=1) ** -power, rtol=1e-14)


def test_zipf_adds_no_gradient_to_the_target_and_follows_a_permutation_of_the_classes():
    logits, target = batch()
    local, module = local_classes(len(logits)), make_loss("zipf_label_smoothing", weight=1.0)
    (gradient,) = torch.autograd.grad(module(logits.requires_grad_(), target, local), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, target), logits)
    own = F.one_hot(target, K).bool()
    torch.testing.assert_close(gradient[own], plain[own])
    assert not torch.allclose(gradient[~own], plain[~own])
    order = torch.randperm(K, generator=torch.Generator().manual_seed(1))
    new = order.argsort()  # class c becomes class new[c]
    torch.testing.assert_close(module(logits[:, order], new[target], new[local]), module(logits, target, local))


def test_zipf_by_votes_and_by_logits_differ():
    z, y = batch()[0][0].numpy(), 2
    assert zipf(z, y, None, 1.0) != pytest.approx(zipf(z, y, local_classes(1)[0].numpy(), 1.0))


def test_soft_targets_are_the_mean_of_the_epochs_right_predictions():
    module = LossModule(LOSSES.choose("online_label_smoothing"), (10, 10), EPOCHS)
    torch.testing.assert_close(module.soft_targets, torch.full((2, 2), 0.5))
    odds = torch.tensor([[9.0, 1.0], [3.0, 1.0], [1.0, 4.0], [4.0, 1.0]])  # right, right, wrong, wrong
    module(odds.log(), torch.tensor([0, 0, 0, 1]))
    torch.testing.assert_close(module.soft_targets, torch.full((2, 2), 0.5))
    module.end_epoch()
    # The mean of (0.9, 0.1) and (0.75, 0.25); class 1 was never right.
    torch.testing.assert_close(module.soft_targets, torch.tensor([[0.825, 0.175], [0.5, 0.5]]))
    assert not module.predictions.any()
    assert not module.right.any()
    module(torch.tensor([[1.0, 4.0]]).log(), torch.tensor([1]))
    module.end_epoch()
    torch.testing.assert_close(module.soft_targets, torch.tensor([[0.5, 0.5], [0.2, 0.8]]))


def test_soft_targets_begin_as_asked_and_stay_where_they_are_sure():
    options = {"initial_smoothing": 0.3, "freeze_above": 0.88}
    module = LossModule(LOSSES.choose("online_label_smoothing", options), (10, 10), EPOCHS)
    torch.testing.assert_close(module.soft_targets, torch.tensor([[0.85, 0.15], [0.15, 0.85]]))
    for top, expected in ((9.0, 0.9), (4.0, 0.9)):
        module(torch.tensor([[top, 1.0]]).log(), torch.tensor([0]))
        module.end_epoch()
        assert module.soft_targets[0, 0].item() == pytest.approx(expected)
    assert module.soft_targets[1].tolist() == [0.5, 0.5]


def test_online_label_smoothing_keeps_no_more_than_three_tables_and_refuses_too_many_classes():
    loss = LOSSES.choose("online_label_smoothing")
    module = LossModule(loss, [10] * 100, EPOCHS)
    kept = [*module.buffers(), *module.changed_by_steps()]  # with copies for skipped steps
    assert sum(b.numel() * b.element_size() for b in kept) <= 4 * 3 * 100**2 + 4 * 4 * 100
    with pytest.raises(ValueError, match="online_label_smoothing: got 8193 classes, allowed are at most 8192"):
        loss.state([1] * 8193)


@pytest.mark.parametrize("kind", ["inverse", "effective"])
def test_class_weights_are_one_on_average_over_the_images(kind):
    weights = class_weights(kind, COUNTS, 0.999).double()
    assert (weights * torch.tensor(COUNTS)).sum().item() == pytest.approx(sum(COUNTS), rel=1e-6)
    raw = [1 / n if kind == "inverse" else (1 - 0.999) / (1 - 0.999**n) for n in COUNTS]
    assert (weights / weights[0]).tolist() == pytest.approx([r / raw[0] for r in raw], rel=1e-6)
    assert class_weights(kind, (5, 0, 5), 0.9).tolist() == [1, 0, 1]
    assert class_weights("effective", COUNTS, 0.0).tolist() == [1] * K


def test_weighted_cross_entropy_is_torchs_but_for_the_sum_of_weights():
    logits, target = batch()
    weights = class_weights("inverse", COUNTS, 0.9999).double()
    loss = make_loss("baseline", class_weights="inverse")(logits, target) * len(target) / weights[target].sum()
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, weights))


def test_classes_are_weighted_from_an_epoch_on():
    logits, target = batch()
    module = make_loss("baseline", class_weights="inverse", reweight_epoch=6)
    weighted = make_loss("baseline", class_weights="inverse")(logits, target)
    for epoch, expected in ((0.0, F.cross_entropy(logits, target)), (5.99, None), (6.0, weighted), (9.5, weighted)):
        module.set_epoch(epoch)
        torch.testing.assert_close(
            module(logits, target), F.cross_entropy(logits, target) if expected is None else expected
        )
    assert module.end_epoch()["reweighted"] == 1


def test_ldams_margin_is_largest_for_the_rarest_class():
    margins = make_loss("ldam", max_margin=0.5).margins
    assert margins.argmax() == COUNTS.index(min(COUNTS))
    assert margins.max().item() == pytest.approx(0.5)
    assert margins[0].item() == pytest.approx(0.5 * (COUNTS[0] / COUNTS[-1]) ** -0.25)


@pytest.mark.parametrize(("epoch", "alpha"), [(0.0, 0.1), (5.0, 0.15), (10.0, 0.2)])
def test_a_weight_goes_from_start_to_end(epoch, alpha):
    for module, name in (
        (make_loss("maxsup"), "alpha"),
        (make_loss("label_smoothing", smoothing_end=0.2), "smoothing"),
        (make_loss("ls_regularization_only", smoothing=0.2, smoothing_start=0.1), "smoothing"),
    ):
        module.set_epoch(epoch)
        assert module.state[name].item() == pytest.approx(alpha)


def test_a_weight_is_constant_when_both_ends_are_equal():
    for module, name in ((make_loss("maxsup", alpha_start=0.3, alpha_end=0.3), "alpha"),
                         (make_loss("label_smoothing", smoothing=0.3), "smoothing")):  # fmt: skip
        for epoch in (0.0, 1.23, 10.0):
            module.set_epoch(epoch)
            assert module.state[name] == torch.tensor(0.3)


@each_loss
def test_a_loss_survives_a_checkpoint(name):
    module, other = make_loss(name), LossModule(LOSSES.choose(name), COUNTS, EPOCHS)
    call(module, *batch())
    other.load_state_dict(module.state_dict())
    assert all(torch.equal(value, other.state[key]) for key, value in module.state.items())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("baseline", {"smoothing": 0.1}, ["loss.smoothing", "0.1", "loss.class_weights", "label_smoothing"]),
        ("bce", {"class_weights": "inverse"}, ["loss.class_weights", "loss.target_threshold"]),
        ("maxsup", {"smoothing": 0.0}, ["loss.smoothing", "alpha_start"]),
        ("label_smoothing", {"alpha_end": 0.2}, ["loss.alpha_end", "loss.smoothing"]),
        ("label_smoothing", {"smoothing_end": 2}, ["loss.smoothing_end", "got 2", "from 0 to 1, or none"]),
        ("zipf", {}, ["loss.name", "zipf", "baseline | label_smoothing | maxsup"]),
        ("baseline", {"reweight_epoch": 3}, ["loss.reweight_epoch: got 3", "--loss.class_weights=effective"]),
        ("focal", {"class_weights": "inverse", "effective_beta": 0.9}, ["loss.effective_beta: got 0.9"]),
        ("ldam", {"class_weights": "inverse", "reweight_epoch": 10}, ["loss.reweight_epoch: got 10", "epochs=10"]),
        (
            "online_label_smoothing",
            {"initial_smoothing": 0.1, "freeze_above": 0.88},
            ["loss.initial_smoothing: got 0.1", "loss.freeze_above=0.88", "more than 0.12"],
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, words):
    with pytest.raises(ValueError) as error:
        make_loss(name, **options)
    assert all(word in str(error.value) for word in words), error.value


def test_confident_is_more_than_all_other_classes_together():
    module = make_loss("baseline", (1, 1, 1))
    odds = torch.tensor([[2.0, 1.0, 1.0], [2.1, 1.0, 1.0], [2.1, 1.0, 1.0]])
    module(odds.log(), torch.tensor([1, 1, 0]))
    assert module.confident_wrong.item() == 1
    assert math.isfinite(module.top_logit.item())
