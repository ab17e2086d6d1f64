"""Files of stock FFCV become ours, and .beton files become images again."""

import resource

import numpy as np
import pytest
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter
from images import draw
from PIL import Image

from ffcv_imagenet.data import show
from ffcv_imagenet.data.adopt import adopt, main, oddities
from ffcv_imagenet.data.extract import extract
from ffcv_imagenet.data.format import manifest as manifests
from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.index import EntryIndex, verify_index
from ffcv_imagenet.data.format.manifest import Manifest, file_checksum
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.decode_cpu import CenterCropDecoder
from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
from ffcv_imagenet.data.read.orders import ShardedOrder
from ffcv_imagenet.data.verify import verify
from ffcv_imagenet.data.write.index import write_index
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits


class Listed:
    def __len__(self):
        return 12

    def __getitem__(self, number):
        return number % 4, draw(40, 50, number)


@pytest.fixture
def stock(tmp_path):
    """A file as ffcv-imagenet's users have it, with fields of other names in another order."""
    path = tmp_path / "val_500_0.50_90.beton"
    fields = {
        "target": IntField(),
        "pixels": RGBImageField(write_mode="proportion", compress_probability=0.5, jpeg_quality=90),
    }
    np.random.seed(1)  # noqa: NPY002 (stock FFCV draws by it)
    DatasetWriter(str(path), fields, page_size=2 << 20, num_workers=1).from_indexed_dataset(Listed())
    return path


def test_a_file_of_stock_ffcv_is_adopted(stock):
    before = stock.read_bytes()
    manifest = adopt(stock)
    assert stock.read_bytes() == before
    assert manifest == Manifest.read(stock)
    assert (manifest.split, manifest.source_format) == ("val", "adopted")
    assert manifest.classes == ("class_0", "class_1", "class_2", "class_3")
    assert manifest.images_per_class == (3, 3, 3, 3)
    assert (manifest.parameters.mode, manifest.parameters.page_size_mib) == ("proportion", 2)
    assert "is whole" in verify(stock, decode=True)
    verify_index(stock)
    samples = read_samples(stock, manifest)
    assert samples.label.tolist() == [number % 4 for number in range(12)]
    assert oddities(samples, manifest) == ["its fields are called target, pixels"]
    with pytest.raises(FileExistsError, match=r"has a manifest already: val_500_0\.50_90\.beton\.json"):
        adopt(stock)


def test_an_adopted_file_trains_like_any_other(stock):
    adopt(stock)
    options = {"batch_size": 5, "num_workers": 1, "device": torch.device("cpu")}
    loader = CPUBatchLoader(BetonFile.open(stock), CenterCropDecoder(40, 1.0), ShardedOrder(12), **options)
    batches = [(batch.images.clone(), batch.labels.clone()) for batch in loader.epoch(0, 40)]
    assert torch.cat([labels for _, labels in batches]).tolist() == [number % 4 for number in range(12)]
    images, samples = torch.cat([images for images, _ in batches]), read_samples(stock)
    for number in np.flatnonzero(~samples.is_jpeg):
        assert np.array_equal(images[number].permute(1, 2, 0).numpy(), draw(40, 50, number)[:, 5:45])


def test_classes_and_split_of_an_adopted_file(stock, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\ncow\n")
    with pytest.raises(ValueError, match="has labels up to 3, but there are 3 class names"):
        main([str(stock), f"--classes={names}"])
    names.write_text("cat\ndog\ncow\nhen\nowl\n")
    other = stock.rename(stock.with_name("500_0.50_90.beton"))
    with pytest.raises(ValueError, match=r"does not tell its split: give --split=train or --split=val"):
        adopt(other)
    main([str(other), f"--classes={names}", "--split=train"])
    assert Manifest.read(other).classes == ("cat", "dog", "cow", "hen", "owl")
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{other}: train, 12 images, 5 classes, ")
    assert out[1] == f"{other}: note: 1 classes have no image: owl"


def test_a_damaged_file_is_not_adopted(stock):
    samples = read_samples(stock)
    jpeg = int(np.flatnonzero(samples.is_jpeg)[0])
    content = bytearray(stock.read_bytes())
    start = int(samples.pointer[jpeg])
    content[start : start + 400] = bytes(400)
    stock.write_bytes(content)
    with pytest.raises(ValueError, match=rf"sample {jpeg} is damaged"):
        adopt(stock)
    assert not Manifest.path(stock).exists()
    assert not EntryIndex.path(stock).exists()


def test_an_index_that_is_there_is_kept_if_it_is_whole_and_of_this_file(stock, monkeypatch):
    index = write_index(stock)
    content = index.read_bytes()
    computed = []
    monkeypatch.setattr(manifests, "file_checksum", lambda beton: computed.append(beton) or file_checksum(beton))
    adopt(stock)
    assert index.read_bytes() == content
    assert computed == [stock]
    Manifest.path(stock).unlink()
    index.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"\.mcu is damaged"):
        adopt(stock)
    with stock.open("r+b") as file:  # another file of the same size
        samples = read_samples(stock)
        file.seek(int(samples.pointer[np.flatnonzero(~samples.is_jpeg)[0]]))
        file.write(b"\0\xff")
    index.write_bytes(content)
    with pytest.raises(ValueError, match=r"\.mcu belongs to another \.beton file; remove it"):
        adopt(stock)
    assert not Manifest.path(stock).exists()
    index.unlink()
    computed.clear()
    adopt(stock)
    verify_index(stock)
    assert computed == [stock]


def test_images_come_out_as_they_are_stored(stock, tmp_path):
    assert extract(stock, tmp_path / "images/train") == 12
    samples, content = read_samples(stock), stock.read_bytes()
    for number in range(12):
        data = content[int(samples.pointer[number]) :][: int(samples.size[number])]
        name = tmp_path / f"images/train/class_{number % 4}/{number:08}"
        if samples.is_jpeg[number]:
            assert name.with_suffix(".jpg").read_bytes() == data
        else:
            assert np.asarray(Image.open(name.with_suffix(".png"))).tobytes() == data
    assert {bool(is_jpeg) for is_jpeg in samples.is_jpeg} == {True, False}
    # Written again, JPEGs keep their bytes.
    parameters = resolve_parameters(mode="jpg", reencode=False, page_size_mib=2)
    write_splits(tmp_path / "images", tmp_path, ("train",), parameters, num_workers=1)
    again, content_again = read_samples(tmp_path / "train.beton"), (tmp_path / "train.beton").read_bytes()
    kept = [content_again[int(p) :][: int(s)] for p, s in zip(again.pointer, again.size, strict=True)]
    for number in np.flatnonzero(samples.is_jpeg):
        assert content[int(samples.pointer[number]) :][: int(samples.size[number])] in kept
    with pytest.raises(FileExistsError, match="is not empty: give another folder"):
        extract(stock, tmp_path / "images")


@pytest.mark.parametrize("out", ["out", "a/b/out", "there"])
def test_a_failed_extraction_leaves_nothing(stock, tmp_path, out):
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the closest to a full disk
    try:
        with pytest.raises(
            OSError, match=rf"^cannot write {tmp_path}/{out}/class_\d/\d{{8}}\.(jpg|png): File too large$"
        ):
            extract(stock, tmp_path / out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(tmp_path.rglob("*")) == before
    assert extract(stock, tmp_path / out) == 12


def test_a_class_that_leads_out_of_the_folder_is_not_extracted(stock, tmp_path):
    adopt(stock, ["..", "a/b", "c", "d"])
    with pytest.raises(ValueError, match="which is no name of a folder"):
        extract(stock, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_in_a_file_is_told_and_drawn(stock, tmp_path, capsys):
    adopt(stock)
    sheet = tmp_path / "sheet.png"
    show.main([str(stock), f"--sheet={sheet}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "12 images in 4 classes; split val, from ? (adopted)"
    assert lines[1] == "images per class: 3 to 3, median 3"
    assert "longest side in pixels: 50 to 50, median 50; shortest: 40 to 40, median 40" in lines
    assert "         3 class_2" in lines
    assert lines[-1].endswith(str(sheet))
    image = np.asarray(Image.open(sheet))
    assert image.shape == (2 * 3 * 112, 10 * 112, 3)
    assert (image[:112, :112] == 255).any()  # a whole sample has margins, a crop has none
    assert (image[112:224, :112] != image[224:336, :112]).any()
