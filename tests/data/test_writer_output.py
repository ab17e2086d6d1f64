"""What is there already, what another process writes, disks that are full: an output is whole or not there."""

import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ffcv.reader import Reader
from images import draw_folder
from PIL import Image
from writing import names, write

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.index import EntryIndex, IndexWriter, verify_index
from ffcv_imagenet.data.format.manifest import Manifest, file_checksum
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.write import splits as writer
from ffcv_imagenet.data.write.index import write_index
from ffcv_imagenet.data.write.pages import BetonWriter
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.files import WrittenFile, exclusive_file


def test_manifest_tells_what_is_in_the_file(tmp_path, pets):
    beton = write(pets, tmp_path, ("train", "val"), preset="rn18", subset=5)
    manifest = Manifest.read(beton)
    manifest.verify(beton)
    assert manifest.split == "train"
    assert manifest.classes == ("cat", "dog")
    assert manifest.num_samples == sum(manifest.images_per_class) == 5
    assert list(manifest.images_per_class) == np.bincount(Reader(str(beton)).metadata["f1"], minlength=2).tolist()
    assert manifest.source_folder == pets.name
    assert manifest.parameters == resolve_parameters(preset="rn18", subset=5, page_size_mib=2)
    assert set(manifest.versions) == {"ffcv_imagenet", "ffcv", "numpy", "opencv", "pillow"}
    assert manifest.num_bytes == beton.stat().st_size
    assert str(pets) not in Manifest.path(beton).read_text()
    assert names(tmp_path) == [f"{split}.beton{end}" for split in ("train", "val") for end in ("", ".json", ".mcu")]
    assert Manifest.read(tmp_path / "val.beton").split == "val"


def test_finished_output_is_left_alone(tmp_path, pets, capsys):
    beton = write(pets, tmp_path)
    before = beton.stat()
    capsys.readouterr()
    write(pets, tmp_path)
    assert beton.stat() == before
    assert capsys.readouterr().out == f"train: {beton} is there already, with these options: nothing to do\n"


def cut(beton):
    os.truncate(beton, 1000)


def other_file(beton):
    beton.write_bytes(b"x")
    Manifest.path(beton).unlink()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda beton: None, {"seed": 1}, r"\(seed is 0, not 1\): give another --out\.dir.*--write\.overwrite=1"),
        (lambda beton: None, {"max_resolution": 9}, r"max_resolution is None, not 9, resize is None, not area"),
        (cut, {}, "train.beton is damaged"),
        (lambda beton: Manifest.path(beton).write_text("{}"), {}, "not a valid manifest"),
        (other_file, {}, r"is not a \.beton file"),
        (lambda beton: Manifest.path(beton).unlink(), {}, "has no manifest"),
    ],
)
def test_other_output_is_refused_and_replaced_only_on_demand(tmp_path, pets, change, options, message):
    beton = write(pets, tmp_path)
    change(beton)
    before = beton.read_bytes()
    with pytest.raises(FileExistsError, match=message):
        write(pets, tmp_path, ("val", "train"), **options)
    assert beton.read_bytes() == before
    assert not (tmp_path / "val.beton").exists()
    write(pets, tmp_path, overwrite=True, **options)
    Manifest.read(beton).verify(beton)


def test_output_of_other_images_is_refused(tmp_path, pets):
    write(pets, tmp_path / "out")
    other = draw_folder(tmp_path / "other", train=11, val=3)
    with pytest.raises(FileExistsError, match=f"its images are not those of {other}/train"):
        write(other, tmp_path / "out")


def test_subset_larger_than_a_split_is_refused_before_writing(tmp_path, pets):
    with pytest.raises(ValueError, match=r"write\.subset: got 7, but .*/val has 6 images"):
        write(pets, tmp_path / "out", ("train", "val"), subset=7)
    assert not (tmp_path / "out").exists()


def test_two_processes_cannot_write_one_file(tmp_path, pets):
    with (tmp_path / "train.beton.partial").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(FileExistsError, match=r"another process is writing .*train\.beton\.partial"):
            write(pets, tmp_path)
        assert names(tmp_path) == ["train.beton.partial"]


def test_a_file_that_another_process_finished_since_the_check_is_not_replaced(tmp_path, pets, monkeypatch):
    others = write(pets, tmp_path / "others", seed=1)
    out, check = tmp_path / "out", writer._check_free_space

    def meanwhile(*arguments):
        check(*arguments)
        shutil.copytree(others.parent, out, dirs_exist_ok=True)

    monkeypatch.setattr(writer, "_check_free_space", meanwhile)
    with pytest.raises(FileExistsError, match=r"another process has just written .*/out/train\.beton$"):
        write(pets, out)
    assert (out / "train.beton").read_bytes() == others.read_bytes()
    assert names(out) == names(others.parent)
    Manifest.read(out / "train.beton").verify(out / "train.beton")
    verify_index(out / "train.beton")


def test_an_index_that_another_process_is_writing_is_left_to_it(tmp_path, pets):
    beton = write(pets, tmp_path / "out")
    index = EntryIndex.path(beton)
    before = index.read_bytes()
    with exclusive_file(index.with_name(f".{index.name}.partial")) as file:
        file.write(b"half")
        with pytest.raises(FileExistsError, match="another process is writing"):
            write_index(beton, 1)
        with pytest.raises(FileExistsError, match="another process is writing"):
            write(pets, tmp_path / "out", overwrite=True)
        assert index.read_bytes() == before
        assert "train.beton.partial" not in names(tmp_path / "out")


def test_many_writers_of_one_output_stopped_at_any_moment_leave_it_whole(tmp_path):
    root = draw_folder(tmp_path / "root", train=30, val=1)
    generator, processes = np.random.default_rng(0), []
    for number in range(6):
        words = [sys.executable, "-m", "ffcv_imagenet.write", f"--data.root={root}", f"--out.dir={tmp_path}/out"]
        words += ["--write.splits=train", "--write.num_workers=1", "--write.page_size_mib=2"]
        words += [f"--write.seed={number % 2}"]
        processes.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        deadline = time.monotonic() + 60
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            running = [process for process in processes if process.poll() is None]
            stopped = running[int(generator.integers(len(running)))] if running else None
            if stopped is not None:
                stopped.send_signal(signal.SIGSTOP)
                time.sleep(float(generator.uniform(0, 0.3)))
                stopped.send_signal(signal.SIGCONT)
                time.sleep(float(generator.uniform(0, 0.1)))
        results = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert {code for _, code in results} <= {0, 2}
    for error, code in results:
        assert code == 0 or re.search("error: .*(another process|is there already)", error.splitlines()[-1])
    assert 0 in [code for _, code in results]
    assert names(tmp_path / "out") == ["train.beton", "train.beton.json", "train.beton.mcu"]
    Manifest.read(tmp_path / "out/train.beton").verify(tmp_path / "out/train.beton")
    verify_index(tmp_path / "out/train.beton")


def test_leftover_of_a_killed_run_does_not_matter(tmp_path, pets):
    (tmp_path / "train.beton.partial").write_bytes(b"x" * (10 << 20))
    beton = write(pets, tmp_path)
    Manifest.read(beton).verify(beton)
    assert names(tmp_path) == ["train.beton", "train.beton.json", "train.beton.mcu"]


def test_failure_keeps_the_file_that_is_to_be_replaced(tmp_path, pets):
    root = draw_folder(tmp_path / "root")
    beton = write(root, tmp_path / "out")
    (root / "train/dog/003.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dog/003\.png"):
        write(root, tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == ["train.beton", "train.beton.json", "train.beton.mcu"]
    Manifest.read(beton).verify(beton)


@pytest.mark.parametrize("full_from", ["the index", "the manifest"])
def test_a_disk_that_is_full_at_the_end_keeps_the_files_that_are_to_be_replaced(tmp_path, pets, monkeypatch, full_from):
    beton = write(pets, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    verify, limits = Manifest.verify, resource.getrlimit(resource.RLIMIT_FSIZE)

    def verify_and_fill_the_disk(self, partial):
        verify(self, partial)
        largest = 10 if full_from == "the index" else len(before["train.beton.mcu"])
        assert largest < len(before["train.beton.json"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))

    monkeypatch.setattr(Manifest, "verify", verify_and_fill_the_disk)
    file = {"the index": "mcu", "the manifest": "json"}[full_from]
    try:
        with pytest.raises(OSError, match=rf"^cannot write .*/train\.beton\.{file}: File too large$"):
            write(pets, tmp_path, overwrite=True, mode="raw")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    verify(Manifest.read(beton), beton)


@pytest.mark.parametrize("moment", range(6))
@pytest.mark.parametrize("then", [KeyboardInterrupt, OSError])
def test_wherever_a_replacement_ends_one_of_the_two_files_is_there(tmp_path, pets, monkeypatch, moment, then):
    """Stopped at each of the steps on the disk at its end."""
    root = draw_folder(tmp_path / "root")
    (root / "train/cat/001.png").write_bytes(b"")
    out, steps = tmp_path / "out", []
    beton = write(root, out, on_error="skip")  # with a list of what was left out
    old = {name: (out / name).read_bytes() for name in names(out)}
    whole = write(pets, tmp_path / "whole", mode="raw").read_bytes()

    def stopping(step):
        def stop(self, *arguments, **options):
            if self.parent == out:
                steps.append(self.name)
                if len(steps) > moment:
                    raise then("stopped")
            return step(self, *arguments, **options)

        return stop

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopping(Path.replace))
        patch.setattr(Path, "unlink", stopping(Path.unlink))
        with pytest.raises(then, match="stopped"):
            write(pets, out, overwrite=True, mode="raw")
    now = {name: (out / name).read_bytes() for name in names(out)}
    assert now["train.beton"] in (old["train.beton"], whole)
    if "train.beton.json" in now:
        Manifest.read(beton).verify(beton)
    if "train.beton.mcu" in now:
        EntryIndex.open(beton, file_checksum(beton), len(read_samples(beton).size))
    assert ("train.beton.skipped.csv" in now) <= (now["train.beton"] == old["train.beton"])
    if "train.beton.json" not in now:
        with pytest.raises(FileExistsError, match=r"has no manifest .*replace it by --write\.overwrite=1"):
            write(pets, out, mode="raw")
    write(pets, out, overwrite=True, mode="raw")
    assert names(out) == ["train.beton", "train.beton.json", "train.beton.mcu"]
    Manifest.read(beton).verify(beton)


def test_output_that_cannot_be_written_is_one_clear_line(tmp_path, pets):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, limits[1]))  # the closest to a full disk
    try:
        with pytest.raises(OSError, match=r"^cannot write .*/train\.beton\.partial: File too large$"):
            write(pets, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_a_full_disk_under_the_index_is_named(tmp_path, pets, monkeypatch):
    append = IndexWriter.append

    def append_more(self, entries):  # than the .beton has
        append(self, bytes(1 << 20))

    monkeypatch.setattr(IndexWriter, "append", append_more)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^cannot write .*/train\.beton\.mcu: File too large$"):
            write(pets, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_the_close_of_the_index_does_not_hide_the_first_error(tmp_path, pets, monkeypatch):
    def fail(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))  # what the index has buffered does not fit any more
        raise OSError("cannot write first: No space left on device")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(BetonWriter, "finish", fail)
    try:
        with pytest.raises(OSError, match=r"^cannot write first"):
            write(pets, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_too_little_space_is_said_before_the_work_starts(tmp_path, pets, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4_000_000))
    with pytest.raises(
        OSError, match=rf"not enough space in {tmp_path}/out: about 4\.195 MB are needed .* 4 MB are free"
    ):
        write(pets, tmp_path / "out", mode="raw")
    assert names(tmp_path / "out") == []


def test_what_a_killed_writer_left_is_free_space(tmp_path, pets, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4_000_000))
    (tmp_path / "train.beton.partial").write_bytes(bytes(100_000))
    (tmp_path / ".train.beton.mcu.partial").write_bytes(bytes(100_000))
    Manifest.read(write(pets, tmp_path, mode="raw"))
    assert names(tmp_path) == ["train.beton", "train.beton.json", "train.beton.mcu"]


def test_expected_size_is_about_the_size(tmp_path, pets):
    beton = write(pets, tmp_path, mode="raw")
    folder = scan_splits(pets, ["train"])["train"]
    expected = writer._expected_bytes(folder, resolve_parameters(mode="raw", page_size_mib=2), 1)
    assert expected == beton.stat().st_size + 8 * 24  # the index has 8 bytes for each sample without entries


@pytest.mark.parametrize("options", [{"mode": "raw"}, {"mode": "jpg", "jpeg_quality": 100}], ids=["raw", "jpg"])
@pytest.mark.parametrize("side", [2, 33, 300])
def test_no_data_set_takes_more_than_the_most_that_it_may_take(tmp_path, side, options):
    folder = tmp_path / "train" / "noise"
    folder.mkdir(parents=True)
    for number in range(17):
        noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    beton = write(tmp_path, tmp_path / "out", max_resolution=side, **options)
    source = scan_splits(tmp_path, ["train"])["train"]
    most = writer._most_bytes(source, resolve_parameters(max_resolution=side, page_size_mib=2, **options))
    assert beton.stat().st_size + EntryIndex.path(beton).stat().st_size <= most


@pytest.mark.parametrize(
    ("options", "estimates"),
    [
        ({"max_resolution": 64}, 0),
        ({}, 1),  # no image is too large
        ({"max_resolution": 64, "mode": "jpg", "reencode": False}, 1),  # the bytes of a file that is kept may be many
    ],
    ids=["limited", "unlimited", "kept"],
)
def test_images_are_encoded_for_an_estimate_only_where_it_may_matter(tmp_path, pets, monkeypatch, options, estimates):
    calls = []
    monkeypatch.setattr(writer, "_expected_bytes", lambda *arguments: calls.append(arguments) or 0)
    write(pets, tmp_path, **options)
    assert len(calls) == estimates


def test_a_disk_that_fails_while_the_file_is_read_again_is_named(tmp_path, pets, monkeypatch):
    def fail(file):
        raise OSError(f"cannot write {file.name}: No space left on device")

    monkeypatch.setattr(WrittenFile, "sync", fail)
    monkeypatch.setattr(Manifest, "verify", lambda manifest, beton: pytest.fail("its bytes are lost"))
    with pytest.raises(OSError, match="No space left on device"):
        write(pets, tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_does_not_read_back_is_not_kept(tmp_path, pets, monkeypatch):
    finish = BetonWriter.finish

    def finish_on_a_bad_disk(self):
        checksum = finish(self)
        self._file.seek(self._data_start + 5)
        self._file.write(b"\xff\x00")
        return checksum

    monkeypatch.setattr(BetonWriter, "finish", finish_on_a_bad_disk)
    with pytest.raises(ValueError, match=r"train\.beton\.partial is damaged: its checksum"):
        write(pets, tmp_path)
    assert names(tmp_path) == []
