"""What the writer makes of images: FFCV's bytes, and how each image is stored."""

import dataclasses

import cv2
import numpy as np
import pytest
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter
from images import draw, draw_folder, read_image
from PIL import Image
from writing import stored, write

from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.write.encode import EncodedImage
from ffcv_imagenet.data.write.pages import BetonWriter
from ffcv_imagenet.data.write.parameters import PRESETS, resolve_parameters, sample_order, storage_modes
from ffcv_imagenet.files import exclusive_file


class Listed:
    """An indexable data set, as FFCV's writer wants it."""

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return len(self.folder.files)

    def __getitem__(self, index):
        return read_image(str(self.folder.folder / self.folder.files[index])), self.folder.labels[index]


def test_file_is_byte_for_byte_ffcvs(tmp_path):
    root = draw_folder(tmp_path / "root", train=9, size=(300, 400))  # 18 images of 360,000 bytes: 4 pages
    fields = {"image": RGBImageField(write_mode="raw", max_resolution=390), "label": IntField()}
    writer = DatasetWriter(str(tmp_path / "ffcv.beton"), fields, page_size=2 << 20, num_workers=1)
    writer.from_indexed_dataset(Listed(scan_splits(root, ["train"])["train"]))
    ours = write(root, tmp_path / "out", mode="raw", max_resolution=390)
    assert ours.stat().st_size > 4 * (2 << 20)
    assert ours.read_bytes() == (tmp_path / "ffcv.beton").read_bytes()


#: With these a preset stores some of 18 images as JPEG and some raw.
SEED_OF_BOTH = {"rn50": 0, "rn18": 1}


def test_presets_store_the_bytes_that_stock_ffcv_stores(tmp_path):
    """Images above and below the preset's size, as JPEG and PNG; FFCV draws otherwise which of them become JPEGs."""
    folder = tmp_path / "root/train/pet"
    folder.mkdir(parents=True)
    sizes = [(300, 399), (500, 375), (501, 420), (1001, 333), (410, 700), (333, 500)]
    for number, size in enumerate(sizes):
        for extension, options in ((".png", {}), (".jpg", {"quality": 95}), (".jpeg", {"progressive": True})):
            Image.fromarray(draw(*size, seed=number)).save(folder / f"{number}{extension}", **options)
    for preset in SEED_OF_BOTH:
        options = PRESETS[preset]
        beton = write(tmp_path / "root", tmp_path / preset, preset=preset, seed=SEED_OF_BOTH[preset])
        images = scan_splits(tmp_path / "root", ["train"])["train"]
        by_ffcv = {}
        for mode in ("jpg", "raw"):
            path = tmp_path / f"{preset}_{mode}.beton"
            field = RGBImageField(
                write_mode=mode, max_resolution=options["max_resolution"], jpeg_quality=options["jpeg_quality"]
            )
            stock = DatasetWriter(str(path), {"image": field, "label": IntField()}, page_size=2 << 20, num_workers=1)
            stock.from_indexed_dataset(Listed(images))
            by_ffcv[mode] = stored(path)
        ours = stored(beton)
        assert {bool(is_jpeg) for is_jpeg, _ in ours} == {True, False}
        for number, (is_jpeg, data) in enumerate(ours):
            assert (is_jpeg, data) == by_ffcv["jpg" if is_jpeg else "raw"][number], images.files[number]


def test_stock_loader_reads_it(tmp_path, pets):
    beton = write(pets, tmp_path, mode="proportion", jpeg_quality=100)
    folder = scan_splits(pets, ["train"])["train"]
    samples = stored(beton)
    assert 0 < sum(is_jpeg for is_jpeg, _ in samples) < len(samples)
    loader = Loader(
        str(beton),
        batch_size=len(samples),
        num_workers=1,
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
    )
    images, labels = next(iter(loader))
    assert labels[:, 0].tolist() == folder.labels.tolist() == [0] * 12 + [1] * 12
    for image, file, (is_jpeg, data) in zip(images, folder.files, samples, strict=True):
        if is_jpeg:  # FFCV decodes with libjpeg's faster, less exact transform
            expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            assert np.abs(image.astype(int) - expected).mean() < 3
        else:
            np.testing.assert_array_equal(image, read_image(str(folder.folder / file)))


def test_jpeg_bytes_are_those_of_opencv(tmp_path, pets):
    beton = write(pets, tmp_path, jpeg_quality=70)
    first = read_image(str(pets / "train/cat/000.png"))
    _, expected = cv2.imencode(".jpg", first[..., ::-1].copy(), [cv2.IMWRITE_JPEG_QUALITY, 70])
    assert stored(beton)[0] == (True, expected.tobytes())


@pytest.mark.parametrize(
    ("sizes", "num_pages"),
    [([1], 1), ([2 << 20], 1), ([1 << 20, 1 << 20], 1), ([1 << 20, (1 << 20) + 1], 2), ([2 << 20, 1, 2 << 20], 3)],
)
def test_no_sample_crosses_a_page(tmp_path, sizes, num_pages):
    page = 2 << 20
    beton = tmp_path / "x.beton"
    with exclusive_file(beton) as file:
        writer = BetonWriter(file, len(sizes), page)
        for label, size in enumerate(sizes):
            writer.append(EncodedImage(False, 1, 1, bytes([label + 1]) * size), label)
        writer.finish()
    table = Reader(str(beton)).alloc_table
    assert table["sample_id"].tolist() == list(range(len(sizes)))
    assert (table["ptr"] // page == (table["ptr"] + table["size"] - 1) // page).all()
    assert beton.stat().st_size == (1 + num_pages) * page + table.nbytes
    assert [data for _, data in stored(beton)] == [bytes([i + 1]) * size for i, size in enumerate(sizes)]


def test_head_larger_than_a_page(tmp_path):
    num_samples = 100_000  # 24 bytes of metadata each
    beton = tmp_path / "x.beton"
    with exclusive_file(beton) as file:
        writer = BetonWriter(file, num_samples, 2 << 20)
        for label in range(num_samples):
            writer.append(EncodedImage(True, 1, 1, b"%06d" % label), label)
        writer.finish()
    reader = Reader(str(beton))
    assert reader.metadata["f1"].tolist() == list(range(num_samples))
    assert reader.alloc_table["ptr"].min() == 2 * (2 << 20)


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    root = draw_folder(tmp_path / "root", train=40, size=(150, 200))
    options = {"mode": "proportion", "shuffle": True, "subset": 70}
    one = write(root, tmp_path / "one", num_workers=1, **options)
    two = write(root, tmp_path / "two", num_workers=2, **options)
    assert one.read_bytes() == two.read_bytes()
    assert Manifest.read(one).checksum == Manifest.read(two).checksum


# Which images, and how they are stored


def test_proportion_is_drawn_by_seed_and_index():
    half = resolve_parameters(mode="proportion", compress_probability=0.5)
    modes = storage_modes(20_000, half)
    assert storage_modes(100, half) == modes[:100]
    assert abs(modes.count("jpg") / 20_000 - 0.5) < 0.015
    tenth = storage_modes(20_000, dataclasses.replace(half, compress_probability=0.1))
    assert abs(tenth.count("jpg") / 20_000 - 0.1) < 0.01
    assert storage_modes(100, dataclasses.replace(half, seed=1)) != modes[:100]
    assert modes[:8] == ["raw", "raw", "raw", "jpg", "raw", "jpg", "raw", "raw"]  # the same in every version


@pytest.mark.parametrize(("probability", "expected"), [(0.0, "raw"), (1.0, "jpg")])
def test_proportion_of_all_and_none(probability, expected):
    parameters = resolve_parameters(mode="proportion", compress_probability=probability)
    assert set(storage_modes(1000, parameters)) == {expected}


def test_smart_chooses_by_size(tmp_path):
    root = draw_folder(tmp_path / "root", train=1, val=1)
    Image.new("RGB", (4, 4)).save(root / "train/cat/000.png")  # a JPEG's head alone is larger
    Image.new("RGB", (64, 64)).save(root / "train/dog/000.png")
    beton = write(root, tmp_path / "out", mode="smart")
    assert [is_jpeg for is_jpeg, _ in stored(beton)] == [False, True]
    assert Manifest.read(beton).parameters.smart_threshold == 2


def test_subset_and_shuffle():
    parameters = resolve_parameters(subset=30)
    subset = sample_order(100, parameters)
    assert subset.tolist() == sorted(set(subset.tolist()))
    assert len(subset) == 30
    shuffled = sample_order(100, dataclasses.replace(parameters, shuffle=True))
    assert shuffled.tolist() != subset.tolist()
    assert sorted(shuffled) == subset.tolist()
    assert sample_order(100, dataclasses.replace(parameters, seed=1)).tolist() != subset.tolist()
    assert sample_order(100, resolve_parameters()).tolist() == list(range(100))
    assert sorted(sample_order(100, resolve_parameters(shuffle=True))) == list(range(100))
    assert sample_order(100, resolve_parameters(subset=100)).tolist() == list(range(100))


def test_every_sample_of_a_subset_is_as_likely():
    drawn = [sample_order(10, resolve_parameters(subset=3, seed=seed)) for seed in range(1000)]
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert counts.min() > 240
    assert counts.max() < 360


def test_shuffled_labels_stay_with_their_images(tmp_path, pets):
    beton = write(pets, tmp_path, mode="raw", shuffle=True, seed=3)
    folder = scan_splits(pets, ["train"])["train"]
    labels = Reader(str(beton)).metadata["f1"].tolist()
    assert labels not in (sorted(labels), sorted(labels, reverse=True))
    expected = {
        read_image(str(folder.folder / file)).tobytes(): label
        for file, label in zip(folder.files, folder.labels, strict=True)
    }
    assert [expected[data] for _, data in stored(beton)] == labels


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("jpg", None, None, None, 90)),
        ({"mode": "raw"}, ("raw", None, None, None, None)),
        ({"mode": "smart"}, ("smart", None, None, 2.0, 90)),
        ({"mode": "smart", "smart_threshold": 0.0}, ("smart", None, None, 0.0, 90)),
        ({"mode": "proportion"}, ("proportion", None, 0.5, None, 90)),
        ({"mode": "proportion", "compress_probability": 0.0}, ("proportion", None, 0.0, None, 90)),
        ({"preset": "rn50"}, ("proportion", 500, 0.5, None, 90)),
        ({"preset": "rn18"}, ("proportion", 400, 0.1, None, 90)),
        ({"preset": "rn18", "compress_probability": 0.3}, ("proportion", 400, 0.3, None, 90)),
        ({"preset": "rn50", "max_resolution": 256, "jpeg_quality": 75}, ("proportion", 256, 0.5, None, 75)),
        ({"preset": "rn50", "mode": "raw"}, ("raw", 500, None, None, None)),
        ({"preset": "rn50", "mode": "smart", "smart_threshold": 3.0}, ("smart", 500, None, 3.0, 90)),
    ],
)
def test_presets_and_defaults(given, expected):
    p = resolve_parameters(**given)
    assert (p.mode, p.max_resolution, p.compress_probability, p.smart_threshold, p.jpeg_quality) == expected
    assert p.resize == (None if p.max_resolution is None else "area")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"compress_probability": 0.5}, r"write\.compress_probability: got 0\.5 for write.mode=jpg, .*=proportion"),
        ({"mode": "smart", "compress_probability": 0.5}, r"write\.compress_probability: .*mode=smart"),
        ({"preset": "rn50", "mode": "raw", "compress_probability": 0.5}, r"write\.compress_probability"),
        ({"smart_threshold": 2.0}, r"write\.smart_threshold: got 2\.0 for .*=smart"),
        ({"preset": "rn50", "smart_threshold": 2.0}, r"write\.smart_threshold: .*mode=proportion"),
        ({"mode": "raw", "jpeg_quality": 90}, r"write\.jpeg_quality: got 90 .*jpg \| smart \| proportion"),
        ({"subset": 0}, r"write\.subset: got 0"),
        ({"resize": "area"}, r"write\.resize: got area, .*write\.max_resolution=PIXELS"),
        ({"page_size_mib": 12}, r"write\.page_size_mib: got 12, allowed is a power of 2"),
    ],
)
def test_options_that_do_not_apply(given, message):
    with pytest.raises(ValueError, match=message):
        resolve_parameters(**given)
