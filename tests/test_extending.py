"""docs/extending.md: its examples work as they stand on the page."""

import json
import re
from pathlib import Path

from whole_runs import config, log

from ffcv_imagenet.experiment import train

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


def test_the_examples_train_together(digits, tmp_path, monkeypatch):
    written = []
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE):
        name = re.match(r"# (\w+\.py)\n", code)[1]
        (tmp_path / name).write_text(code)
        written.append(name)
    assert written == ["my_losses.py", "my_models.py"]
    monkeypatch.syspath_prepend(tmp_path)
    train(
        config(digits, tmp_path, **{"loss.name": "my_losses:Poly", "loss.epsilon": 2, "model.arch": "my_models:plain"})
    )
    first, last = log(tmp_path)
    assert 0 < first["loss.target_share"] < last["loss.target_share"] < 1
    options = json.loads((tmp_path / "runs" / "run" / "params.json").read_text())["config"]
    assert options["loss.epsilon"] == 2


def test_the_files_that_the_lists_name_exist_or_are_those_to_add():
    new = ["losses/poly.py", "data/sources/NAME.py", "models/NAME.py", "analysis/NAME.py"]
    new += ["augment/policies/NAME.py", "augment/operations/NAME.py"]
    new = {f"ffcv_imagenet/{name}" for name in new}
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE)
        for name in re.findall(r"`(.*?)`", row)
    }
    assert named >= new
    for name in named - new:
        assert (PAGE.parents[1] / name).is_file(), name
