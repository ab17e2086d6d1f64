"""Time and memory to list and to write an archive with as many images as ImageNet's.

    python benchmarks/imagenet_tars.py [--images 1281167] [--classes 1000] [--workers 2] [--folder FOLDER]

Makes an ILSVRC2012_img_train.tar of small JPEGs (1.3 GB for all of ImageNet's) in a temporary folder, lists it in one
process, and writes it with write_datasets.py in another. Memory is the largest sum over a process and those that it
started, looked at ten times a second: "private" is what no file backs, "resident" all of it, pages of files (which the
system gives back when it needs them) shared out among those that have them (Linux's Pss).
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
LISTING = """
import sys, time
from pathlib import Path
from ffcv_imagenet.data.sources.find import find_sources
start = time.perf_counter()
[source] = find_sources(Path(sys.argv[1]), ("train",)).values()
print(len(source.files), time.perf_counter() - start)
"""


def make_archive(file: Path, num_images: int, num_classes: int) -> None:
    """A tar of a tar per class; images of 16 to 24 pixels, 8 of them different."""
    rng = np.random.default_rng(0)
    contents = []
    for side in range(16, 24):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side // 4, side // 4, 3), np.uint8)).resize((side, side)).save(
            buffer, "JPEG", quality=90
        )
        contents.append(buffer.getvalue())
    with file.open("wb") as outer:
        for label in range(num_classes):
            count = num_images // num_classes + (label < num_images % num_classes)
            inner = bytearray()
            for number in range(count):
                _add(inner, f"n{label:08}_{number}.JPEG", contents[number % len(contents)])
            whole = bytearray()
            _add(whole, f"n{label:08}.tar", inner + bytes(2 * tarfile.BLOCKSIZE))
            outer.write(whole)
        outer.write(bytes(2 * tarfile.BLOCKSIZE))


def _add(archive: bytearray, name: str, content: bytes | bytearray) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive += header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def run(command: list[str]) -> tuple[str, float, float, float]:
    """Output of a command, its seconds, and its peaks of private and resident memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    peak = [0.0, 0.0]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            sums = np.sum([_memory(pid) for pid in _family(process.pid)] or [(0.0, 0.0)], axis=0)
            peak[:] = np.maximum(peak, sums).tolist()

    watcher = threading.Thread(target=look)
    watcher.start()
    output, _ = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {process.returncode}")
    return output, time.perf_counter() - start, *peak


def _family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(grandchild for child in children for grandchild in _family(child))]


def _memory(pid: int) -> tuple[float, float]:
    """Private and resident memory, MiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0.0, 0.0
    sizes = {words[0]: int(words[1]) / 1024 for words in map(str.split, lines)}
    return sizes["Pss_Anon:"], sizes["Pss:"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        file = Path(scratch) / "ILSVRC2012_img_train.tar"
        make_archive(file, arguments.images, arguments.classes)
        size = file.stat().st_size / 1e9
        print(f"{arguments.images} images in {arguments.classes} classes, {size:.2f} GB", flush=True)
        output, _, private, resident = run([sys.executable, "-c", LISTING, scratch])
        count, seconds = output.split()
        if int(count) != arguments.images:
            sys.exit(f"error: {count} images were listed")
        print("| what | seconds | private MiB | resident MiB |\n|---|---|---|---|")
        print(f"| listing | {float(seconds):.1f} | {private:.0f} | {resident:.0f} |", flush=True)
        out = ["--out.dir", f"{scratch}/out", "--write.num_workers", str(arguments.workers)]
        command = [sys.executable, "write_datasets.py", "--data.root", scratch, "--write.splits=train", *out]
        _, seconds, private, resident = run([*command, "--write.mode=jpg"])
        print(f"| writing | {seconds:.1f} | {private:.0f} | {resident:.0f} |")


if __name__ == "__main__":
    main()
