"""Who may know whom: every import in the package points downwards, from room to room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ffcv_imagenet"

#: What each room (a folder, or a file of the hall) may import of the others. Inside a room everything may.
MAY_IMPORT = {
    "native": set(),
    "names": set(),
    "compiled": {"names"},
    "units": set(),
    "limits": set(),
    "doctor/verdict": {"units"},
    "files": {"names"},
    "elsewhere": set(),
    "hints": {"elsewhere"},
    "script": {"hints", "names"},
    "progress": {"names", "units"},
    "variants": set(),
    "imagenet": set(),
    "options": {"elsewhere", "hints", "script", "variants"},
    "augment": {"imagenet", "options", "variants", "compiled"},
    "schedules": {"options", "variants"},
    "optimizers": {"options", "variants"},
    "models": {"variants"},
    "losses": {"options", "schedules", "variants"},
    "distributed": {"script"},
    "data/ffcv_imports": {"compiled"},
    "data/format": {"files", "names", "native", "progress"},
    "data/sources": {"files", "names", "native"},
    "data/write": {"files", "names", "native", "options", "progress", "variants", "data/format", "data/sources"},
    "data/read/crop_kinds": {"options", "variants"},
    "data/read": {
        "names", "native", "augment", "compiled", "imagenet", "data/ffcv_imports", "data/format",
        "data/read/crop_kinds",
    },
    "data": {"files", "names", "progress", "script", "data/format", "data/read", "data/sources", "data/write"},
    "run": {"files"},
    "train/precision": set(),
    "train/__main__": {"config", "experiment", "options", "script"},
    "train": {
        "train/precision", "script", "augment", "distributed", "losses", "models", "progress", "units", "data/read",
        "run",
    },
    "config": {
        "augment", "options", "optimizers", "schedules", "imagenet", "losses", "train", "data/sources",
        "data/read/crop_kinds", "data/write",
    },
    "resume": {"config", "files", "options", "run", "data/format"},
    "manifests": {"config", "data/format"},
    "resolved": {
        "augment", "config", "distributed", "limits", "manifests", "models", "train", "train/precision",
        "data/format", "data/read", "data/read/crop_kinds",
    },
    "overview": {"config", "names", "resolved"},
    "batch_sheet": {"augment", "config", "distributed", "loaders", "names", "resolved", "data/format"},
    "data/show": {
        "batch_sheet", "config", "names", "options", "script", "data/format", "data/read",
    },
    "shortage": {"limits", "resolved", "train", "units"},
    "loaders": {
        "config", "manifests", "resolved", "train/precision", "data/format", "data/read", "data/read/crop_kinds",
    },
    "evaluated": {"config", "data/format", "data/read/crop_kinds", "losses", "options", "resume", "run"},
    "experiment": {
        "config", "distributed", "evaluated", "limits", "loaders", "models", "names", "options", "overview",
        "progress", "resolved", "resume", "run", "shortage", "train", "data/read", "doctor/verdict",
    },
    "analysis": {
        "augment", "compiled", "config", "distributed", "evaluated", "files", "loaders", "models", "names", "options",
        "progress", "resolved", "run", "script", "variants", "train/precision", "data/format", "data/read",
        "data/sources", "data/write",
    },
    "library": {
        "analysis", "augment", "distributed", "imagenet", "native", "options", "data/format", "data/read",
    },
    "predict": {
        "analysis", "distributed", "files", "names", "options", "script", "data/sources", "data/write",
    },
    "export": {"analysis", "distributed", "files", "names", "options", "run", "script"},
    "write": {
        "config", "names", "options", "script", "data/sources", "data/write",
    },
    "completion": {"script"},
    "__main__": {"completion", "script"},
    "report": {"config", "files", "losses", "options", "script", "run"},
    "sweep": {
        "config", "files", "hints", "losses", "models", "names", "options", "report", "manifests", "resume", "run",
        "script", "units", "data/format", "data/read",
    },
    "doctor": {
        "config", "distributed", "experiment", "limits", "loaders", "names", "native", "options", "resolved", "script",
        "shortage", "train", "train/precision", "units", "data/format", "data/read", "data/write", "doctor/verdict",
    },
    "watch": {"names", "report", "run", "schedules", "script", "sweep", "units"},
}  # fmt: skip
#: Packages that only these rooms may import.
ONLY_IN = {"ffcv": {"data/ffcv_imports"}}
#: Packages that these rooms must not import.
NEVER_IN = {room: {"torch", "ffcv", "numba", "cv2"} for room in ("report", "watch")}


def modules():
    return sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))


def room(module):
    """The room of a module: the longest name in :data:`MAY_IMPORT` that it lies in."""
    parts = module.removesuffix("/__init__").split("/")
    return next((r for n in range(len(parts), 0, -1) if (r := "/".join(parts[:n])) in MAY_IMPORT), None)


def imports_of(module):
    """What a module imports: our own modules as paths, others by their first name."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            inside = node.module.split(".")[0] == "ffcv_imagenet"
            names |= {f"{node.module}.{a.name}" if inside else node.module for a in node.names}
    own = {n.removeprefix("ffcv_imagenet.").replace(".", "/") for n in names if n.startswith("ffcv_imagenet.")}
    return own, {n.split(".")[0] for n in names} - {"ffcv_imagenet"}


@pytest.mark.parametrize("module", [m for m in modules() if m != "__init__"])
def test_a_module_imports_only_what_its_room_may(module):
    own = room(module)
    assert own is not None, f"{module} has no room: add it to MAY_IMPORT"
    ours, others = imports_of(module)
    for name in ours:
        other = room(name)
        assert other in {own, None} | MAY_IMPORT[own], f"{module} imports {name}"
    for name in others:
        assert own in ONLY_IN.get(name, {own}), f"{module} imports {name}"
        assert name not in NEVER_IN.get(own, ()), f"{module} imports {name}"


def test_the_rooms_have_an_order():
    placed = []
    while left := [r for r in MAY_IMPORT if r not in placed]:
        free = [r for r in left if MAY_IMPORT[r] <= set(placed)]
        assert free, f"{left} import each other in a circle"
        placed += free


def test_every_room_in_the_list_exists():
    assert {r for r in MAY_IMPORT if not (ROOT / r).is_dir() and not (ROOT / f"{r}.py").is_file()} == set()


def test_nothing_is_called_utils():
    assert not list(ROOT.rglob("*utils*"))
