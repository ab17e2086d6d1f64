"""Who may know whom: every import in the package points downwards."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ffcv_imagenet"

#: Lower layers first; a module may import modules of lower layers, and of its own only where listed in SAME_LAYER.
LAYERS = [
    {
        "native",
        "atomic",
        "json_file",
        "run_lock",
        "schedules",
        "tensor_file",
        "metrics",
        "precision",
        "augment",
        "options",
        "loggers",
        "wait_clock",
    },
    {"interruption", "losses", "models", "optim", "ema", "checkpoint", "runlog", "report", "distributed"},
    {"data"},
    {"evaluation", "step"},
    {"trainer"},
    {"config"},
    {"experiment"},
    {"sweep"},
]
#: What these must not import, although it is below them.
FORBIDDEN = {
    "models": {"data"},
    "data": {"models", "losses", "optim", "checkpoint", "runlog"},
    "report": {"trainer", "data", "torch", "ffcv"},
    "trainer": {"config"},
}


def modules():
    return sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))


def imports_of(module):
    """Top-level names of what a module imports; for our own, the name inside the package."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{a.name}" if node.module == "ffcv_imagenet" else node.module for a in node.names}
    return {n.removeprefix("ffcv_imagenet.").split(".")[0] for n in names}


def layer(name):
    return next((i for i, names in enumerate(LAYERS) if name in names), None)


@pytest.mark.parametrize("module", [m for m in modules() if m != "__init__"])
def test_imports_point_downwards(module):
    own = module.split("/")[0]
    assert layer(own) is not None, f"{module} has no layer: add it to LAYERS"
    for name in imports_of(module):
        assert name not in FORBIDDEN.get(own, set()), f"{module} imports {name}"
        if layer(name) is not None and name != own:
            assert layer(name) < layer(own), f"{module} imports {name}, which is not below it"


def test_only_data_imports_ffcv():
    assert [m for m in modules() if "ffcv" in imports_of(m) and not m.startswith("data/")] == []


def test_nothing_is_called_utils():
    assert not list(ROOT.rglob("*utils*"))
