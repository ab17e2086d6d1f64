import re
from pathlib import Path

import numpy as np
import pytest
import torchvision
from images import draw, draw_folder, read_image
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, default_loader

from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.sources.pixels import read_file
from ffcv_imagenet.data.sources.source import IMAGE_EXTENSIONS
from ffcv_imagenet.data.write.encode import encode_sample
from ffcv_imagenet.data.write.parameters import resolve_parameters

RGB = Image.fromarray(draw(13, 17))


def save_palette(path, **options):
    RGB.quantize(16).save(path, **options)


def save_rgba(path):
    alpha = Image.fromarray(draw(13, 17, seed=1)[..., 0])
    image = RGB.copy()
    image.putalpha(alpha)
    image.save(path)


def save_16_bit(path):
    Image.fromarray(np.arange(13 * 17, dtype=np.uint16).reshape(13, 17) * 290).save(path)


def save_rotated_by_exif(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    RGB.save(path, exif=exif)


KINDS = {
    "rgb.jpg": RGB.save,
    "rgb.JPEG": lambda path: RGB.save(path, "JPEG"),
    "rgb.png": RGB.save,
    "rgb.bmp": RGB.save,
    "rgb.ppm": RGB.save,
    "rgb.webp": RGB.save,
    "rgb.tiff": RGB.save,
    "progressive.jpg": lambda path: RGB.save(path, progressive=True),
    "subsampled.jpg": lambda path: RGB.save(path, subsampling=2),
    "grey.jpg": RGB.convert("L").save,
    "grey_alpha.png": RGB.convert("LA").save,
    "one_bit.png": RGB.convert("1").save,
    "grey.pgm": RGB.convert("L").save,
    "palette.png": save_palette,
    "palette_transparent.png": lambda path: save_palette(path, transparency=3),
    "rgba.png": save_rgba,
    "cmyk.jpg": RGB.convert("CMYK").save,
    "cmyk.tif": RGB.convert("CMYK").save,
    "16_bit.png": save_16_bit,
    "16_bit.tiff": save_16_bit,
    "float.tiff": RGB.convert("F").save,
    "png_inside.JPEG": lambda path: RGB.save(path, "PNG"),
    "gif_inside.jpg": lambda path: RGB.save(path, "GIF"),
    "exif.jpg": save_rotated_by_exif,
}


@pytest.mark.parametrize("name", KINDS)
def test_pixels_are_those_of_torchvisions_loader(tmp_path, name):
    path = tmp_path / name
    KINDS[name](path)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (13, 17, 3)
    np.testing.assert_array_equal(image, np.asarray(default_loader(path)))


def test_pixels_of_a_progressive_jpeg_without_its_last_scans_are_those_of_torchvisions_loader(tmp_path):
    path = tmp_path / "image.jpg"
    Image.fromarray(draw(50, 70)).save(path, progressive=True, quality=30)
    whole = path.read_bytes()
    starts = [match.start() for match in re.finditer(b"\xff\xda", whole)]
    assert len(starts) > 5
    for start in starts[1:]:
        path.write_bytes(whole[:start] + b"\xff\xd9")
        np.testing.assert_array_equal(read_image(path), np.asarray(default_loader(path)))


def save_cut(path):
    RGB.save(path)
    path.write_bytes(path.read_bytes()[:-200])


BROKEN = {
    "empty.jpg": Path.touch,
    "text.jpg": lambda path: path.write_text("<html>404</html>"),
    "cut.jpg": save_cut,
    "cut.png": save_cut,
    "only_a_start.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
    "vanished.jpg": lambda path: None,
    "dangling.jpg": lambda path: path.symlink_to("nowhere"),
    "folder.jpg": Path.mkdir,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_has_a_reason_in_one_line(tmp_path, name):
    path = tmp_path / name
    BROKEN[name](path)
    reason = encode_sample(lambda _: read_file(str(path)), 0, "raw", resolve_parameters(mode="raw"))
    assert isinstance(reason, ValueError)
    assert re.fullmatch(".+", str(reason))


def test_lists_what_torchvision_lists(tmp_path):
    draw_folder(tmp_path, classes=("b", "a", "C", "ä"))
    for extra in ("a/z.JPG", "a/A.png", "a/deep/er/1.webp", "a/deep/0.png", "b/10.png", "b/9.png"):
        path = tmp_path / "train" / extra
        path.parent.mkdir(parents=True, exist_ok=True)
        RGB.save(path)
    (tmp_path / "train/a/notes.txt").touch()
    (tmp_path / "train/a/.DS_Store").touch()
    (tmp_path / "train/list.csv").touch()
    (tmp_path / "elsewhere").mkdir()
    RGB.save(tmp_path / "elsewhere/linked.png")
    (tmp_path / "train/C/link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    expected = torchvision.datasets.ImageFolder(tmp_path / "train")
    folder = scan_splits(tmp_path, ["train"])["train"]
    assert list(folder.classes) == expected.classes
    assert [str(folder.folder / file) for file in folder.files] == [path for path, _ in expected.samples]
    assert folder.labels.dtype == np.int64
    assert folder.labels.tolist() == expected.targets


def test_each_real_folder_is_read_once_and_links_that_repeat_one_are_named(tmp_path):
    draw_folder(tmp_path, train=3, classes=("a", "b"))
    train = tmp_path / "train"
    plain = scan_splits(tmp_path, ["train"])["train"]
    for link, target in {"a/loop": train / "a", "a/up": train, "a/top": tmp_path}.items():
        (train / link).symlink_to(target, target_is_directory=True)
    looped = scan_splits(tmp_path, ["train"])["train"]
    assert (looped.files, looped.digest) == (plain.files, plain.digest)
    assert sorted(looped.repeated) == ["a/loop", "a/top", "a/up"]
    (train / "b/deep").mkdir()
    RGB.save(train / "b/deep/1.png")
    for link in ("b/again", "b/deeper"):
        (train / link).symlink_to("deep", target_is_directory=True)
    (train / "b/deep/up").symlink_to("..", target_is_directory=True)
    twice = scan_splits(tmp_path, ["train"])["train"]
    assert [file for file in twice.files if file not in plain.files] == ["b/deep/1.png"]
    assert sorted(set(twice.repeated) - set(looped.repeated)) == ["b/again", "b/deep/up", "b/deeper"]


def test_extensions_are_torchvisions():
    assert IMAGE_EXTENSIONS == IMG_EXTENSIONS


def test_digest_tells_data_sets_apart_but_not_where_they_lie(tmp_path):
    def digest(root):
        return scan_splits(root, ["train"])["train"].digest

    first = digest(draw_folder(tmp_path / "first"))
    second = draw_folder(tmp_path / "second")
    assert digest(second) == first
    image = second / "train/cat/000.png"
    image.write_bytes(image.read_bytes() + b"\0")
    resized = digest(second)
    image.rename(image.with_name("0.png"))
    renamed = digest(second)
    for split in ("train", "val"):
        (second / split / "cat").rename(second / split / "bird")
    assert len({first, resized, renamed, digest(second)}) == 4


def remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def empty(folder: Path) -> None:
    remove(folder)
    folder.mkdir()
    (folder / "readme.txt").touch()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda root: root.rename(root.with_name("away")), FileNotFoundError, "image folder not found: .*/root"),
        (
            lambda root: (root / "val").rename(root / "other"),
            FileNotFoundError,
            r"folder not found: .*/root/val \(.*/<image>\)$",
        ),
        (lambda root: (root / "val").rename(root / "test"), FileNotFoundError, "/root/val .*: ln -s test .*/root/val"),
        (lambda root: [remove(root / "val" / name) for name in ("cat", "dog")], FileNotFoundError, "no class folders"),
        (lambda root: remove(root / "val/dog"), ValueError, r"must have the classes of .*: 1 missing \(dog\)"),
        (lambda root: (root / "val/cow").mkdir(), ValueError, r"1 not in train \(cow\)"),
        (lambda root: (root / "val/cat").rename(root / "val/cow"), ValueError, r"missing \(cat\); .*train \(cow\)"),
        (lambda root: empty(root / "train/dog"), ValueError, r"class folder .*/train/dog has no images .*\.jpeg"),
        (lambda root: empty(root / "val/cat"), ValueError, "class folder .*/val/cat has no images"),
    ],
)
def test_folder_that_is_no_data_set(tmp_path, change, error, message):
    root = draw_folder(tmp_path / "root", train=1, val=1)
    change(root)
    with pytest.raises(error, match=message):
        scan_splits(root, ["train", "val"])


def test_val_alone_needs_no_train_folder_but_obeys_it(tmp_path):
    root = draw_folder(tmp_path / "root", train=1, val=1)
    remove(root / "val/cat")
    with pytest.raises(ValueError, match=r"missing \(cat\)"):
        scan_splits(root, ["val"])
    (root / "train").rename(tmp_path / "away")
    assert scan_splits(root, ["val"])["val"].classes == ("dog",)
