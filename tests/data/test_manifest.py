import dataclasses
import json

import pytest

from ffcv_imagenet.data.format.manifest import (
    CHECKSUM_BLOCK,
    FORMAT_VERSION,
    MAX_PIXELS,
    Manifest,
    WriteParameters,
    block_digests,
    combine_digests,
)

CONTENT = bytes(range(256)) * (CHECKSUM_BLOCK // 100)  # two and a half blocks


@pytest.fixture
def beton(tmp_path):
    path = tmp_path / "train.beton"
    path.write_bytes(CONTENT)
    manifest().write(path)
    return path


def manifest(**changes):
    values = Manifest(
        format_version=FORMAT_VERSION,
        split="train",
        classes=("cat", "dög", "n\udc80"),
        images_per_class=(2, 0, 3),
        num_samples=5,
        parameters=WriteParameters(
            mode="proportion",
            max_resolution=None,
            resize=None,
            compress_probability=0.5,
            smart_threshold=None,
            reencode=True,
            jpeg_quality=90,
            subset=-1,
            shuffle=True,
            seed=0,
            page_size_mib=8,
            max_pixels=MAX_PIXELS,
        ),
        source_folder="pets",
        source_digest="ab",
        skipped={"cat/1.jpg": "not an image"},
        versions={"numpy": "2"},
        num_bytes=len(CONTENT),
        checksum=combine_digests(block_digests(CONTENT)),
        tables_checksum="0" * 64,
        created="2024-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(values, **changes)


def test_round_trip(beton):
    assert Manifest.read(beton) == manifest()
    assert manifest().num_classes == 3
    assert sorted(path.name for path in beton.parent.iterdir()) == ["train.beton", "train.beton.json"]


def test_verify_finds_a_flipped_bit_anywhere(beton):
    manifest().verify(beton)
    for position in (0, CHECKSUM_BLOCK, len(CONTENT) - 1):
        damaged = bytearray(CONTENT)
        damaged[position] ^= 1
        beton.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train\.beton is damaged"):
            manifest().verify(beton)


def test_missing_files_are_named_with_a_way_out(beton):
    Manifest.path(beton).unlink()
    with pytest.raises(ValueError, match=r"train\.beton is not a \.beton file \(python -m ffcv_imagenet\.write makes"):
        Manifest.read(beton)
    beton.write_bytes(b"\2\0" + CONTENT)
    with pytest.raises(
        FileNotFoundError,
        match=r"has no manifest train\.beton\.json: it is a file of stock FFCV, .*imagenet.write,",
    ):
        Manifest.read(beton)
    beton.unlink()
    with pytest.raises(FileNotFoundError, match=r"not found: .*train\.beton .*ffcv_imagenet.write"):
        Manifest.read(beton)


def test_other_size_is_damage(beton):
    beton.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=rf"{len(CONTENT) - 1} bytes, its manifest says {len(CONTENT)}"):
        Manifest.read(beton)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "1", '"x"', "{}", "\0", "[" * 100_000, '{"format_version": 1}', "{'a': 1}"]
)
def test_garbage_is_one_clear_line(beton, text):
    Manifest.path(beton).write_text(text)
    with pytest.raises(ValueError, match=r"train\.beton\.json is not a valid manifest") as caught:
        Manifest.read(beton)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(beton):
    Manifest.path(beton).write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="not a valid manifest"):
        Manifest.read(beton)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 1, "format_version is 1, allowed is 2 .*python -m ffcv_imagenet.write writes it again"),
        ("num_samples", "5", "num_samples is '5', allowed is int"),
        ("num_samples", True, "num_samples is True, allowed is int"),
        ("num_samples", 5.0, "num_samples is 5.0, allowed is int"),
        ("num_samples", 6, "do not fit together"),
        ("classes", "cat", "classes is 'cat', allowed is tuple"),
        ("classes", ["cat", 1, "dog"], "classes is 1, allowed is str"),
        ("classes", ["cat"], "do not fit together"),
        ("images_per_class", [1, 1, "3"], "images_per_class is '3', allowed is int"),
        ("versions", {"numpy": 2}, "versions is 2, allowed is str"),
        ("parameters", None, "parameters must have the keys mode, max_resolution"),
        ("parameters", {"mode": "raw"}, r"parameters must have the keys .* got \['mode'\]"),
        ("images_per_class", [6, -1, 0], "images_per_class is -1, allowed are numbers >= 0"),
        ("checksum", None, "checksum is None, allowed is str"),
        ("checksum", "x" * 64, "checksum is 'x+', allowed are 64 hexadecimal digits"),
        ("tables_checksum", "", "tables_checksum is '', allowed are 64 hexadecimal digits"),
        ("parameters", {"smart_threshold": float("nan")}, "NaN is no JSON"),
        ("extra", 1, "manifest must have the keys"),
    ],
)
def test_wrong_values_are_named(beton, key, value, message):
    content = json.loads(Manifest.path(beton).read_text())
    content[key] = value
    Manifest.path(beton).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        Manifest.read(beton)


def test_wrong_parameter_is_named(beton):
    content = json.loads(Manifest.path(beton).read_text())
    content["parameters"]["max_resolution"] = 0.5
    Manifest.path(beton).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"max_resolution is 0\.5, allowed is int \| None"):
        Manifest.read(beton)


@pytest.mark.parametrize(("max_resolution", "resize"), [(None, None), (500, "by_file_type")])
def test_manifests_of_before_the_option_say_how_images_were_shrunk(beton, max_resolution, resize):
    content = json.loads(Manifest.path(beton).read_text())
    content["parameters"]["max_resolution"] = max_resolution
    del content["parameters"]["resize"]
    Manifest.path(beton).write_text(json.dumps(content))
    assert Manifest.read(beton).parameters.resize == resize


def test_a_key_that_is_there_twice_is_refused(beton):
    path = Manifest.path(beton)
    path.write_text(path.read_text().replace('"split"', '"num_samples": 1, "split"'))
    with pytest.raises(ValueError, match="a key is there twice among format_version, num_samples, split"):
        Manifest.read(beton)
