"""The benchmarks run and print their tables. Nothing here depends on a time."""

import copy
import functools
import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from images import draw_folder

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.read.orders import ShuffledOrder
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.models import BlurPoolConv2d, build_model
from ffcv_imagenet.native import read_image
from ffcv_imagenet.options import build, read_yaml

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RECIPE = BENCHMARKS.parent / "rn_configs" / "rn50_16_epochs.yaml"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("photographs"), train=3, size=(60, 80), extension=".jpg") / "train"


@pytest.fixture
def benchmark_module(monkeypatch):
    """Imports a file of benchmarks/."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.mark.slow
def test_loader(photographs, tmp_path):
    table = tmp_path / "table.md"
    options = f"--images {photographs} --workdir {tmp_path} --contenders project,torchvision --workers 1"
    options += f" --resolutions 32 --epochs 1 --epoch-images 10 --batch 4 --memory-batch 0 --markdown {table}"
    command = [sys.executable, BENCHMARKS / "loader.py", *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert table.read_text() == done.stdout
    assert "12 images per epoch" in done.stdout
    assert "| 32 px, 1 worker " in done.stdout
    assert "\n| ffcv_imagenet " in done.stdout
    assert "\n| torchvision " in done.stdout


def test_ratios_and_targets(benchmark_module):
    loader = benchmark_module("loader")
    settings = loader.Settings(resolution=160, batch_size=256, num_workers=1)
    rates = {"project": [300.0, 400.0, 500.0], "project-index": [340.0, 360.0, 350.0], "ffcv": [90.0, 110.0, 100.0]}
    text = "\n".join(loader.speed_tables({settings: rates}))
    assert "| 400 (300-500) " in text
    assert "| 4.00, target 3.5: met " in text
    assert "| 3.50, target 4.5: **not met** |" in text
    assert "DALI" not in text

    memory = {key: loader.Measurement(0.0, mib << 20, 7 << 20) for key, mib in (("project", 300), ("ffcv", 1000))}
    assert "| 30 %, target 40 %: met |" in "\n".join(loader.memory_table(memory, settings))


def test_absent_packages_are_known(benchmark_module):
    contenders = benchmark_module("contenders")
    assert contenders.CONTENDERS["ffcv"].is_installed()
    assert not contenders.Contender("", "no_such_package.module", contenders.stock_ffcv).is_installed()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--contenders", "ffcv,tape"], "got tape, allowed are project, "),
        (["--workers", "100000"], "allowed are at most the "),
        (["--epoch-images", "100"], "--memory-batch: allowed are at most --epoch-images"),
    ],
)
def test_wrong_options(benchmark_module, capsys, wrong, message):
    with pytest.raises(SystemExit):
        benchmark_module("loader").main(["--images", "images", *wrong])
    assert message in capsys.readouterr().err


def test_train_speed(benchmark_module, photographs, tmp_path, capsys):
    table = tmp_path / "table.md"
    options = (
        f"--images {photographs} --workdir {tmp_path} --device cpu --archs resnet10 --sides 32 --batch 2 --steps 1"
    )
    options += " --rounds 1 --epoch-images 4 --workers 1 --parts step,end-to-end,ablation --ablations oneDNN"
    options += f" --markdown {table}"
    precision = torch.get_float32_matmul_precision()
    try:
        with pytest.raises(SystemExit) as ended:
            benchmark_module("train_speed").main(options.split())
    finally:
        torch.set_float32_matmul_precision(precision)
    text = capsys.readouterr().out
    assert ended.value.code == 0, text
    assert text.endswith(table.read_text())
    assert "**No GPU**" in text
    row = next(line for line in text.splitlines() if line.startswith("| resnet10, 32 "))
    assert row.count("not measured") == 7  # limit, its share, TFLOP/s, share, memory, compilation, time without data
    limits = next(
        line for line in text.splitlines() if re.match(r"\| resnet10, 32 .*\d \(\d", line) and "MB" not in line
    )
    assert limits
    assert re.search(r"\| with torch.compile +\| not measured ", text)
    assert re.search(r"\| without oneDNN +\| \d[^|]* \| \d[^|]* \| -?\d+\.\d % ", text)
    assert re.search(r"\| rn50_16_epochs +\| the ceiling +\| not measured +\| not measured +\| 14.9 on 8 A100 ", text)


def test_train_speed_tables(benchmark_module):
    module = benchmark_module("train_speed_tables")
    results = module.Results(matmul_flops=8e14, copy_bytes=3e12)
    for side, rate in ((160, 6000.0), (192, 4000.0)):
        cell = module.Cell([rate - 100, rate, rate + 100], [3000.0], {"cpu": [0.96 * rate]}, 40.0, 20 << 30)
        results.cells["resnet50", side] = cell
    results.evaluation["resnet50"] = [10000.0]
    rows = module.step_table(results, on_gpu=True)
    assert re.search(
        r"\| 6000 \(5900-6100\) \| 16695 by bytes \| 35.\d % +\| 3000 \(3000-3000\) \| 2.00, target", rows[2]
    )
    assert "| 1.33, target 1.50: **not met** |" in rows[3]
    assert "| 4.0 %; 96.0 %, target 95.0 %: met |" in rows[2]

    results.cells["resnet50", 224] = module.Cell([2000.0], [1000.0])  # end to end has failed there
    assert re.search(r"\| resnet50, 224 .* \| not measured +\| not measured +\|$", module.step_table(results, True)[4])

    config = build(TrainConfig, read_yaml(RECIPE) | {"data.train": "a", "data.val": "b"})
    minutes = module.projected_minutes(config, {160: 6000.0, 192: 4000.0}, 10000.0, gpus=1)
    images = 1_281_167 // 4096 * 4096
    # 160 px in 12 epochs, then 192, to which the middle of the ramp from 11 to 13 is rounded.
    seconds = images * (12 / 6000 + 4 / 4000) + 16 * 50_000 / 10000
    assert minutes == pytest.approx(seconds / 60)
    assert module.projected_minutes(config, {160: 6000.0}, 10000.0, gpus=1) == 0.0
    assert f" {minutes / 8:.1f} " in "\n".join(module.projection_table(results))


def test_what_fails_or_takes_too_long_is_named(benchmark_module):
    module = benchmark_module("train_speed")
    results = module.Results()

    def fail():
        raise RuntimeError("out of memory")

    def refuse():
        raise ValueError("data.decode: got gpu")

    now, saved = time.monotonic(), []
    budget = module.Budget(now + 100, results, lambda: saved.append(len(results.failed)))
    budget.run("step", "resnet50 224 px", fail)
    budget.run("loaders", "224 px", refuse)
    budget._longest["step"] = 200.0
    budget.run("step", "resnet50 128 px", fail)
    budget.run("ablation", "all", fail)  # the first of its kind: as long as the longest of any
    budget.run("loaders", "128 px", refuse)
    assert results.left_out == ["step resnet50 128 px", "ablation all"]
    assert results.failed == [
        "step resnet50 224 px: RuntimeError: out of memory",
        "loaders 224 px: ValueError: data.decode: got gpu",
        "loaders 128 px: ValueError: data.decode: got gpu",
    ]
    assert saved == [1, 2, 3]


def test_a_way_of_decoding_that_fails_takes_nothing_with_it(benchmark_module, photographs, tmp_path, monkeypatch):
    module = benchmark_module("train_speed")

    def no_loader(self, decode, arch, side):
        raise ValueError("no entry-point index")

    monkeypatch.setattr(module.Benchmark, "_loader", no_loader)
    table = tmp_path / "table.md"
    options = f"--images {photographs} --workdir {tmp_path} --device cpu --archs resnet10 --sides 32 --batch 2"
    options += f" --steps 1 --rounds 1 --epoch-images 4 --workers 1 --parts step,end-to-end --markdown {table}"
    precision = torch.get_float32_matmul_precision()
    try:
        with pytest.raises(SystemExit) as ended:
            module.main(options.split())
    finally:
        torch.set_float32_matmul_precision(precision)
    assert ended.value.code == 1
    assert "Failed: end to end (cpu) resnet10 32 px: ValueError: no entry-point index" in table.read_text()
    assert re.search(r"\| resnet10, 32 +\| [\d.]+ \([\d.]+-[\d.]+\) ", table.read_text())


def test_cudnn_searches_before_anything_runs_or_not_at_all(benchmark_module):
    steps, cudnn = benchmark_module("steps"), torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    try:
        for wanted in (True, False):
            variant = steps.Variant(cudnn_benchmark=wanted)
            step = steps.ProjectStep("resnet10", variant, batch_size=2, steps=1, device=torch.device("cpu"))
            cudnn.benchmark = cudnn.allow_tf32 = not wanted
            step.prepare(32)
            assert (cudnn.benchmark, cudnn.allow_tf32) == (wanted, wanted)
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


@pytest.mark.parametrize("blur", ["all pixels", "sums"])
@pytest.mark.parametrize("side", [32, 37])
def test_exchanged_blur_changes_no_result(benchmark_module, blur, side):
    torch.manual_seed(0)
    model = build_model("resnet10", 10, blurpool=True).double()
    exchanged = copy.deepcopy(model)
    benchmark_module("steps").change_blur(exchanged, blur)
    assert any(isinstance(module, BlurPoolConv2d) for module in exchanged.modules()) == (blur == "all pixels")
    images, gradients = torch.rand(2, 3, side, side, dtype=torch.float64), []
    for each in (model, exchanged):
        each(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in each.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_fourth_channel_changes_no_result(benchmark_module, channels_last):
    torch.manual_seed(0)
    model = build_model("resnet10", 10, blurpool=True).double()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    if channels_last:
        model, images = (x.to(memory_format=torch.channels_last) for x in (model, images))
    padded = copy.deepcopy(model)
    benchmark_module("steps").pad_stem(padded)
    padded.load_state_dict(model.state_dict())
    weights = [torch.autograd.grad(m(images).square().sum(), [*m.parameters()]) for m in (model, padded)]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-9, atol=1e-9)


def test_operations_and_bytes_of_a_step(benchmark_module):
    cost_of_image = benchmark_module("step_limits").cost_of_image
    # torchvision states 4.09e9 multiply-adds for ResNet-50 at 224 px. Backward costs twice as much, except that the
    # images need no gradient (1 % of all); blur adds a little.
    assert 0.98 < cost_of_image("resnet50", 224).flops / (3 * 2 * 4.09e9) < 1.02
    # Counted by hand, layer by layer.
    cost = cost_of_image("resnet50", 160)
    parts = (cost.convolutions, cost.normalisations, cost.blurs, cost.additions)
    assert [round(part / 1e6) for part in parts] == pytest.approx([62, 91, 6, 17], abs=1)
    assert cost.bytes / 1e6 == pytest.approx(179, abs=1)
    assert cost.limit(798e12, 3.0e12) == (pytest.approx(16_750, rel=0.01), "bytes")
    assert cost.limit(798e12, 30e12) == (pytest.approx(64_200, rel=0.01), "operations")


def test_losses(benchmark_module, tmp_path, capsys):
    module, file = benchmark_module("losses"), tmp_path / "table.md"
    module.main(f"--batch 4 --classes 8 --locations 4 --rounds 2 --device cpu --threads 1 --markdown {file}".split())
    text = capsys.readouterr().out
    assert text == file.read_text()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["loss", module.PLAIN, *LOSSES.kinds, *module.MORE]
    assert "| F.cross_entropy | " in text
    assert re.search(r"\| zipf_label_smoothing \| [\d.]+ \| [\d.]+ \| 4 \|", text)


def test_augment(benchmark_module, tmp_path, capsys):
    module, file = benchmark_module("augment"), tmp_path / "table.md"
    module.main(f"--batch 4 --side 16 --rounds 2 --device cpu --threads 1 --markdown {file}".split())
    text = capsys.readouterr().out
    assert text == file.read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == [*module.CASES]
    assert all(re.fullmatch(r"\d+ ms \(\d+ to \d+\)", row[1]) for row in rows[1:])
    assert re.fullmatch(r"[\d.]+", rows[1][4])


def test_imagenet_tars(tmp_path):
    """An archive of the layout of ImageNet's, of as many images and classes as asked for, is listed and written."""
    command = [sys.executable, BENCHMARKS / "imagenet_tars.py", "--images=50", "--classes=3"]
    output = subprocess.run([*command, f"--folder={tmp_path}"], check=True, capture_output=True, text=True).stdout
    first, *rows = output.splitlines()
    assert first.startswith("50 images in 3 classes")
    listing, writing = ([float(cell) for cell in row.split("|")[2:5]] for row in rows[2:])
    assert all(seconds >= 0 and 0 < private <= resident for seconds, private, resident in (listing, writing))
    assert not list(tmp_path.iterdir())


def test_pixels(benchmark_module, photographs, capsys):
    benchmark_module("pixels").main(["--images", str(photographs), "--crops", "8", "--resolutions", "24"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [["| 4:2:0", "24"], ["| 4:4:4", "24"]]
    assert all(row.endswith("| 8 of 8 | 8 of 8 |") for row in rows)


def test_gpu_decode_without_a_gpu(benchmark_module, photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    options = f"{photographs} --workdir {tmp_path} --images 10 --batch 4 --resolution 32 --repeats 1"
    benchmark_module("gpu_decode").main([*options.split(), "--markdown", str(tmp_path / "table.md")])
    text = capsys.readouterr().out
    assert text.endswith((tmp_path / "table.md").read_text())
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    measured = [row[0] for row in rows if row[1] != "not measured"]
    assert measured == ["| host: crop boxes", "| host: crop boxes and gathering"]
    assert len(rows) > 10
    (beton,) = tmp_path.glob("*/indexed/images.beton")
    with pytest.raises(SystemExit):
        benchmark_module("gpu_decode").main([str(beton), "--batch", "100"])
    assert "--batch: got 100, allowed are at most the 10 images" in capsys.readouterr().err


@pytest.mark.parametrize("order", ["random", "quasi_random"])
def test_beyond_memory(benchmark_module, photographs, tmp_path, order):
    beton = tmp_path / "images.beton"
    jpegs = [file.read_bytes() for file in sorted(photographs.rglob("*.jpg"))]
    benchmark_module("prepare").write_repeated(jpegs, beton, 1000)
    script = BENCHMARKS / "beyond_memory.py"
    command = [sys.executable, script, f"--once={order}", "--seconds=1000", "--memory=4", beton]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "run as root" in done.stderr:
        pytest.skip("no control group can be made")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rate"] > 0


def test_a_loaders_speed_is_that_of_many_batches(benchmark_module):
    order = benchmark_module("gpu_decode").RepeatedOrder(10, 4, 5)
    first, second, third = (ShuffledOrder(10, 0, 4).sample_order(epoch) for epoch in (3, 4, 5))
    assert order.sample_order(3).tolist() == [*first, *second, *third][:20]


class HostEvent:
    """Stands in for torch.cuda.Event where the kernels run on the host."""

    def __init__(self, **_):
        pass

    def record(self):
        self.time = time.perf_counter()

    def elapsed_time(self, later):
        return 1000 * (later.time - self.time)


def test_gpu_decode_with_kernels_on_the_host(benchmark_module, host_kernels, photographs, tmp_path, monkeypatch):
    """All that is measured on a GPU, but for the foreign decoders."""
    module = benchmark_module("gpu_decode")
    monkeypatch.setattr(torch.cuda, "Event", HostEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(module, "GPUBatchLoader", functools.partial(module.GPUBatchLoader, kernels=host_kernels))
    monkeypatch.setattr(module, "TRAINING_STEPS", 3)

    def whole_decoder():
        def decode(jpegs, boxes):
            images = [read_image(jpeg.tobytes()) for jpeg in jpegs]
            return [torch.from_numpy(image).permute(2, 0, 1) for image in images], boxes

        return decode

    contenders = (("Whole images", "numpy", whole_decoder), ("Failing", "numpy", lambda: 1 / 0))
    monkeypatch.setattr(module, "CONTENDERS", contenders)
    data = module.open_data(photographs, tmp_path, 10)
    options = SimpleNamespace(batch=4, batches=6, resolution=32, repeats=1, device=torch.device("cpu"))
    rows = {row.what: row for row in module.gpu_rows(data, options, module.batch_decoder(data, options, host_kernels))}
    assert [what for what, row in rows.items() if row.microseconds is None] == ["Failing"]
    assert rows["Failing"].note == "failed: division by zero"
    assert len(rows) == 12
    note = rows["this project, decoding on the GPU"].note
    assert re.search(r"busy cores; target >= 50,000: .*; \d+\.\d\d busy cores with 50,000, target <= 1: ", note)
    assert "x nvJPEG's best" in note
    assert "the GPU without data" in rows["training ResNet-50, this loader"].note
