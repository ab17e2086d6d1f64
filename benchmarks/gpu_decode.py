"""Where the time goes when a GPU decodes, beside nvJPEG's pipelines. README.md says how it is measured.

    python benchmarks/gpu_decode.py FOLDER_OR_BETON [--markdown table.md]

Without a GPU it measures the host's part, compiles the kernels and says "not measured" for the rest.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import shlex
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from card import copy_rate, upload_rate
from torch import Tensor

from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.format.beton import Samples, read_samples
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.decode_cpu import RandomResizedCropDecoder
from ffcv_imagenet.data.read.decode_gpu import BatchDecoder, OutputBuffers, Staging
from ffcv_imagenet.data.read.gather import Gatherer
from ffcv_imagenet.data.read.kernels import KERNELS, CudaKernels, compile_kernels, is_installed
from ffcv_imagenet.data.read.loader import BatchLoader
from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
from ffcv_imagenet.data.read.loader_gpu import GPUBatchLoader
from ffcv_imagenet.data.read.orders import ShuffledOrder
from ffcv_imagenet.data.write.index import write_index
from ffcv_imagenet.models import build_model
from ffcv_imagenet.run.folder import describe_environment
from ffcv_imagenet.train.wait_clock import WaitClock

#: Images/s at which to decode, how many times nvJPEG's best, cores that may be busy with that many, share of a
#: training's time that the GPU may be without data, and how much slower a step may be than with the data on the device.
RATE_TARGET, RATIO_TARGET, CORES_TARGET, WAIT_TARGET, SLOWDOWN_TARGET = 50_000, 4.0, 1.0, 0.01, 0.03

NOT_MEASURED, FAILED = "not measured", "failed: "
TRAINING_STEPS = 30
#: Batches after which a loader's pipeline is full, and its speed steady.
FILLING = 8
WORKDIR = Path(tempfile.gettempdir()) / "ffcv_imagenet_benchmark"


class Row(NamedTuple):
    """A line of the table; times per image in microseconds. ``cores``: how many were busy, where that was measured."""

    what: str
    microseconds: float | None
    note: str = ""
    cores: float = 0.0

    def line(self) -> str:
        if self.microseconds is None:
            return f"| {self.what} | {NOT_MEASURED} | {NOT_MEASURED} | {self.note} |"
        rate = f"{1e6 / self.microseconds:,.0f}" if self.microseconds else "-"
        return f"| {self.what} | {self.microseconds:.2f} | {rate} | {self.note} |"


def rate_row(what: str, rates: Sequence[float], note: str = "") -> Row:
    """The median of some measured images/s, with their range."""
    spread = f"{min(rates):,.0f}-{max(rates):,.0f} images/s"
    return Row(what, 1e6 / statistics.median(rates), f"{spread}{'; ' * bool(note)}{note}")


def judge(reached: bool) -> str:
    return "met" if reached else "**not met**"


class HostMemory:
    """Buffers for the host's part alone, where there is no GPU."""

    device = torch.device("cpu")

    def host_buffer(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)


class Data(NamedTuple):
    beton: Path
    num_samples: int
    samples: Samples


def open_data(source: Path, workdir: Path, images: int) -> Data:
    """The .beton file to read, with its index: the one given, or made of a folder of images."""
    beton = source
    if source.is_dir():
        from prepare import prepare

        workdir.mkdir(parents=True, exist_ok=True)
        beton = prepare(source, workdir, images).indexed_beton
    manifest = Manifest.read(beton)
    samples = read_samples(beton, manifest)
    if EntryIndex.open(beton, manifest.checksum, manifest.num_samples) is None:
        write_index(beton)
    return Data(beton, manifest.num_samples, samples)


def crop_decoder(data: Data, resolution: int) -> RandomResizedCropDecoder:
    """The decoder that tells the crops, ready without a loader around it."""
    decoder = RandomResizedCropDecoder(resolution, seed=0)
    decoder.metadata = data.samples.image
    return decoder


def batch_decoder(data: Data, options: argparse.Namespace, kernels: Any) -> BatchDecoder:
    """What a loader's thread works with."""
    index = EntryIndex.open(data.beton, Manifest.read(data.beton).checksum, data.num_samples)
    assert index is not None
    gatherer = Gatherer(np.memmap(data.beton, np.uint8, mode="r"), data.samples, index)
    labels, crops = np.zeros(data.num_samples, np.int64), crop_decoder(data, options.resolution)
    return BatchDecoder(gatherer, crops, labels, kernels, options.batch, torch.bfloat16, Normalize())


def host_rows(data: Data, options: argparse.Namespace, decoder: BatchDecoder) -> list[Row]:
    """The host's part, in CPU time of one thread."""
    order = np.random.default_rng(0).permutation(data.num_samples)
    staging, boxes, gathering, copied = Staging(decoder.kernels), [], [], []
    num_on_cpu = 0
    for epoch in range(options.repeats + 1):
        decoder.decoder.start_epoch(epoch, options.resolution)
        for start in range(0, data.num_samples - options.batch + 1, options.batch):
            samples = order[start : start + options.batch]
            on_cpu = np.zeros(len(samples), bool)
            before = time.thread_time()
            decoder.decoder.boxes(samples)
            between = time.thread_time()
            gathered = decoder.gather(samples, on_cpu, options.resolution, staging)
            after = time.thread_time()
            if epoch:  # the first one fills the page cache and makes the buffer grow
                boxes.append((between - before) / len(samples))
                gathering.append((after - between) / len(samples))
                copied.append(gathered.used / len(samples))
                num_on_cpu += gathered.num_on_cpu
    share = num_on_cpu / (len(boxes) * options.batch)
    note = (
        f"{statistics.mean(copied) / 1024:.1f} KiB of {np.mean(data.samples.size) / 1024:.1f} KiB to copy; "
        f"{100 * share:.1f} % of the images are for the CPU's decoder"
    )
    return [
        Row("host: crop boxes", 1e6 * statistics.median(boxes)),
        Row("host: crop boxes and gathering", 1e6 * statistics.median(gathering), note),
    ]


def stage_rows(data: Data, options: argparse.Namespace, decoder: BatchDecoder) -> list[Row]:
    """Copy and kernels one by one, by CUDA events."""
    kernels, side = decoder.kernels, options.resolution
    output = OutputBuffers(
        torch.empty(options.batch, side, side, 3, dtype=decoder.dtype, device=kernels.device),
        torch.empty(options.batch, dtype=torch.int64, device=kernels.device),
        kernels.host_buffer(4 * options.batch).view(torch.int32),
    )
    staging, times = Staging(kernels), {name: [] for name in ("copy", *KERNELS)}
    launch = kernels.launch
    marks: list[tuple[str, Any, Any]] = []

    def timed(name: str, work: Callable[[], None]) -> None:
        first = mark()
        work()
        marks.append((name, first, mark()))

    kernels.launch = lambda name, grid, arguments: timed(name, lambda: launch(name, grid, arguments))  # type: ignore
    samples = np.random.default_rng(0).permutation(data.num_samples)[: options.batch]
    for repeat in range(options.repeats + 1):
        decoder.decoder.start_epoch(repeat, options.resolution)
        gathered = decoder.gather(samples, np.zeros(len(samples), bool), side, staging)
        with kernels.stream():
            timed("copy", lambda size=gathered.used: decoder.copy_to_device(staging, size))  # type: ignore[misc]
            decoder.start_kernels(gathered, len(samples), output)
            kernels.record().synchronize()
        if repeat:
            for name, first, last in marks:
                times[name].append(first.elapsed_time(last))
        marks.clear()
    del kernels.launch  # type: ignore[attr-defined]
    # At least: what was copied is read, the workspace (filters, planes, rows) written and read, the pixels written.
    out = output.images.numel() * output.images.element_size()
    moved = gathered.used + 2 * gathered.workspace + out
    rates = {"copy": gathered.used / upload_rate(kernels.device), "kernels": moved / copy_rate(kernels.device)}
    sums = {"kernels": [sum(each) for each in zip(*(times[name] for name in KERNELS), strict=True)]}
    rows = []
    for name, values in (times | sums).items():
        milliseconds = statistics.median(values)
        note = f"{min(values):.3f}-{max(values):.3f} ms"
        if name in rates:
            note += (
                f"; limit by bytes {1000 * rates[name]:.3f} ms, {100_000 * rates[name] / milliseconds:.1f} % reached"
            )
        title = "GPU: the four kernels" if name == "kernels" else f"GPU: {name}"
        rows.append(Row(title, 1000 * milliseconds / options.batch, note))
    return rows


class RepeatedOrder(ShuffledOrder):
    """Epochs one after the other until there are ``batches`` batches: one alone may last 0.1 s, and in the first tenth
    of it the pipeline is not yet full."""

    def __init__(self, num_samples: int, batch: int, batches: int):
        super().__init__(num_samples, 0, batch)
        self.size = batches * batch

    def sample_order(self, epoch: int) -> np.ndarray:
        orders = map(super().sample_order, itertools.count(epoch))
        wanted, found = self.size, [next(orders)]
        while sum(map(len, found)) < wanted:
            found.append(next(orders))
        return np.concatenate(found)[:wanted]


def make_loader(data: Data, options: argparse.Namespace, gpu: bool) -> BatchLoader:
    decoder, file = RandomResizedCropDecoder(options.resolution, seed=0), BetonFile.open(data.beton)
    order = RepeatedOrder(data.num_samples, options.batch, options.batches)
    cores = len(os.sched_getaffinity(0))
    common: dict[str, Any] = {"batch_size": options.batch, "num_workers": cores, "device": options.device}
    if gpu:
        return GPUBatchLoader(file, decoder, order, dtype=torch.bfloat16, normalize=Normalize(), **common)
    return CPUBatchLoader(file, decoder, order, **common)


def loader_row(what: str, data: Data, options: argparse.Namespace, gpu: bool) -> Row:
    """``--batches`` batches, nothing done with them, from when the pipeline is full; also the busy cores."""
    loader, rates, cores = make_loader(data, options, gpu), [], []
    for epoch in range(options.repeats + 1):
        batches = loader.epoch(epoch, options.resolution)
        for _ in range(min(FILLING, options.batches // 2)):
            next(batches)
        torch.cuda.synchronize()
        start, busy = time.perf_counter(), time.process_time()
        count = sum(len(batch.labels) for batch in batches)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if epoch:
            rates.append(count / seconds)
            cores.append((time.process_time() - busy) / seconds)
    busy_cores = statistics.median(cores)
    return rate_row(what, rates, f"{busy_cores:.2f} busy cores")._replace(cores=busy_cores)


def crop_and_resize(images: Sequence[Tensor], boxes: np.ndarray, side: int, normalize: Normalize) -> Tensor:
    """[3, h, w] uint8 images of any sizes to one normalised bfloat16 batch; boxes: top, left, height, width, flip."""
    from torchvision.ops import roi_align

    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    canvas = torch.zeros(len(images), 3, height, width, dtype=torch.uint8, device=images[0].device)
    for place, image in zip(canvas, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]].copy_(image)
    top, left, h, w, flip = torch.from_numpy(boxes).to(canvas.device, torch.float32).unbind(1)
    rois = torch.stack([torch.arange(len(images), device=canvas.device), left, top, left + w, top + h], 1)
    out = roi_align(canvas.float(), rois, side, sampling_ratio=2, aligned=True)
    out = torch.where(flip.bool()[:, None, None, None], out.flip(3), out)
    return ((out - normalize.mean) * normalize.inverse_std).to(torch.bfloat16, memory_format=torch.channels_last)


def torchcodec_decoder() -> Callable[[list[np.ndarray], np.ndarray], tuple[list[Tensor], np.ndarray]]:
    from torchcodec.decoders import decode_jpeg

    def decode(jpegs: list[np.ndarray], boxes: np.ndarray) -> tuple[list[Tensor], np.ndarray]:
        return decode_jpeg([torch.from_numpy(jpeg) for jpeg in jpegs], device="cuda"), boxes

    return decode


def nvimagecodec_decoder() -> Callable[[list[np.ndarray], np.ndarray], tuple[list[Tensor], np.ndarray]]:
    from nvidia import nvimgcodec

    decoder = nvimgcodec.Decoder(max_num_cpu_threads=len(os.sched_getaffinity(0)))
    kinds = nvimgcodec.BackendKind
    backends = [nvimgcodec.Backend(kind) for kind in (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)]
    probe: list[Any] = [nvimgcodec.Decoder(backends=backends)]

    def decode(jpegs: list[np.ndarray], boxes: np.ndarray) -> tuple[list[Tensor], np.ndarray]:
        streams = []
        for jpeg, (top, left, height, width, _) in zip(jpegs, boxes.tolist(), strict=True):
            view = nvimgcodec.CodeStreamView(0, nvimgcodec.Region(top, left, top + height, left + width))
            streams.append(nvimgcodec.CodeStream(jpeg.tobytes()).get_sub_code_stream(view))
        # Without nvJPEG's library it decodes on the CPU, and does not say so.
        if probe and probe.pop().decode(streams[0]) is None:
            raise RuntimeError("it would decode on the CPU: nvidia-nvjpeg is not installed")
        images = decoder.decode(streams, cuda_stream=torch.cuda.current_stream().cuda_stream)
        inside = boxes.copy()
        inside[:, :2] = 0
        return [torch.as_tensor(image, device="cuda").permute(2, 0, 1) for image in images], inside

    return decode


#: Name, module that must be there, and what makes the decoder.
CONTENDERS = (
    ("TorchCodec decode_jpeg, batched crop-resize", "torchcodec", torchcodec_decoder),
    ("nvImageCodec regions, batched crop-resize", "nvidia.nvimgcodec", nvimagecodec_decoder),
)


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def contender_row(what: str, make: Callable, data: Data, options: argparse.Namespace) -> Row:
    content, crops = np.memmap(data.beton, np.uint8, mode="r"), crop_decoder(data, options.resolution)
    normalize, rates = Normalize().to(options.device), []
    decode = make()
    for repeat in range(options.repeats + 1):
        crops.start_epoch(repeat, options.resolution)
        samples = np.random.default_rng(repeat).permutation(data.num_samples)[: options.batch]
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(2):
            places = [(int(data.samples.pointer[n]), int(data.samples.size[n])) for n in samples]
            images, boxes = decode([np.array(content[p : p + s]) for p, s in places], crops.boxes(samples))
            crop_and_resize(images, boxes, options.resolution, normalize)
        torch.cuda.synchronize()
        if repeat:
            rates.append(2 * len(samples) / (time.perf_counter() - start))
    return rate_row(what, rates)


def mark() -> Any:
    """A place in the current stream's work, with its time."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def training_rows(data: Data, options: argparse.Namespace) -> list[Row]:
    """Steps of ResNet-50 in bf16, on batches from the loader and on one batch that stays."""
    torch.backends.cudnn.benchmark = True
    model = build_model("resnet50", 1000, blurpool=False).to(options.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loader = make_loader(data, options, gpu=True)

    def batches() -> Any:
        epoch = 0
        while True:
            yield from loader.epoch(epoch, options.resolution)
            epoch += 1

    def step(images: Tensor, labels: Tensor) -> None:
        with torch.autocast(options.device.type, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), labels % 1000)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    source, rates = batches(), {"resident": [], "loaded": []}
    shares = []
    images, labels, _ = next(source)
    kept = images.clone(), labels.clone()
    for repeat in range(options.repeats + 1):
        for kind in rates:
            torch.cuda.synchronize()
            begin, waited = mark(), WaitClock(options.device)
            for _ in range(TRAINING_STEPS):
                with waited:
                    images, labels = next(source)[:2] if kind == "loaded" else kept
                step(images, labels)
            end = mark()
            torch.cuda.synchronize()
            seconds = begin.elapsed_time(end) / 1000
            if repeat:
                rates[kind].append(TRAINING_STEPS * options.batch / seconds)
                if kind == "loaded":
                    shares.append(waited.seconds() / seconds)
    source.close()
    slowdown = statistics.median(rates["resident"]) / statistics.median(rates["loaded"]) - 1
    share = statistics.median(shares)
    notes = (
        f"the GPU without data {100 * share:.2f} %, target < {100 * WAIT_TARGET:.0f} %: {judge(share < WAIT_TARGET)}",
        f"{100 * slowdown:.1f} % slower, target <= {100 * SLOWDOWN_TARGET:.0f} %: {judge(slowdown <= SLOWDOWN_TARGET)}",
    )
    return [
        rate_row("training ResNet-50, data on the device", rates["resident"]),
        rate_row("training ResNet-50, this loader", rates["loaded"], "; ".join(notes)),
    ]


def attempt(what: str, work: Callable[[], list[Row]]) -> list[Row]:
    """The rows that ``work`` measures, or one that says why there are none, so that the others are kept."""
    try:
        rows = work()
    except Exception as error:
        traceback.print_exc()
        rows = [Row(what, None, f"{FAILED}{' '.join(str(error).split())[:120]}")]
    for row in rows:  # for whoever does not wait for the table
        print(row.line(), file=sys.stderr, flush=True)
    return rows


def with_verdicts(ours: Row, theirs: Sequence[Row]) -> Row:
    """This project's row beside its targets and the contenders."""
    if ours.microseconds is None:
        return ours
    best = min((row.microseconds for row in theirs if row.microseconds), default=None)
    rate = 1e6 / ours.microseconds
    # The thread that gathers goes as fast as it can: that is one busy core at any rate.
    cores = ours.cores * RATE_TARGET / rate
    verdicts = [
        f"target >= {RATE_TARGET:,}: {judge(rate >= RATE_TARGET)}",
        f"{cores:.2f} busy cores with {RATE_TARGET:,}, target <= {CORES_TARGET:g}: {judge(cores <= CORES_TARGET)}",
    ]
    if best:
        ratio = best / ours.microseconds
        verdicts.append(f"{ratio:.1f} x nvJPEG's best, target >= {RATIO_TARGET:g}: {judge(ratio >= RATIO_TARGET)}")
    return ours._replace(note="; ".join([ours.note, *verdicts]))


def gpu_rows(data: Data, options: argparse.Namespace, decoder: BatchDecoder) -> list[Row]:
    ours, on_cpu = "this project, decoding on the GPU", "this project, decoding on the CPU"
    stages = attempt("GPU: copy and kernels", lambda: stage_rows(data, options, decoder))
    loaders = [
        *attempt(ours, lambda: [loader_row(ours, data, options, gpu=True)]),
        *attempt(on_cpu, lambda: [loader_row(on_cpu, data, options, gpu=False)]),
    ]
    training = attempt("training ResNet-50", lambda: training_rows(data, options))
    theirs = [
        row
        for what, module, make in CONTENDERS
        for row in (
            attempt(what, lambda make=make, what=what: [contender_row(what, make, data, options)])  # type: ignore[misc]
            if is_there(module)
            else [Row(what, None, f"{module} is not installed")]
        )
    ]
    return [*stages, with_verdicts(loaders[0], theirs), loaders[1], *theirs, *training]


def dry_rows() -> list[Row]:
    """What is left without a GPU: that the kernels compile."""
    note = "cuda.core is not installed"
    if is_installed():
        start = time.perf_counter()
        size = len(compile_kernels("sm_90").code)
        note = f"compiled for sm_90: {size} bytes in {time.perf_counter() - start:.1f} s"
    return [
        *(Row(f"GPU: {name}", None, note if name == KERNELS[0] else "") for name in ("copy", *KERNELS)),
        Row("this project, decoding on the GPU", None, f"target >= {RATE_TARGET:,} images/s"),
        *(Row(what, None, "") for what, _, _ in CONTENDERS),
        Row("training ResNet-50, data on the device", None),
        Row("training ResNet-50, this loader", None, f"target: without data < {100 * WAIT_TARGET:.0f} %"),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="image folder, FOLDER/<class>/<image>, or a .beton file")
    parser.add_argument("--workdir", type=Path, default=WORKDIR, help=f"where a folder's data is made: {WORKDIR}")
    parser.add_argument("--images", type=int, default=8192, help="of the data made of a folder")
    parser.add_argument("--batch", type=int, default=512, help="images per batch")
    parser.add_argument("--resolution", type=int, default=160, help="side of the crops in pixels")
    parser.add_argument("--batches", type=int, default=72, help=f"of a loader, of which {FILLING} are not counted")
    parser.add_argument("--repeats", type=int, default=5, help="measurements, after one that does not count")
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if on_gpu else "cpu")
    parser.add_argument("--markdown", type=Path, help="file for the table, which is always printed")
    options = parser.parse_args(argv)
    if options.batches < 2:
        parser.error(f"--batches: got {options.batches}, allowed are at least 2")
    load, has_gpu = os.getloadavg()[0], options.device == "cuda"
    options.device = torch.device(options.device)
    data = open_data(options.source, options.workdir, options.images)
    if data.num_samples < options.batch:
        parser.error(f"--batch: got {options.batch}, allowed are at most the {data.num_samples} images")
    kernels: Any = CudaKernels(options.device) if has_gpu else HostMemory()
    decoder = batch_decoder(data, options, kernels)
    rows = host_rows(data, options, decoder)
    rows += gpu_rows(data, options, decoder) if has_gpu else dry_rows()

    hardware = describe_environment(options.device)["hardware"]
    text = "\n".join(
        [
            f"- {hardware['device']}, {hardware['cpu_cores']} cores, load average before the start {load:.2f}",
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, torch {torch.__version__}",
            f"- {data.num_samples} images, batches of {options.batch}, crops to {options.resolution} px, "
            f"medians of {options.repeats}",
            f"- `python {shlex.join(sys.argv)}`",
            "",
            "| what | us/image | images/s | |",
            "|---|---|---|---|",
            *(row.line() for row in rows),
            "",
        ]
    )
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)
    foreign = [what for what, _, _ in CONTENDERS]  # one that does not fit the machine is no failure of ours
    if any(row.note.startswith(FAILED) and row.what not in foreign for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
