"""The forms in which people have data sets, made of the images in a folder."""

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources.find import find_sources
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_sources

BOTH = ("train", "val")
PARAMETERS = resolve_parameters(mode="proportion", page_size_mib=2)


def classes_of(images):
    """The names of the classes in an image folder, sorted."""
    return sorted(folder.name for folder in (images / "train").iterdir())


def files_of(folder):
    """All files in a folder, in an order that is not sorted."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name[::-1])


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def make_tar(path, folder, prefix="", mode="w", format=tarfile.PAX_FORMAT):
    with tarfile.open(path, mode, format=format) as archive:
        for file in files_of(folder):
            archive.add(file, f"{prefix}{file.relative_to(folder)}")
    return path


def make_zip(path, folder, prefix="", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression, strict_timestamps=False) as archive:
        for file in files_of(folder):
            archive.write(file, f"{prefix}{file.relative_to(folder)}")
    return path


def make_mapped(folder, images, in_archive, in_map, end="\n"):
    """train.zip and val.zip with their maps, labels in another order; names come from (split, class, file)."""
    labels = {name: number for number, name in enumerate([*classes_of(images)[1:], classes_of(images)[0]])}
    for split in BOTH:
        lines = []
        with zipfile.ZipFile(folder / f"{split}.zip", "w", strict_timestamps=False) as archive:
            for file in files_of(images / split):
                parts = {"split": split, "name": file.parent.name, "file": file.name}
                archive.write(file, in_archive[split].format(**parts))
                lines.append(f"{in_map[split].format(**parts)}\t{labels[file.parent.name]}{end}")
        (folder / f"{split}_map.txt").write_bytes("".join(lines).encode())


def make_imagenet(folder, images, skip=None):
    """The official archives of the folder's images."""
    names = classes_of(images)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for name in reversed(names):
            inner = make_tar(folder / "inner.tar", images / "train" / name)
            add(outer, f"{name}.tar", inner.read_bytes())
            inner.unlink()
    val = sorted(images.glob("val/*/*"), key=lambda path: path.name)
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for file in val:
            if file.name != skip:
                add(archive, file.name, file.read_bytes())
    ids = {name: 1 + number for number, name in enumerate([names[-1], *names[:-1]])}
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(ids[name], name, f"words of {name}, other words", 0) for name in names] + [
        (len(names) + 1, "n00001740", "entity", 3)
    ]
    meta, truth = io.BytesIO(), "".join(f"{ids[file.parent.name]}\n" for file in val)
    scipy.io.savemat(meta, {"synsets": np.array(rows, fields)})
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())
    return folder


def make_kaggle(folder, images):
    """The competition's files, unpacked."""
    top = folder / "ILSVRC/Data/CLS-LOC"
    rows = ["ImageId,PredictionString"]
    for file in sorted(images.glob("*/*/*")):
        split, name = file.parts[-3:-1]
        target = top / split / (f"{name}/{file.name}" if split == "train" else file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        if split == "val":
            rows.append(f"{file.stem},{name} 85 1 499 272 {name} 1 2 3 4")
    (folder / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    (folder / "LOC_synset_mapping.txt").write_text(
        "".join(f"{name} a {name}, another\n" for name in classes_of(images))
    )
    return folder


def make_cifar(folder, small_images, version, class_names, protocol=2):
    """CIFAR as it is published, of ``{file of CIFAR-10: (pixels [N, 3, 32, 32], labels [N])}``."""
    batches = folder / version
    batches.mkdir(parents=True)
    files = dict(small_images)
    if version.startswith("cifar-100"):
        train = [files[f"data_batch_{n}"] for n in range(1, 6)]
        files = {"train": tuple(map(np.concatenate, zip(*train, strict=True))), "test": files["test_batch"]}
    for name, (pixels, labels) in files.items():
        rows = pixels.reshape(len(pixels), -1)
        if version.endswith(("py", "python")):
            key = b"fine_labels" if version.startswith("cifar-100") else b"labels"
            content = pickle.dumps({b"data": rows, key: labels.tolist(), b"batch_label": b"x"}, protocol=protocol)
            (batches / name).write_bytes(content)
        else:
            first = [labels * 0, labels] if version.startswith("cifar-100") else [labels]
            (batches / f"{name}.bin").write_bytes(np.column_stack([*first, rows]).astype(np.uint8).tobytes())
    names = [name.encode() for name in class_names]
    if version == "cifar-10-batches-py":
        (batches / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=protocol))
    elif version == "cifar-100-python":
        (batches / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, protocol=protocol))
    else:
        file = "batches.meta.txt" if version == "cifar-10-batches-bin" else "fine_label_names.txt"
        (batches / file).write_text("\n".join(class_names) + "\n\n")
    return batches


def make_shards(folder, images, form, count=2):
    """WebDataset shards whose samples lie in no order; ``form`` says where the label is."""
    folder.mkdir(exist_ok=True)
    classes = classes_of(images)
    for split in BOTH:
        files = files_of(images / split)
        for shard in range(count):
            with tarfile.open(folder / f"imagenet-{split}-{shard:03}.tar", "w") as archive:
                add(archive, "__info__.txt", b"a shard")
                for file in files[shard::count]:
                    label = classes.index(file.parent.name)
                    parts = {"cls": {"cls": f"{label}\n"}, "json": {"json": json.dumps({"label": label})}}.get(form, {})
                    start = f"{file.parent.name}/" if form == "folder" else ""
                    add(archive, f"{start}{file.stem}.jpg", file.read_bytes())
                    for kind, text in parts.items():
                        add(archive, f"{start}{file.stem}.{kind}", text.encode())
    return folder


def make_parquet(folder, images, *, named=True):
    """Shards as on the hub, the rows in no order."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    folder.mkdir()
    classes = classes_of(images)
    for split, name in (("train", "train"), ("val", "validation")):
        files = files_of(images / split)
        for shard in range(2):
            rows = [
                {"image": {"bytes": f.read_bytes(), "path": f.name}, "label": classes.index(f.parent.name)}
                for f in files[shard::2]
            ]
            features = {"label": {"names": classes, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
            metadata = {"huggingface": json.dumps({"info": {"features": features}})} if named else {}
            table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata)
            path = folder / f"{name}-{shard:05}-of-00002.parquet"
            parquet.write_table(table, path, row_group_size=3)
    return folder


def make_cub(folder, root):
    """CUB_200_2011 of the images of an image folder, whose classes begin with their number."""
    classes = classes_of(root)
    top = folder / "CUB_200_2011"
    lists = {"images": [], "image_class_labels": [], "train_test_split": []}
    for number, file in enumerate(files_of(root), 1):
        split, name = file.parts[-3:-1]
        path = f"{name}/{split}_{file.name}"
        (top / "images" / name).mkdir(parents=True, exist_ok=True)
        (top / "images" / path).write_bytes(file.read_bytes())
        lists["images"].append(f"{number} {path}")
        lists["image_class_labels"].append(f"{number} {classes.index(name) + 1}")
        lists["train_test_split"].append(f"{number} {int(split == 'train')}")
    lists["classes"] = [f"{number} {name}" for number, name in enumerate(classes, 1)]
    for name, lines in lists.items():
        (top / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return top


def make_cars(folder, images):
    """Stanford Cars of the images of an image folder."""
    classes = classes_of(images)
    (folder / "devkit").mkdir(parents=True)
    for split, name, labels in (
        ("train", "cars_train", "devkit/cars_train_annos.mat"),
        ("val", "cars_test", "cars_test_annos_withlabels.mat"),
    ):
        (folder / name).mkdir()
        rows = []
        for number, file in enumerate(sorted(images.glob(f"{split}/*/*")), 1):
            (folder / name / f"{number:05}.jpg").write_bytes(file.read_bytes())
            rows.append((1, classes.index(file.parent.name) + 1, f"{number:05}.jpg"))
        kinds = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
        scipy.io.savemat(folder / labels, {"annotations": np.array(rows, kinds)})
    scipy.io.savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(classes, object)})
    return folder


def write(root, out, format="auto", splits=BOTH, on_error="fail", **options):
    sources = find_sources(Path(root), splits, format, **options)
    write_sources(sources, out, PARAMETERS, num_workers=2, on_error=on_error)
    return {split: Manifest.read(out / f"{split}.beton") for split in splits}


def assert_same(root, expected, out, format, same_digest=True, chosen="auto", **options):
    """``auto`` finds the format, and the files are those of the folder, byte for byte."""
    for split, manifest in write(root, out, chosen, **options).items():
        assert manifest.source_format == format
        for end in ("", ".mcu"):
            assert (out / f"{split}.beton{end}").read_bytes() == (expected / f"{split}.beton{end}").read_bytes()
        of_folder = Manifest.read(expected / f"{split}.beton")
        assert manifest.classes == of_folder.classes
        if same_digest:
            assert manifest.source_digest == of_folder.source_digest
