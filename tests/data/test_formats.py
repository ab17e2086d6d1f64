"""The forms in which people have data sets give the .beton of the unpacked folder."""

import os
import pickle
import shutil
import sys
import tarfile

import numpy as np
import pytest
from containers import (
    BOTH,
    PARAMETERS,
    add,
    assert_same,
    files_of,
    make_cars,
    make_cifar,
    make_cub,
    make_imagenet,
    make_kaggle,
    make_parquet,
    make_shards,
    make_tar,
    make_zip,
    write,
)
from images import draw_folder
from PIL import Image

from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources import cifar
from ffcv_imagenet.data.sources.find import find_sources
from ffcv_imagenet.data.write.splits import write_splits

SYNSETS = ("n01440764", "n01443537", "n02084071")


@pytest.fixture
def images(synset_images):
    return synset_images


@pytest.fixture
def expected(synset_betons):
    return synset_betons


def test_the_official_archives_of_imagenet(tmp_path, images, expected):
    make_imagenet(tmp_path, images)
    assert_same(tmp_path, expected, tmp_path / "out", "imagenet")
    assert Manifest.read(tmp_path / "out/val.beton").class_names[0] == "words of n01440764, other words"


def test_archives_of_imagenet_that_are_not_whole(tmp_path, images):
    make_imagenet(tmp_path, images, skip="ILSVRC2012_val_00000002.JPEG")
    with pytest.raises(ValueError, match=r"ILSVRC2012_img_val\.tar: it has 5 of 6 images"):
        write(tmp_path, tmp_path / "out")
    assert write(tmp_path, tmp_path / "out", on_error="skip")["val"].num_samples == 5
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ILSVRC2012_devkit_t12\.tar\.gz, which has the labels"):
        find_sources(tmp_path, BOTH)
    assert find_sources(tmp_path, ["train"])["train"].class_names == ()
    (tmp_path / "ILSVRC2012_img_val.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ILSVRC2012_img_val\.tar"):
        find_sources(tmp_path, BOTH)


# Damage


@pytest.mark.parametrize("form", ["folder", "zip", "tar.gz"])
def test_the_competition_of_kaggle(tmp_path, images, expected, form):
    folder = root = make_kaggle(tmp_path / "kaggle", images)
    if form == "zip":
        root = make_zip(tmp_path / "imagenet-object-localization-challenge.zip", folder)
    elif form == "tar.gz":  # its CSV files are downloaded next to it
        make_tar(tmp_path / "imagenet_object_localization_patched2019.tar.gz", folder / "ILSVRC", "ILSVRC/", "w:gz")
        for file in folder.glob("LOC*"):
            file.rename(tmp_path / file.name)
        root = tmp_path
    assert_same(root, expected, tmp_path / "out", "kaggle")
    assert Manifest.read(tmp_path / "out/train.beton").class_names[0] == "a n01440764, another"


def test_the_competition_of_kaggle_with_other_labels_than_images(tmp_path, images):
    folder = make_kaggle(tmp_path, images)
    solution = folder / "LOC_val_solution.csv"
    lines = solution.read_text().splitlines()
    solution.write_text("\n".join([*lines[:-1], lines[-1].replace(lines[-1][:23], "ILSVRC2012_val_00000099")]))
    with pytest.raises(ValueError, match=r"LOC_val_solution\.csv, line 7: .*val has no image ILSVRC2012_val_00000099"):
        write(folder, tmp_path / "out")
    assert write(folder, tmp_path / "out", on_error="skip")["val"].num_samples == 5
    solution.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no LOC_val_solution\.csv"):
        find_sources(folder, BOTH)


CIFAR_NAMES = ("airplane", "automobile", "bird")


@pytest.fixture(scope="module")
def small_images():
    """Pixels [N, 3, 32, 32] and labels by file of CIFAR-10."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (4, 3, 32, 32), np.uint8), rng.permutation([0, 1, 2, number % 3]))
        for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"])
    }


@pytest.fixture(scope="module")
def small_expected(small_images, tmp_path_factory):
    """What the writer makes of the images of CIFAR as PNG files in folders."""
    root = tmp_path_factory.mktemp("small")
    for split in BOTH:
        files = [file for file in small_images if (file == "test_batch") == (split == "val")]
        pixels, labels = (np.concatenate([small_images[file][part] for file in files]) for part in (0, 1))
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            folder = root / split / CIFAR_NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:05}.png")
    write_splits(root, root, BOTH, PARAMETERS, num_workers=1)
    return root


@pytest.mark.parametrize("form", ["tar.gz", "folder"])
@pytest.mark.parametrize("version", cifar.VERSIONS)
def test_cifar_as_it_is_published(tmp_path, small_images, small_expected, version, form):
    root = make_cifar(tmp_path / "files", small_images, version, CIFAR_NAMES)
    if form == "tar.gz":
        root = make_tar(tmp_path / f"{version}.tar.gz", tmp_path / "files", mode="w:gz")
    assert_same(root, small_expected, tmp_path / "out", "cifar", same_digest=False)


def test_a_pickle_of_cifar_runs_no_code(tmp_path, small_images):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/run",)

    root = make_cifar(tmp_path, small_images, "cifar-10-batches-py", CIFAR_NAMES)
    (root / "data_batch_3").write_bytes(pickle.dumps({b"data": Hostile(), b"labels": [0]}))
    with pytest.raises(ValueError, match=r"data_batch_3 is not CIFAR's: .*the pickle calls posix\.system, .* not run"):
        find_sources(root, BOTH)
    assert not (tmp_path / "run").exists()
    (root / "data_batch_3").write_bytes(b"\x80")
    with pytest.raises(ValueError, match=r"data_batch_3 is not CIFAR's"):
        find_sources(root, BOTH)
    (root / "data_batch_3").unlink()
    with pytest.raises(ValueError, match="has no member data_batch_3"):
        find_sources(root, BOTH)


def test_the_digest_of_cifar_tells_other_pixels(tmp_path, small_images):
    root = make_cifar(tmp_path, small_images, "cifar-10-batches-bin", CIFAR_NAMES)
    before = find_sources(root, BOTH)["val"].digest
    file = root / "test_batch.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert find_sources(root, BOTH)["val"].digest != before


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("header", ["", "label,path,split\n"])
def test_csv_files(tmp_path, images, expected, numbers, header):
    lines = []
    for file in files_of(images):
        if file.suffix == ".JPEG":
            split, name = file.parts[-3:-1]
            label = SYNSETS.index(name) if numbers else name
            path = os.path.relpath(file, tmp_path)
            split = "validation" if split == "val" else split
            lines.append(f"{label},{path},{split}\n" if header else f"{path},{label},{split}\n")
    (tmp_path / "images.csv").write_text(header + "".join(lines))
    out = tmp_path / "out"
    for split, manifest in write(tmp_path / "images.csv", out).items():
        assert manifest.source_format == "csv"
        assert (out / f"{split}.beton").read_bytes() == (expected / f"{split}.beton").read_bytes()
        assert manifest.classes == (("class_0", "class_1", "class_2") if numbers else SYNSETS)
    (tmp_path / "images.csv").write_text(header + "".join([*lines, "only\n"]))
    with pytest.raises(
        ValueError, match=rf"images\.csv, line {len(lines) + 1 + bool(header)}: got \['only'\], allowed"
    ):
        find_sources(tmp_path / "images.csv", BOTH)


def test_no_line_of_a_csv_file_is_left_out_silently(tmp_path):
    file, lines = tmp_path / "images.csv", ["path,label,split", "a.jpg,cat,train", "b.jpg,cat,val", "c.jpg,cat,test"]
    file.write_text("\n".join(lines))
    assert {split: source.files for split, source in find_sources(file, BOTH).items()} == {
        "train": ["cat/a.jpg"],
        "val": ["cat/b.jpg"],
    }
    file.write_text("\n".join([*lines, "d.jpg,cat,trian"]))
    with pytest.raises(ValueError, match=r"images\.csv, line 5: got the split 'trian', allowed is train \| training"):
        find_sources(file, BOTH)
    file.write_text("\n".join([*lines, "d.jpg,cat,"]))
    with pytest.raises(ValueError, match=r"images\.csv: d\.jpg has no split, which other lines have"):
        find_sources(file, BOTH)


def test_a_csv_file_for_each_split(tmp_path, images, expected):
    for split in BOTH:
        rows = [f"{os.path.relpath(file, tmp_path)},{file.parent.name}" for file in files_of(images / split)]
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    assert_same(tmp_path, expected, tmp_path / "out", "csv", same_digest=False)
    rows = [f"{file.resolve()},{file.parent.name}" for file in files_of(images / "val")]
    (tmp_path / "val.csv").write_text("\n".join(rows))
    assert_same(tmp_path, expected, tmp_path / "absolute", "csv", same_digest=False)
    (tmp_path / "val.csv").write_text("gone.jpg,n01440764\n")
    with pytest.raises(ValueError, match=r"val\.csv must have the classes of .*train\.csv: 2 missing"):
        find_sources(tmp_path, BOTH)


@pytest.mark.parametrize("form", ["cls", "json", "folder"])
@pytest.mark.parametrize("pattern", [False, True])
def test_shards_of_webdataset(tmp_path, images, expected, form, pattern):
    root = make_shards(tmp_path / "shards", images, form)
    out = tmp_path / "out"
    for split, manifest in write(root / "imagenet-{train,val}-{000..001}.tar" if pattern else root, out).items():
        assert manifest.source_format == "webdataset"
        assert manifest.classes == (SYNSETS if form == "folder" else ("class_0", "class_1", "class_2"))
        assert manifest.source_folder == "shards"
        assert (out / f"{split}.beton").read_bytes() == (expected / f"{split}.beton").read_bytes()


def test_one_shard_for_one_split(tmp_path, images, expected):
    shard = make_shards(tmp_path / "shards", images, "cls", count=1) / "imagenet-val-000.tar"
    write(shard.rename(tmp_path / "images.tar"), tmp_path / "out", splits=("val",))
    assert (tmp_path / "out/val.beton").read_bytes() == (expected / "val.beton").read_bytes()


def test_shards_that_are_not_whole(tmp_path, images):
    root = make_shards(tmp_path / "shards", images, "json")
    with pytest.raises(FileNotFoundError, match=r"imagenet-train-002\.tar, one of the 3 that .* stands for"):
        find_sources(root / "imagenet-train-{000..002}.tar", ["train"])
    with tarfile.open(root / "imagenet-val-001.tar", "a") as archive:
        add(archive, "x.jpg", b"")
        add(archive, "x.json", b"[]")
    with pytest.raises(ValueError, match=r"imagenet-val-001\.tar: x\.json: allowed is a JSON object with a label in"):
        find_sources(root, BOTH)
    for file in root.glob("*val*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no \.tar file with val in its name .*--write\.splits=train"):
        find_sources(root, BOTH)


def test_parquet_shards(tmp_path, images, expected):
    root = make_parquet(tmp_path / "data", images)
    assert_same(tmp_path, expected, tmp_path / "out", "parquet", same_digest=False)
    content = bytearray((root / "validation-00001-of-00002.parquet").read_bytes())
    (root / "validation-00001-of-00002.parquet").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"validation-00001-of-00002\.parquet cannot be read"):
        find_sources(tmp_path, BOTH)


def test_parquet_shards_without_class_names(tmp_path, images):
    make_parquet(tmp_path / "data", images, named=False)
    assert find_sources(tmp_path, BOTH)["val"].classes == ("class_0", "class_1", "class_2")


def test_parquet_without_pyarrow_is_a_line(tmp_path, monkeypatch):
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="reading Parquet files needs pyarrow: pip install pyarrow"):
        find_sources(tmp_path, ["train"])


CLASSES_OF_CUB = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


@pytest.mark.parametrize("form", ["folder", "tgz"])
def test_cub(tmp_path, form):
    images = draw_folder(tmp_path / "images", classes=CLASSES_OF_CUB)
    write_splits(images, tmp_path / "expected", BOTH, PARAMETERS, num_workers=1)
    root = make_cub(tmp_path / "files", images)
    if form == "tgz":
        root = make_tar(tmp_path / "CUB_200_2011.tgz", tmp_path / "files", mode="w:gz")
    assert_same(root, tmp_path / "expected", tmp_path / "out", "cub", same_digest=False)
    assert Manifest.read(tmp_path / "out/val.beton").class_names == ("Black footed Albatross", "Laysan Albatross")


@pytest.mark.parametrize("form", ["folder", "tgz"])
def test_stanford_cars(tmp_path, form):
    classes = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")
    images = draw_folder(tmp_path / "images", classes=classes, extension=".jpg")
    write_splits(images, tmp_path / "expected", BOTH, PARAMETERS, num_workers=1)
    root = make_cars(tmp_path / "cars", images)
    if form == "tgz":
        for folder, archive in (("cars_train", "cars_train"), ("cars_test", "cars_test"), ("devkit", "car_devkit")):
            make_tar(root / f"{archive}.tgz", root / folder, f"{folder}/", "w:gz")
            shutil.rmtree(root / folder)
    assert_same(root, tmp_path / "expected", tmp_path / "out", "cars", same_digest=False)
    (root / "cars_test_annos_withlabels.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"cars_test_annos_withlabels\.mat cannot be read"):
        find_sources(root, BOTH)


def test_names_of_classes_from_a_file(tmp_path, images):
    file = tmp_path / "names.txt"
    for text in ("n02084071 dog\nn01440764 tench\n\nn01443537 great fish\n", "tench\ngreat fish\ndog\n"):
        file.write_text(text)
        assert find_sources(images, BOTH, class_names=file)["val"].class_names == ("tench", "great fish", "dog")
    file.write_text("tench\n")
    with pytest.raises(ValueError, match=r"names\.txt has 1 lines, allowed are a line for each of the 3 classes"):
        find_sources(images, BOTH, class_names=file)


def test_a_data_set_of_torchvision(tmp_path):
    classes = ("Abyssinian", "American Bulldog")
    images = draw_folder(tmp_path / "images", classes=classes, extension=".png")
    write_splits(images, tmp_path / "expected", BOTH, PARAMETERS, num_workers=1)
    base = tmp_path / "oxford-iiit-pet"
    for folder in ("images", "annotations/trimaps"):
        (base / folder).mkdir(parents=True)
    number = 0
    for split, name in (("train", "trainval"), ("val", "test")):
        lines = []
        for file in sorted(images.glob(f"{split}/*/*")):
            number += 1
            image = f"{file.parent.name.replace(' ', '_')}_{number}"
            (base / f"images/{image}.jpg").write_bytes(file.read_bytes())
            lines.append(f"{image} {classes.index(file.parent.name) + 1} 1 1\n")
        (base / f"annotations/{name}.txt").write_text("".join(lines))
    out, format = tmp_path / "out", "torchvision:OxfordIIITPet"
    assert_same(tmp_path, tmp_path / "expected", out, format, same_digest=False, chosen=format)
    with pytest.raises(ValueError, match=r"/out: torchvision: Dataset not found"):
        find_sources(out, BOTH, format)
    for name in ("Nothing", "ImageFolder"):
        with pytest.raises(ValueError, match=rf"got torchvision:{name}, allowed is a class of torchvision\.datasets"):
            find_sources(tmp_path, BOTH, f"torchvision:{name}")
    (base / "images/Abyssinian_1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"OxfordIIITPet, train\): item 0: cannot identify image file"):
        write(tmp_path, tmp_path / "other", format)
