"""The pages: their links lead somewhere, and what they tell people to type exists."""

import re
import subprocess
from pathlib import Path

import pytest

import ffcv_imagenet.analysis.command
import ffcv_imagenet.data.adopt
import ffcv_imagenet.data.extract
import ffcv_imagenet.data.index
import ffcv_imagenet.data.show
import ffcv_imagenet.data.verify
import ffcv_imagenet.doctor.command
import ffcv_imagenet.export
import ffcv_imagenet.predict
import ffcv_imagenet.report.command
import ffcv_imagenet.sweep.__main__
import ffcv_imagenet.train.__main__
import ffcv_imagenet.watch.command
import ffcv_imagenet.write

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "ffcv_imagenet.train": ffcv_imagenet.train.__main__.main,
    "ffcv_imagenet.write": ffcv_imagenet.write.main,
    "ffcv_imagenet.sweep": ffcv_imagenet.sweep.__main__.main,
    "ffcv_imagenet.analysis": ffcv_imagenet.analysis.command.main,
    "ffcv_imagenet.predict": ffcv_imagenet.predict.main,
    "ffcv_imagenet.export": ffcv_imagenet.export.main,
    "ffcv_imagenet.report": ffcv_imagenet.report.command.main,
    "ffcv_imagenet.doctor": ffcv_imagenet.doctor.command.main,
    "ffcv_imagenet.watch": ffcv_imagenet.watch.command.main,
    "ffcv_imagenet.data.adopt": ffcv_imagenet.data.adopt.main,
    "ffcv_imagenet.data.extract": ffcv_imagenet.data.extract.main,
    "ffcv_imagenet.data.show": ffcv_imagenet.data.show.main,
    "ffcv_imagenet.data.index": ffcv_imagenet.data.index.main,
    "ffcv_imagenet.data.verify": ffcv_imagenet.data.verify.main,
}


def pages():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    return [name for name in listed if (ROOT / name).is_file()]


def anchors(page):
    """What a heading is called in a link, as hosts of Markdown do it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", pages())
def test_relative_links_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name}: {target}"
        assert not anchor or other.suffix != ".md" or anchor in anchors(other), f"{name}: {target}"


@pytest.fixture(scope="module")
def options():
    """The options of every command, read from its --help."""
    import contextlib
    import io

    found = {}
    for command, main in COMMANDS.items():
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main(["--help"])
        found[command] = set(re.findall(r"--[a-z][\w.\-]*", text.getvalue()))
    return found


@pytest.mark.parametrize("name", [*pages(), *(f"rn_configs/{p.name}" for p in (ROOT / "rn_configs").glob("*.yaml"))])
def test_options_that_a_page_names_exist(name, options):
    text = (ROOT / name).read_text()
    known = set().union(*options.values())
    for option in re.findall(r"(?<![\w-])--[a-z]+\.[\w.]+", text):
        option = option.rstrip(".")
        swept = "--" + option.removeprefix("--sweep.")
        assert option in known | SHORT or (option.startswith("--sweep.") and swept in known), f"{name}: {option}"


#: Short for --sweep.loss.name, --sweep.training.seed; of the example loss in docs/extending.md.
SHORT = {"--sweep.loss", "--sweep.seeds", "--sweep.SECTION.NAME", "--loss.epsilon"}


@pytest.mark.parametrize("name", pages())
def test_modules_and_scripts_that_a_page_names_exist(name):
    text = (ROOT / name).read_text()
    for module in re.findall(r"python3? -m (ffcv_imagenet[\w.]*)", text):
        path = ROOT / module.rstrip(".").replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{name}: {module}"
    for script in re.findall(r"python3? ([\w/]+\.py)", text):
        assert (ROOT / script).is_file(), f"{name}: {script}"
    for file in re.findall(r"rn_configs/[\w.]+\.yaml|scripts/[\w.]+\.sh|slurm/[\w.]+\.sh", text):
        assert (ROOT / file).is_file(), f"{name}: {file}"


def places():
    """What "What lies where" says of each folder of the package, as text: the lines of its entry."""
    _, _, tree = (ROOT / "docs" / "architecture.md").read_text().rpartition("\nffcv_imagenet/\n")
    entries, path = {"": ""}, []
    for line in tree.partition("```")[0].splitlines():
        if opened := re.match(r"( +)(\w+)/( |$)", line):
            path = [*path[: len(opened[1]) // 2 - 1], opened[2]]
            entries["/".join(path)] = ""
        elif line[:4].count(" ") == 2:  # files of the hall
            path = []
        entries["/".join(path)] += line + "\n"
    return entries


def test_the_architecture_page_says_where_each_module_lies():
    entries = places()
    package = ROOT / "ffcv_imagenet"
    assert {folder for folder in entries if not (package / folder).is_dir()} == set()
    missing = []
    for module in sorted(package.rglob("*.py")):
        folder = module.parent.relative_to(package).as_posix().removeprefix(".")
        entry = entries.get(folder)
        named = entry is not None and (re.search(rf"\b{module.name}\b", entry) or "one file each" in entry)
        if not named and module.name not in ("__init__.py", "__main__.py"):
            missing.append(module.relative_to(package).as_posix())
    assert missing == []


def test_the_architecture_page_names_no_module_that_is_not_there():
    for folder, entry in places().items():
        for name in re.findall(r"[\w]+\.py\b", entry):
            assert (ROOT / "ffcv_imagenet" / folder / name).is_file(), f"{folder}/{name}"
