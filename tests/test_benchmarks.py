"""The benchmarks run and print their tables. Nothing here depends on a time."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from images import draw_folder

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("photographs"), train=3, size=(60, 80), extension=".jpg") / "train"


@pytest.fixture
def benchmark_module(monkeypatch):
    """Imports a file of benchmarks/."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


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
