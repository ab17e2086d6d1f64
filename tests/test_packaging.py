"""How it is installed: what a wheel holds and runs, the set-up's scripts, containers."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ffcv_imagenet.__main__ as commands

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tracked():
    """The files of the package, by git, with the recipes where their link leads to."""
    command = ["git", "ls-files", "ffcv_imagenet", "rn_configs/*.yaml"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tracked, tmp_path_factory):
    """What a wheel of a clean clone holds: the step of its build that collects the files. Others compile and pack."""
    clone, built = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("built")
    for name in (*tracked, "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    (clone / "ffcv_imagenet/recipes").symlink_to("../rn_configs")
    command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={built}"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built


def test_a_wheel_has_every_file_of_the_package(tracked, built):
    packed = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert packed == {name.replace("rn_configs/", "ffcv_imagenet/recipes/") for name in tracked}


def run_built(built, folder, *words):
    """Run a command of the wheel's package in a folder elsewhere."""
    return subprocess.run(
        [sys.executable, "-m", "ffcv_imagenet", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(built)},
        capture_output=True,
        text=True,
    )


def test_the_wheels_package_trains_by_a_recipes_name_from_any_folder(built, tmp_path):
    done = run_built(built, tmp_path, "train", "--config-file=rn18_16_epochs", "--training.epochs=2", "--data.val=v")
    assert done.returncode == 2
    assert "resolution.end_ramp from rn18_16_epochs; training.epochs from the command line" in done.stderr


def test_a_command_that_is_not_there_is_one_line(built, tmp_path):
    done = run_built(built, tmp_path, "bake")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown command 'bake', allowed are write, train, ")
    assert done.stderr.count("\n") == 1


def is_command(file):
    """Whether a module runs a script's main when it is run."""
    calls = (node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id == "run_script" for called in calls)


def test_every_command_of_the_package_is_in_the_list(capsys):
    package = ROOT / "ffcv_imagenet"
    files = {file for file in package.rglob("*.py") if is_command(file)} - {package / "__main__.py"}
    names = {file.relative_to(package).with_suffix("").as_posix().removesuffix("/__main__") for file in files}
    assert {name.replace("/", ".") for name in names} == set(commands.COMMANDS)
    commands.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in commands.COMMANDS)


@pytest.mark.parametrize("script", sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / "scripts/without_root/pkg-config"]))
def test_a_shell_understands_each_script(script):
    subprocess.run([script.read_text().splitlines()[0].rpartition("/")[2].split()[-1], "-n", script], check=True)


def test_containers_are_built_by_the_same_steps():
    docker = [
        line.removeprefix("RUN ") for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:4] == "RUN "
    ]
    post = (ROOT / "apptainer.def").read_text().partition("%post\n")[2].partition("\n\n")[0]
    assert [line.strip() for line in post.splitlines()][1:] == docker


def answer_without_pkg_config(tmp_path, *words):
    """What scripts/without_root/pkg-config says where there is no other."""
    for tool in ("sh", "dirname", "tr", "grep", "paste"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    environment = {"PATH": f"{ROOT / 'scripts/without_root'}:{tmp_path}", "TURBOJPEG": "/somewhere"}
    return subprocess.run(["pkg-config", *words], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cflags", "--libs", "opencv4"], ["-I{include}"]),
        (["--cflags", "--libs", "libturbojpeg"], ["-I{include}", "-L/somewhere", "-lturbojpeg"]),
        (["--cflags-only-I", "libturbojpeg"], ["-I{include}"]),
        (["--libs-only-L", "libturbojpeg"], ["-L/somewhere"]),
        (["--libs-only-l", "libturbojpeg"], ["-lturbojpeg"]),
        (["--exists", "libturbojpeg"], []),
        (["--exists", "zlib"], None),
    ],
)
def test_what_stands_in_for_pkg_config_answers_what_is_asked_of_it(words, said, tmp_path):
    done = answer_without_pkg_config(tmp_path, *words)
    assert (done.returncode == 0) == (said is not None)
    assert done.stdout.split() == [word.format(include=ROOT / "scripts/without_root/include") for word in said or ()]
