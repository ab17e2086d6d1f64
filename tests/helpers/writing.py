"""Writing an image folder, and what came of it."""

from ffcv.reader import Reader

from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits


def write(root, out, splits=("train",), num_workers=1, overwrite=False, on_error="fail", **options):
    options = {"page_size_mib": 2, **options}
    write_splits(root, out, splits, resolve_parameters(**options), num_workers, overwrite, on_error)
    return out / "train.beton"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stored(beton):
    """(is_jpeg, data) of every sample of a .beton, by FFCV's tables."""
    reader = Reader(str(beton))
    content = beton.read_bytes()
    sizes = dict(zip(reader.alloc_table["ptr"].tolist(), reader.alloc_table["size"].tolist(), strict=True))
    return [
        (image["mode"] == 0, content[image["data_ptr"] : image["data_ptr"] + sizes[int(image["data_ptr"])]])
        for image in reader.metadata["f0"]
    ]
