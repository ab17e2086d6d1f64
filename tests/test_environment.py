"""environment.yml (conda) and pyproject.toml (pip) name the same packages and versions."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
#: Named otherwise on conda-forge.
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "types-PyYAML": "types-pyyaml"}
CONDA_NAMES["opencv-python"] = "opencv"  # which is also what ffcv is compiled with
#: Not Python packages of ours: the interpreter, pip, and what ffcv is compiled with.
CONDA_ONLY = {"python", "pip", "compilers", "pkg-config", "libjpeg-turbo", "cuda-version"}


def split(requirement):
    name, version = re.fullmatch(r"([A-Za-z0-9_-]+)\s*(.*)", requirement.split(";")[0].strip()).groups()
    return name, version


def test_same_packages_and_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(map(split, project["dependencies"] + project["optional-dependencies"]["dev"]))
    wanted = {CONDA_NAMES.get(name, name): version for name, version in wanted.items()}

    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    from_pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    got = dict(split(entry) for entry in entries if isinstance(entry, str))
    assert set(got) >= CONDA_ONLY
    assert got["python"] == project["requires-python"]
    got = {name: version for name, version in got.items() if name not in CONDA_ONLY}
    got |= dict(split(entry) for entry in from_pip if not entry.startswith("-"))
    assert got == wanted
    assert "-e ." in from_pip
