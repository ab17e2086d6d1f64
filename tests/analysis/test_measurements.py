"""Every measurement against cases whose answer is known, and against independent references."""

import io
import itertools
import math

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from scipy import optimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import multiclass_calibration_error

from ffcv_imagenet.analysis.calibration import calibrate, halves
from ffcv_imagenet.analysis.corrupt import CORRUPTIONS, SEVERITIES, _move_pixels, corrupt, read_pictures
from ffcv_imagenet.analysis.corruptions import mean_corruption_error
from ffcv_imagenet.analysis.features import class_separation
from ffcv_imagenet.analysis.gradcam import find_map, heat_maps
from ffcv_imagenet.analysis.groups import accuracies, group_classes
from ffcv_imagenet.analysis.logits import logit_statistics, near_zero_shares
from ffcv_imagenet.analysis.measurement import Measured
from ffcv_imagenet.analysis.outputs import ClassSums, Outputs
from ffcv_imagenet.analysis.panels import with_short_names
from ffcv_imagenet.analysis.plane import plane_basis, project
from ffcv_imagenet.analysis.results import _check_plain
from ffcv_imagenet.analysis.scores import best_temperature, equal_mass_bins, equal_width_bins, predictions
from ffcv_imagenet.analysis.softmax_regression import fit
from ffcv_imagenet.analysis.transfer import stratified_holdout, transfer


def drawn(rows=1000, width=20, classes=7):
    """Stored-like outputs: features that lean towards their class, logits of a random classifier; float32."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, classes, rows)
    features = np.maximum(draw.normal(0, 1, (rows, width)) + 2 * draw.normal(0, 1, (classes, width))[labels], 0)
    logits = features @ draw.normal(0, 0.3, (width, classes)) + 2 * np.eye(classes)[labels]
    return features.astype(np.float32), logits.astype(np.float32), labels


def class_sums(features, labels, classes, batch=64):
    sums = ClassSums(classes, features.shape[1])
    for first in range(0, len(labels), batch):
        rows = slice(first, first + batch)
        part = torch.from_numpy(features[rows])
        sums.add(Outputs(np.arange(len(part)), torch.from_numpy(labels[rows]), part, part))
    return sums


def separation(features, labels, classes):
    sums = class_sums(features, labels, classes)
    return class_separation(sums.sums.numpy(), sums.counts.numpy())


def test_class_separation_is_that_of_all_pairs():
    features, _, labels = drawn(rows=150, classes=5)
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distance = np.array([[1 - u @ v for v in unit] for u in unit])
    pairs = np.array([[distance[labels == j][:, labels == k].mean() for k in range(5)] for j in range(5)])
    found = separation(features, labels, 5)
    assert found["d_within"] == pytest.approx(pairs.diagonal().mean(), abs=1e-13)
    assert found["d_total"] == pytest.approx(pairs.mean(), abs=1e-13)
    assert found["r2"] == pytest.approx(1 - pairs.diagonal().mean() / pairs.mean(), abs=1e-13)


def test_collapsed_orthogonal_classes_have_d_within_0_and_r2_1():
    labels = np.array([0] * 9 + [1] * 3 + [2])
    found = separation(np.eye(3)[labels] * 7.5, labels, 4)
    assert found["d_within"] == pytest.approx(0, abs=1e-15)
    assert found["d_total"] == pytest.approx(2 / 3)
    assert found["r2"] == pytest.approx(1)
    assert (found["classes"], found["images"]) == (3, 13)


def test_class_separation_does_not_change_with_scale_and_rotation():
    features, _, labels = drawn()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0]
    scaled = features.astype(np.float64) @ rotation * np.random.default_rng(2).uniform(1e-3, 1e3, (1000, 1))
    plain, other = (separation(f, labels, 7) for f in (features.astype(np.float64), scaled))
    assert other == pytest.approx(plain, abs=1e-12)


def test_features_that_are_all_0_are_counted_and_left_out_and_tiny_ones_are_not():
    features = np.array([[0, 0], [1e-30, 0], [0, 3]], np.float32)
    sums = class_sums(features, np.array([0, 0, 0]), 1)
    assert sums.zeros.item() == 1
    assert class_separation(sums.sums.numpy(), sums.counts.numpy())["d_within"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no image has features"):
        separation(np.zeros((3, 2), np.float32), np.array([0, 0, 0]), 1)


def test_values_of_1000_rows_are_those_of_numpy():
    """The definitions once more, in as few lines of numpy as they take."""
    features, logits, labels = drawn()
    n = np.arange(len(labels))
    unit = features.astype(float) / np.linalg.norm(features.astype(float), axis=1)[:, None]
    means = np.array([unit[labels == k].mean(axis=0) for k in range(7)])
    within, total = 1 - (means**2).sum(1).mean(), 1 - (means.mean(0) ** 2).sum()
    z = logits.astype(float)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    ece, edges = 0.0, np.arange(16) / 15
    for low, high in itertools.pairwise(edges):
        inside = (low < confidence) & (confidence <= high)
        ece += abs(right[inside].sum() - confidence[inside].sum()) / len(labels)
    order = np.argsort(confidence, kind="stable")
    adaptive = sum(abs(right[i].sum() - confidence[i].sum()) for i in np.array_split(order, 15)) / len(labels)
    brier = ((p - np.eye(7)[labels]) ** 2).sum(axis=1).mean()

    found = calibrate(logits, labels, bins=15)["all"]
    assert found["ece"] == pytest.approx(ece, abs=1e-10)
    assert found["adaptive_ece"] == pytest.approx(adaptive, abs=1e-10)
    assert found["brier"] == pytest.approx(brier, abs=1e-10)
    assert found["nll"] == pytest.approx(-np.log(p[n, labels]).mean(), abs=1e-10)
    assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-10)
    assert separation(features, labels, 7)["d_within"] == pytest.approx(within, abs=1e-10)
    assert separation(features, labels, 7)["d_total"] == pytest.approx(total, abs=1e-10)
    statistics = logit_statistics(logits, labels, [0.1], 0.5)
    centred = z - z.mean(axis=1, keepdims=True)
    assert statistics["near_zero_shares"]["raw 0.1"] == pytest.approx((abs(z) < 0.1).mean(), abs=1e-10)
    assert statistics["near_zero_shares"]["centred 0.1"] == pytest.approx((abs(centred) < 0.1).mean(), abs=1e-10)
    others = np.where(np.eye(7)[labels] == 1, -np.inf, z).max(axis=1)
    assert statistics["means"]["margin"] == pytest.approx((z[n, labels] - others).mean(), abs=1e-10)
    groups = [features[labels == k].astype(float) for k in (4, 1, 2)]
    centroids = np.array([group.mean(axis=0) for group in groups])
    basis = np.linalg.svd(centroids - centroids.mean(axis=0))[2][:2].T
    spread = np.concatenate(groups) - np.concatenate(groups).mean(axis=0)
    plane = project(groups, None)
    assert plane["variance_explained"] == pytest.approx(((spread @ basis) ** 2).sum() / (spread**2).sum(), abs=1e-10)
    radius = np.linalg.norm((groups[0] - centroids[0]) @ basis, axis=1).mean()
    assert plane["mean_radius"][0] == pytest.approx(radius, abs=1e-10)


def test_logits_of_known_shares():
    k = 8
    labels = np.arange(k)
    one_hot = logit_statistics(5 * np.eye(k, dtype=np.float32), labels, [0.01], 0.1)
    assert one_hot["near_zero_shares"]["raw 0.01"] == pytest.approx((k - 1) / k)
    assert one_hot["near_zero_shares"]["centred 0.01"] == 0
    constant = logit_statistics(np.full((k, k), 3, np.float32), labels, [0.01], 0.1)
    assert constant["near_zero_shares"] == {"raw 0.01": 0, "centred 0.01": 1}
    assert sum(one_hot["density"]["raw"]["counts"]) == k * k
    assert one_hot["means"]["margin"] == 5


def test_logits_statistics_do_not_depend_on_how_the_rows_are_cut(monkeypatch):
    _, logits, labels = drawn()
    whole = logit_statistics(logits, labels, [0.1], 0.5)
    monkeypatch.setattr("ffcv_imagenet.analysis.scores._ROWS", 7)
    parts = logit_statistics(logits, labels, [0.1], 0.5)
    assert parts["density"] == whole["density"]
    assert parts["share_histogram"] == whole["share_histogram"]
    assert parts["summary"] == pytest.approx(whole["summary"], abs=1e-13)


def test_very_wide_logits_get_wider_bins_and_every_entry_is_counted():
    found = logit_statistics(np.array([[-1e6, 1e6, 0.0]], np.float32), np.array([0]), [0.1], 0.1)["density"]["raw"]
    assert len(found["counts"]) <= 4001
    edges = (found["first"] + np.arange(len(found["counts"]) + 1)) * found["width"]
    assert sum(found["counts"]) == 3
    for value in (-1e6, 0, 1e6):
        inside = np.flatnonzero((edges[:-1] <= value + 1e-6) & (value < edges[1:] + 1e-6))
        assert any(found["counts"][i] for i in inside)


def test_near_zero_shares_are_below_the_threshold_and_not_at_it():
    assert near_zero_shares(np.array([[0.5, 0.25, -0.25, 0.0]]), 0.25)[0] == 0.25


def test_a_perfectly_calibrated_prediction_has_no_calibration_error():
    confidence = np.repeat([0.25, 0.75], 8)
    right = np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0], bool)
    for bins in (equal_width_bins(confidence, right, 15), equal_mass_bins(confidence, right, 2)):
        assert bins.ece == pytest.approx(0, abs=1e-15)
        assert bins.mce == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_errors_are_those_of_torchmetrics(bins):
    _, logits, labels = drawn()
    p = torch.from_numpy(logits).double().softmax(dim=1)
    ece, mce = (
        multiclass_calibration_error(p, torch.from_numpy(labels), num_classes=7, n_bins=bins, norm=norm).item()
        for norm in ("l1", "max")
    )
    found = calibrate(logits, labels, bins)["all"]
    # It adds up in float32.
    assert found["ece"] == pytest.approx(ece, abs=2e-6)
    assert found["mce"] == pytest.approx(mce, abs=2e-6)


def test_bins_end_with_their_upper_edge_and_0_lies_in_the_first():
    confidence = np.array([0.0, 0.2, np.nextafter(0.2, 1), 1.0])
    assert equal_width_bins(confidence, np.ones(4, bool), 5).count.tolist() == [2, 1, 0, 0, 1]


def test_constant_logits_are_as_uncertain_as_can_be():
    found = predictions(np.full((6, 4), 2.0, np.float32), np.array([0, 1, 2, 3, 0, 1]))
    np.testing.assert_allclose(found.nll, np.log(4))
    np.testing.assert_allclose(found.brier, 0.75)
    np.testing.assert_allclose(found.confidence, 0.25)


def test_the_temperature_is_where_the_nll_is_least_and_undoes_a_scaling():
    _, logits, labels = drawn()

    def nll(t):
        return predictions(logits, labels, t).nll.mean()

    reference = optimize.minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10})
    found = best_temperature(logits, labels)
    assert found == pytest.approx(reference.x, rel=1e-6)
    assert best_temperature(4 * logits, labels) == pytest.approx(4 * found, rel=1e-9)


def test_the_temperature_ends_where_it_would_go_on_forever():
    sure = 3 * np.eye(3, dtype=np.float32)
    assert best_temperature(sure, np.arange(3)) == pytest.approx(1e-3)
    assert best_temperature(sure, np.array([1, 2, 0])) == pytest.approx(1e3)


def test_the_temperature_is_of_one_half_and_judged_on_the_other():
    _, logits, labels = drawn(rows=101)
    first, second = halves(101, 3)
    assert sorted([*first, *second]) == list(range(101))
    found = calibrate(logits, labels, seed=3)
    assert found["temperature"] == best_temperature(logits[first], labels[first])
    after = predictions(logits[second], labels[second], found["temperature"])
    assert found["after"]["nll"] == after.nll.mean()
    assert found["before"]["accuracy"] == found["after"]["accuracy"]


def test_three_orthogonal_templates_make_an_equilateral_triangle_with_the_first_left_and_the_second_up():
    templates = np.eye(6)[[2, 0, 5]]
    at = (templates - templates.mean(axis=0)) @ plane_basis(templates)
    sides = [np.linalg.norm(at[i] - at[j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    np.testing.assert_allclose(sides, np.sqrt(2))
    assert at[0, 0] < 0
    assert at[0, 1] == pytest.approx(0, abs=1e-12)
    assert at[1, 1] > 0


def test_points_in_the_plane_keep_their_distances_and_a_rotation_changes_nothing():
    draw = np.random.default_rng(0)
    templates = draw.normal(size=(3, 9))
    weights = [draw.dirichlet((1, 1, 1), size=5) for _ in range(3)]
    features = [w @ templates for w in weights]
    found = project(features, templates)
    flat, at = np.concatenate(features), np.concatenate([np.array(p) for p in found["points"]])
    np.testing.assert_allclose(
        np.linalg.norm(at[:, None] - at, axis=2), np.linalg.norm(flat[:, None] - flat, axis=2), atol=1e-12
    )
    assert found["variance_explained"] == pytest.approx(1)
    rotation = np.linalg.qr(draw.normal(size=(9, 9)))[0]
    turned = project([f @ rotation for f in features], templates @ rotation)
    for a, b in zip(found["points"], turned["points"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_templates_on_a_line_have_no_plane():
    with pytest.raises(ValueError, match="lie on a line"):
        plane_basis(np.arange(3.0)[:, None] * np.ones(4))


def test_groups_by_thirds_and_by_thresholds():
    counts = [5000, 3000, 1800, 1000, 640, 380, 230, 140, 80, 50]
    assert group_classes(counts, "thirds") == ["many"] * 3 + ["medium"] * 4 + ["few"] * 3
    assert group_classes(counts, "100,20") == ["many"] * 8 + ["medium"] * 2
    assert group_classes([19, 20, 100, 101], "100,20") == ["few", "medium", "medium", "many"]


def test_accuracies_per_class_and_group_and_the_worst_confusions():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 2, 0, 0])
    found = accuracies(predicted, labels, ["a", "b", "c", "d"], ["many", "few", "few", "few"], [9, 2, 2, 2], 1)
    assert [line["accuracy"] for line in found["classes"]] == [0.75, 0.5, 0.0, None]
    assert found["groups"]["few"] == {"classes": 3, "images": 4, "accuracy": 0.25}
    assert found["groups"]["medium"] == {"classes": 0, "images": 0, "accuracy": None}
    assert found["worst"] == [{"class": "c", "accuracy": 0.0, "taken_for": [{"class": "a", "share": 1.0}]}]
    assert found["summary"]["mean accuracy per class"] == pytest.approx(1.25 / 3)


@pytest.fixture(scope="module")
def digit_features():
    """Non-negative features of unequal scale, as after a ReLU."""
    features, labels = load_digits(return_X_y=True)
    return np.maximum(features[:500] / 4 - 1, 0), labels[:500]


@pytest.mark.parametrize("strength", [1e-3, 1e-1, 10])
def test_logistic_regression_agrees_with_scikit_learn(digit_features, strength):
    features, labels = digit_features
    strengths = [1e-3, 1e-1, 10]  # together, as in use
    found = fit(torch.from_numpy(features), torch.from_numpy(labels), 10, strengths, tolerance=1e-14)
    number = strengths.index(strength)
    reference = LogisticRegression(C=1 / (len(labels) * strength), tol=1e-10, max_iter=20000).fit(features, labels)
    assert found.converged.all()
    np.testing.assert_allclose(found.weight[number].numpy(), reference.coef_, atol=2e-4)
    centred = reference.intercept_ - reference.intercept_.mean()
    np.testing.assert_allclose(found.bias[number].numpy(), centred, atol=2e-3)
    logp = torch.log_softmax(torch.from_numpy(features @ reference.coef_.T + reference.intercept_), 1)
    there = -logp[torch.arange(500), torch.from_numpy(labels)].mean() + strength / 2 * (reference.coef_**2).sum()
    assert -1e-7 < float(there - found.objective[number]) < 1e-6


def test_at_the_minimum_the_gradient_is_0_whatever_the_features_offset_and_rank(digit_features):
    features, labels = digit_features
    features = torch.from_numpy(np.concatenate([features + 50, features], axis=1))  # shifted, and each one twice
    labels = torch.from_numpy(labels)
    found = fit(features, labels, 10, [1e-4], tolerance=1e-18)
    weight, bias = found.weight[0].requires_grad_(), found.bias[0].requires_grad_()
    loss = torch.nn.functional.cross_entropy(features @ weight.T + bias, labels) + 0.5e-4 * (weight**2).sum()
    gradients = torch.autograd.grad(loss, (weight, bias))
    assert max(float(g.abs().max()) for g in gradients) < 1e-7
    assert loss.item() == pytest.approx(float(found.objective[0]), abs=1e-9)


def test_the_held_out_tenth_is_stratified():
    labels = np.repeat([0, 1, 2], [100, 30, 2])
    chosen = stratified_holdout(labels, 0.1, 0)
    assert [int(chosen[labels == k].sum()) for k in range(3)] == [10, 3, 1]
    assert not np.array_equal(chosen, stratified_holdout(labels, 0.1, 1))


def test_transfer_chooses_on_the_held_out_images_and_says_when_the_best_lies_at_an_end(digit_features):
    features, labels = (torch.from_numpy(array) for array in digit_features)
    parts = features[:400], labels[:400], features[400:], labels[400:]
    found = transfer(*parts, 10, strengths=(1e-3, 1e-1, 1e3))
    assert found["strength"] in (1e-3, 1e-1)
    reference = LogisticRegression(C=found["c"], tol=1e-8, max_iter=20000).fit(parts[0].numpy(), parts[1].numpy())
    assert found["summary"]["top-1"] == pytest.approx(reference.score(parts[2].numpy(), parts[3].numpy()), abs=0.011)
    assert found["c"] == pytest.approx(1 / (400 * found["strength"]))
    ends = transfer(*parts, 10, strengths=(1e-3,))
    assert ends["notes"] == ["the best strength 0.001 lies at an end of the grid"]
    few = transfer(*parts, 10, strengths=(1e-6, 1e-1), max_iterations=2)
    assert "have not converged in 2 iterations" in few["notes"][-1]


@pytest.fixture(scope="module")
def pictures():
    """Four smooth pictures of 32 x 32 pixels, uint8."""
    draw = np.random.default_rng(0)
    return np.stack(
        [cv2.resize(draw.integers(0, 256, (6, 6, 3)).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)] * 1
        + [cv2.resize(draw.integers(40, 216, (5, 5, 3)).astype(np.uint8), (32, 32)) for _ in range(3)]
    )


@pytest.fixture(scope="module")
def ice(tmp_path_factory):
    """Two photographs of ice, as it were: 300 x 400 pixels of one grey each, and what lies next to them."""
    folder = tmp_path_factory.mktemp("ice")
    for name, grey in (("frost1.png", 200), ("frost2.png", 100)):
        Image.new("RGB", (400, 300), (grey,) * 3).save(folder / name)
    (folder / "LICENSE").write_text("theirs")
    return folder


def corrupted(images, numbers, name, severity, seed=0, severities="cifar", ice=None):
    chosen = SEVERITIES[severities]
    pictures = read_pictures(ice, chosen, images.shape[1]) if name == "frost" else ()
    pairs = zip(images, numbers, strict=True)
    return np.stack([corrupt(image, number, name, severity, seed, chosen, pictures) for image, number in pairs])


@pytest.mark.parametrize("severities", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_depends_on_the_number_of_an_image_alone_and_grows(pictures, ice, name, severities):
    images = pictures
    if severities == "imagenet":
        images = np.stack([cv2.resize(image, (224, 224), interpolation=cv2.INTER_CUBIC) for image in pictures[1:3]])
    numbers = range(len(images))
    whole = corrupted(images, numbers, name, 3, 0, severities, ice)
    alone = corrupted(images[1:2], [1], name, 3, 0, severities, ice)
    assert np.array_equal(whole[1], alone[0])
    assert whole.dtype == np.uint8
    assert whole.shape == images.shape
    weak, strong = (
        np.abs(corrupted(images, numbers, name, severity, 0, severities, ice).astype(int) - images).mean()
        for severity in (1, 5)
    )
    assert strong > 0
    # The levels of an elastic transform trade a shear for stretching; grey ice may be as bright as the image.
    assert strong > weak or name in ("elastic_transform", "frost")


def test_frost_adds_a_piece_of_a_photograph_as_the_severity_says(ice):
    grey = np.full((20, 32, 32, 3), 60, np.uint8)
    found = corrupted(grey, range(20), "frost", 5, ice=ice)
    assert all(np.ptp(image) == 0 for image in found)
    of_photographs = [0.75 * 60 + 0.45 * 200, 0.75 * 60 + 0.45 * 100]
    assert {round(float(image[0, 0, 0])) for image in found} <= {int(value) for value in of_photographs}
    assert len({int(image[0, 0, 0]) for image in found}) == 2
    with pytest.raises(ValueError, match=r"frost1.png is too small, allowed are more than 301 pixels a side"):
        read_pictures(ice, SEVERITIES["imagenet"], 300)


def test_glass_blur_overwrites_pixels_one_after_the_other_from_the_last_on():
    draw = np.random.default_rng(5)
    x, shifts, reach = draw.random((12, 12, 3)), draw.integers(-2, 2, (8, 8, 2)), 2
    expected = x.copy()
    for i, row in enumerate(range(12 - reach, reach, -1)):
        for j, column in enumerate(range(12 - reach, reach, -1)):
            down, right = shifts[i, j]
            expected[row, column] = expected[row + down, column + right]
    _move_pixels(x, reach, shifts)
    assert np.array_equal(x, expected)


def test_images_of_imagenets_severities_are_stored_as_the_published_ones_are(pictures):
    image = cv2.resize(pictures[1], (224, 224))
    x, mean = image / 255, (image / 255).mean((0, 1))
    file = io.BytesIO()
    flat = np.clip((x - mean) * 0.4 + mean, 0, 1) * 255 + 1e-6
    Image.fromarray(flat.astype(np.uint8)).save(file, "JPEG", quality=85)
    found = corrupt(image, 0, "contrast", 1, 0, SEVERITIES["imagenet"])
    np.testing.assert_array_equal(found, np.asarray(Image.open(file)))


def test_noises_have_their_moments():
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    x = 128 / 255

    def moments(name, severity):
        found = corrupted(grey, range(40), name, severity, seed=1) / 255
        return found.mean(), found.std()

    assert moments("gaussian_noise", 1) == pytest.approx((x - 0.5 / 255, 0.04), abs=5e-4)
    assert moments("speckle_noise", 5) == pytest.approx((x - 0.5 / 255, x * 0.2), abs=1e-3)
    assert moments("shot_noise", 3)[1] == pytest.approx(np.sqrt(x / 100), abs=5e-4)
    salt_and_pepper = corrupted(grey, range(40), "impulse_noise", 5, seed=1)
    assert np.mean(salt_and_pepper == 0) == pytest.approx(0.035, abs=2e-3)
    assert np.mean(salt_and_pepper == 255) == pytest.approx(0.035, abs=2e-3)


def test_corruptions_without_random_numbers_are_those_of_their_definition(pictures):
    x = pictures[0] / 255
    file = io.BytesIO()
    Image.fromarray(pictures[0]).save(file, "JPEG", quality=58)
    jpeg = np.asarray(Image.open(file))
    np.testing.assert_array_equal(corrupt(pictures[0], 0, "jpeg_compression", 3, 0), jpeg)
    contrast = np.clip((x - x.mean((0, 1))) * 0.3 + x.mean((0, 1)), 0, 1) * 255
    assert np.abs(corrupt(pictures[0], 0, "contrast", 4, 0) - contrast).max() <= 1
    small = Image.fromarray(pictures[0]).resize((20, 20), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    np.testing.assert_array_equal(corrupt(pictures[0], 0, "pixelate", 5, 0), np.asarray(small))
    value = corrupt(pictures[0], 0, "brightness", 3, 0).max(axis=2) / 255
    np.testing.assert_allclose(value, np.minimum(x.max(axis=2) + 0.15, 1), atol=1.1 / 255)


def test_blurs_leave_a_constant_image_alone():
    grey = np.full((1, 32, 32, 3), 100, np.uint8)
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "elastic_transform"):
        found = corrupted(grey, [0], name, 5).astype(int)
        assert np.abs(found - 100).max() <= 1, name


def test_mce_is_the_mean_of_ratios_of_errors():
    def table(errors):
        return [{"corruption": name, "severity": s, "error": e} for name in "ab" for s, e in enumerate(errors[name])]

    own, other = table({"a": [0.1, 0.2], "b": [0.4, 0.4]}), table({"a": [0.2, 0.4], "b": [0.4, 0.4]})
    assert mean_corruption_error(own, other) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no error for b"):
        mean_corruption_error(own, other[:2])


class OneChannelPerClass(torch.nn.Module):
    """The logit of class k is the mean of channel k of a map."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 1)
        self.map = torch.nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        return self.map(self.stem(x)).mean(dim=(2, 3))


def test_grad_cam_of_a_network_whose_logit_is_a_channels_mean_is_that_channel():
    torch.manual_seed(0)
    model, images = OneChannelPerClass().eval().requires_grad_(False), torch.randn(4, 3, 6, 6)
    module = find_map(model, 6, "cpu")
    assert module is model.map
    maps, probabilities, explained = heat_maps(model, module, images, torch.tensor([0, 1, 2, 1]))
    channels = model.map(model.stem(images))
    expected = channels[range(4), [0, 1, 2, 1]].clamp_min(0)
    expected = expected / expected.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(maps, expected.numpy(), atol=1e-6)
    assert explained.tolist() == [0, 1, 2, 1]
    np.testing.assert_allclose(probabilities, model(images).softmax(1), atol=1e-6)
    assert heat_maps(model, module, images, None)[2].tolist() == model(images).argmax(1).tolist()


def test_a_transformer_has_no_map_for_grad_cam():
    vit = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3).eval()
    with pytest.raises(ValueError, match="VisionTransformer has no feature map"):
        find_map(vit, 32, "cpu")
    # What timm's attention computes has four dimensions; of the second one's, the last two are alike.
    for options in ({"img_size": 64}, {"img_size": 128, "class_token": False, "global_pool": "avg"}):
        theirs = timm.create_model("vit_tiny_patch16_224", num_classes=3, **options).eval()
        with pytest.raises(ValueError, match="VisionTransformer has no feature map"):
            find_map(theirs, options["img_size"], "cpu")


@pytest.mark.parametrize(
    ("arch", "name"), [("resnet18", "layer4"), ("convnext_tiny", "features"), ("swin_t", "permute")]
)
def test_the_map_for_grad_cam_is_that_before_the_pooling(arch, name):
    model = torchvision.models.get_model(arch, weights=None, num_classes=3).eval()
    assert find_map(model, 64, "cpu") is model.get_submodule(name)


@pytest.mark.parametrize(
    ("results", "where"),
    [
        ({"summary": {"sure": np.int64(3)}}, r"results\['summary'\]\['sure'\] is int64 3"),
        ({"bins": [0.5, math.nan]}, r"results\['bins'\]\[1\] is float nan"),
    ],
)
def test_a_result_that_json_does_not_hold_is_named(results, where):
    with pytest.raises(TypeError, match=where):
        _check_plain(results, "results")


def test_figures_leave_out_the_words_with_which_the_names_of_all_runs_begin():
    def short(*names):
        return [one.name for one in with_short_names([Measured(name, {}) for name in names])]

    assert short("a_b_maxsup_seed0", "a_b_maxsup_seed1") == ["seed0", "seed1"]
    assert short("a_baseline_seed0", "a_bce_seed0") == ["baseline_seed0", "bce_seed0"]
    assert short("run", "run_two") == ["run", "run_two"]
    assert short("a_b", "a_b") == ["a_b", "a_b"]
    assert short("a_b_c") == ["a_b_c"]
