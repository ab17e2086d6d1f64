"""Parts of data sets: which samples are drawn."""

import numpy as np
import pytest
from images import draw_folder

from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_sources, write_splits
from ffcv_imagenet.data.write.subsets import choose_classes, draw, long_tail, select

BOTH = ("train", "val")
CIFAR = np.repeat(np.arange(10), 5000)


@pytest.mark.parametrize(
    ("imbalance", "counts"),
    [
        ("exp:10", [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
        ("exp:50", [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]),
        ("exp:100", [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
        ("step:50", [5000] * 5 + [100] * 5),
    ],
)
def test_long_tailed_cifar_has_the_published_numbers(imbalance, counts):
    kept = long_tail(CIFAR, 10, imbalance, seed=0)
    assert np.bincount(CIFAR[kept]).tolist() == counts
    assert (np.diff(kept) > 0).all()


@pytest.mark.parametrize("seed", [0, 3])
def test_long_tailed_images_are_those_of_the_published_draw(seed):
    """As it is written down: numpy's global generator shuffles the places of each class in a mixed data set."""
    targets = np.random.default_rng(1).permutation(np.repeat(np.arange(5), 40))
    np.random.seed(seed)  # noqa: NPY002 (the published draw is by it)
    expected = []
    for label in range(5):
        places = np.where(targets == label)[0]
        np.random.shuffle(places)  # noqa: NPY002
        expected += places[: int(200 / 5 * (1 / 20) ** (label / 4.0))].tolist()
    # The same images, as the writer has them: by class, each class in the order of the data set.
    by_class = np.argsort(targets, kind="stable")
    kept = long_tail(targets[by_class], 5, "exp:20", seed)
    assert set(by_class[kept].tolist()) == set(expected)
    assert len(kept) == len(expected)


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("pets"), train=12, val=4, classes=("cat", "cow", "dog"))


def test_so_many_images_of_each_class(pets):
    source = scan_splits(pets, BOTH)["train"]
    five, seven = (draw(source, resolve_parameters(per_class=count, seed=4)) for count in (5, 7))
    assert np.bincount(five.labels).tolist() == [5, 5, 5]
    assert set(five.files) < set(seven.files)
    assert five.files == sorted(five.files)
    assert draw(source, resolve_parameters(per_class=5, seed=5)).files != five.files
    assert draw(source, resolve_parameters(per_class=100)).files == source.files
    for number, file in enumerate(five.files):
        assert five.read(number) == (pets / "train" / file).read_bytes()
        assert five.where(number) == str(pets / "train" / file)


def test_what_was_drawn_is_in_the_manifest_and_val_stays_whole(pets, tmp_path, capsys):
    parameters = resolve_parameters(mode="raw", imbalance="exp:6", page_size_mib=2)
    for _ in range(2):
        write_splits(pets, tmp_path, BOTH, parameters, num_workers=1)
    assert capsys.readouterr().out.count("nothing to do") == 2
    train, val = (Manifest.read(tmp_path / f"{split}.beton") for split in BOTH)
    assert train.images_per_class == (12, 4, 2)
    assert train.parameters.imbalance == "exp:6"
    assert val.images_per_class == (4, 4, 4)
    assert val.parameters.imbalance is None
    with pytest.raises(FileExistsError, match=r"imbalance is exp:6, not None"):
        write_splits(pets, tmp_path, BOTH, resolve_parameters(mode="raw", page_size_mib=2), num_workers=1)


@pytest.mark.parametrize("imbalance", ["exp:13", "step:100"])
def test_a_long_tail_that_leaves_a_class_without_images_is_refused(pets, imbalance):
    source = scan_splits(pets, BOTH)["train"]
    with pytest.raises(ValueError, match=rf"got {imbalance}, which leaves .* without an image.*a ratio of at most 12,"):
        draw(source, resolve_parameters(imbalance=imbalance))
    shape = imbalance.partition(":")[0]
    assert np.bincount(draw(source, resolve_parameters(imbalance=f"{shape}:12")).labels).min() == 1


def test_some_classes_are_what_a_folder_of_them_would_be(pets, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("dog a dog\n\ncat\n")
    sources = scan_splits(pets, BOTH)
    by_file = choose_classes(sources, str(names))
    part = tmp_path / "part"
    for split in BOTH:
        for name in ("cat", "dog"):
            (part / split).mkdir(parents=True, exist_ok=True)
            (part / split / name).symlink_to(pets / split / name)
    parameters = resolve_parameters(mode="jpg", page_size_mib=2)
    write_splits(part, tmp_path / "expected", BOTH, parameters, num_workers=1)
    write_sources(by_file, tmp_path / "out", parameters, num_workers=1)
    for split in BOTH:
        name = f"{split}.beton"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
        assert Manifest.read(tmp_path / "out" / name).classes == ("cat", "dog")
    assert choose_classes(sources, "2")["val"].classes == ("cat", "cow")
    assert choose_classes(sources, "2")["val"].digest != by_file["val"].digest
    with pytest.raises(ValueError, match=r"write\.classes: got 4, allowed are 1 to 3"):
        choose_classes(sources, "4")
    names.write_text("cat\nhen\n")
    with pytest.raises(ValueError, match=r"names\.txt, line 2: no class hen"):
        choose_classes(sources, str(names))
    with pytest.raises(FileNotFoundError, match=r"write\.classes: no such file: /nowhere"):
        choose_classes(sources, "/nowhere")


@pytest.mark.parametrize("imbalance", ["exp", "exp:0.5", "linear:3", "exp:-1", "exp:nan"])
def test_an_imbalance_that_is_none(imbalance):
    with pytest.raises(ValueError, match=r"write\.imbalance: got '.*', allowed is exp:RATIO or step:RATIO"):
        resolve_parameters(imbalance=imbalance)


def test_images_per_class_and_imbalance_exclude_each_other():
    with pytest.raises(ValueError, match=r"write\.per_class: got 3 with write\.imbalance=exp:2"):
        resolve_parameters(imbalance="exp:2", per_class=3)


def test_presets_of_small_data_sets():
    assert resolve_parameters(preset="cifar").mode == "raw"
    assert resolve_parameters(preset="cifar_lt").imbalance == "exp:100"
    assert resolve_parameters(preset="cifar_lt", imbalance="step:10").imbalance == "step:10"
    assert not resolve_parameters(preset="imagenette").reencode


def test_a_selection_of_a_selection(pets):
    source = scan_splits(pets, ["train"])["train"]
    part = select(select(source, np.array([3, 4, 20, 30])), np.array([1, 3]))
    assert part.files == [source.files[4], source.files[30]]
    assert part.read(1) == source.read(30)
