import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ffcv_imagenet.config import TrainConfig, WriteConfig, _effects, effect_of
from ffcv_imagenet.options import (
    Choice,
    Integer,
    OrNone,
    Real,
    Switch,
    Text,
    Words,
    build,
    complete,
    config_files,
    flatten,
    group,
    option,
    options_of,
    parse,
    parse_command,
    read_yaml,
    recipe_name,
)

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Cake:
    """A cake."""

    eggs: int = option(Integer(0, 12), "how many", 2)
    sugar: float = option(Real(0), "how much", 0.5)
    iced: bool = option(Switch(), "whether", True)
    shape: str = option(Choice("round", "square"), "which", "round")
    name: str | None = option(OrNone(Text()), "whose", None)
    layers: tuple[str, ...] = option(Words("cream", "jam"), "what", ("cream",))


@dataclass(frozen=True)
class Baking:
    """All options."""

    cake: Cake = group(Cake)


def parsed(*words):
    return parse(Baking, words, "Bake.").cake


def test_defaults_and_values_from_the_command_line():
    assert parsed() == Cake()
    assert parsed("--cake.eggs=3", "--cake.iced=0", "--cake.layers=jam,cream", "--cake.name", "Ada") == Cake(
        eggs=3, iced=False, layers=("jam", "cream"), name="Ada"
    )


def test_a_required_option_is_told_with_what_it_is():
    with pytest.raises(ValueError, match=r"  out.dir is required: give --out.dir=..., folder for train.beton and val"):
        parse(WriteConfig, [], "")


@pytest.mark.parametrize(
    ("word", "value"), [("1", True), ("true", True), ("0", False), ("False", False), ("off", False)]
)
def test_switches_know_zero(word, value):
    assert parsed(f"--cake.iced={word}").iced is value


def test_later_files_and_the_command_line_win(tmp_path):
    (tmp_path / "a.yaml").write_text("cake: {eggs: 3, sugar: 1.0e-3, iced: false}")
    (tmp_path / "b.yaml").write_text("cake:\n  eggs: 4\n  name: null\n  layers: [jam]")
    files = ["--config-file", str(tmp_path / "a.yaml"), "--config-file", str(tmp_path / "b.yaml")]
    assert parsed(*files, "--cake.sugar=2") == Cake(eggs=4, sugar=2.0, iced=False, layers=("jam",))
    assert parsed("--cake.eggs=5", *files).eggs == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cake.eggs=many"], r"cake.eggs: got 'many', allowed is a whole number from 0 to 12"),
        (["--cake.eggs=13"], r"cake.eggs: got '13', allowed"),
        (["--cake.eggs=1.5"], r"cake.eggs: got '1.5'"),
        (["--cake.sugar=-1"], r"cake.sugar: got '-1', allowed is a number >= 0"),
        (["--cake.sugar=nan"], r"cake.sugar: got 'nan'"),
        (["--cake.sugar=inf"], r"cake.sugar: got 'inf'"),
        (["--cake.iced=maybe"], r"cake.iced: got 'maybe', allowed is 0 or 1"),
        (["--cake.shape=oval"], r"cake.shape: got 'oval', allowed is round \| square"),
        (["--cake.layers=jam,jam"], r"cake.layers: got 'jam,jam'"),
        (["--cake.name="], r"cake.name: got ''"),
        (["--cake.egg=3"], r"unknown argument '--cake.egg=3' \(did you mean --cake.eggs\?\)$"),
        (["--eggs=3"], r"unknown argument '--eggs=3' \(did you mean --cake.eggs\?\)$"),
        (["--cake=big"], r"unknown argument '--cake=big' \(did you mean --cake.name\?\)$"),
        (["bake"], r"unknown argument 'bake' \(--help lists all options\)$"),
        (["--cake.eggs"], r"--cake.eggs: expected one argument"),
    ],
)
def test_mistakes_on_the_command_line(words, message):
    with pytest.raises(ValueError, match=message):
        parsed(*words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cake: {egg: 3}", r"c.yaml: unknown option 'cake.egg' \(did you mean --cake.eggs\?\)$"),
        ("pie: {eggs: 3}", r"unknown option 'pie.eggs' \(did you mean --cake.eggs\?\)$"),
        ("cake: {eggs: 2.0}", r"cake.eggs: got 2.0"),
        ("cake: {eggs: true}", r"cake.eggs: got True"),
        ("cake: {eggs: [1]}", r"cake.eggs: got \[1\]"),
        ("cake: {sugar: true}", r"cake.sugar: got True"),
        ("cake: {name: {a: 1}}", r"unknown option|cake.name: got"),
        ("cake: {eggs: }", r"cake.eggs: got nothing, allowed is a whole number"),
        ("cake: {iced: }", r"cake.iced: got nothing, allowed is 0 or 1"),
        ("cake: {eggs: 1, eggs: 2}", r"c.yaml is not valid YAML: eggs is given twice .* line 1"),
        ("cake: {eggs: 1}\ncake: {sugar: 1}", r"c.yaml is not valid YAML: cake is given twice .* line 2"),
        ("cake: 3", r"mapping of sections"),
        ("- 1", r"mapping of sections"),
        ("a: b: c", r"not valid YAML"),
        ("cake: {eggs: !!python/object/apply:os.system ['true']}", r"not valid YAML"),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        parsed("--config-file", str(tmp_path / "c.yaml"))


def test_all_mistakes_are_told_at_once_each_with_its_place(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("cake: {egg: 3, icing: 1}\npie: {lid: 1}")
    with pytest.raises(ValueError, match="mistakes in the options") as error:
        parsed("--config-file", str(file), "--sugr=2", "--nonsense", "7", "--cake.eggs=3")
    assert str(error.value).split("\n  ") == [
        "5 mistakes in the options:",
        "unknown argument '--sugr=2' (did you mean --cake.sugar?)",
        "unknown argument '--nonsense' (--help lists all options)",
        f"{file}: unknown option 'cake.egg' (did you mean --cake.eggs?)",
        f"{file}: unknown option 'cake.icing' (did you mean --cake.iced?)",
        f"{file}: unknown option 'pie.lid' (--help lists all options)",
    ]
    file.write_text("cake: {eggs: 13, sugar: 1}")
    with pytest.raises(ValueError, match="mistakes in the options") as error:
        parsed("--config-file", str(file), "--cake.sugar=-1")
    assert str(error.value).split("\n  ")[1:] == [
        f"cake.eggs: got 13, allowed is a whole number from 0 to 12 (cake.eggs from {file})",
        "cake.sugar: got '-1', allowed is a number >= 0",
    ]


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"c.yaml is not valid YAML: .*0xff"):
        parsed("--config-file", str(tmp_path / "c.yaml"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.yaml"):
        parsed("--config-file", str(tmp_path / "nothing.yaml"))


def test_environment_variables_are_not_options(monkeypatch):
    monkeypatch.setenv("cake.eggs", "7")
    assert parsed().eggs == 2


def test_flatten_is_the_inverse_of_build():
    values = {"data.val": "v.beton", "data.train": "t.beton", "loss.name": "maxsup", "lr.lr": 0.3}
    config = build(TrainConfig, values)
    assert build(TrainConfig, flatten(config)) == config


MISTAKES = [
    ({"resolution.min_res": 192, "resolution.max_res": 160}, "resolution.min_res: got 192, allowed is at most"),
    ({"resolution.start_ramp": 5, "resolution.end_ramp": 4}, "resolution.start_ramp: got 5"),
    ({"loss.smoothing": 0.1}, "loss.smoothing: got 0.1 for loss.name=baseline"),
    ({"loss.name": "maxsup", "loss.smoothing": 0.1}, "loss.smoothing"),
    ({"lr.schedule": "cosine", "lr.peak_epoch": 2}, "lr.peak_epoch"),
    ({"lr.peak_epoch": 99}, "lr.peak_epoch: got 99, allowed is less than training.epochs=16"),
    ({"resolution.max_res": 192, "resolution.end_ramp": 17}, "resolution.end_ramp: got 17, allowed is at most"),
    ({"data.train": "none"}, "data.train is required"),
    ({"data.val": "none"}, "data.val is required"),
    (
        {"augment.mixup": 0.8, "augment.cutmix": 1, "loss.name": "ldam"},
        r"augment.mixup: got 0.8, allowed is 0 with loss.name=ldam, which takes no mixed targets "
        r"\(--augment.mixup=0 --augment.cutmix=0\)",
    ),
    ({"augment.cutmix": 1, "loss.name": "online_label_smoothing"}, "augment.cutmix: got 1.0, allowed is 0 with"),
    ({"augment.cutmix": 1, "augment.mix_off_epochs": 16}, "augment.mix_off_epochs: got 16, allowed is less than"),
    (
        {"data.min_crop_area": 0.5, "data.max_crop_area": 0.4},
        "data.min_crop_area: got 0.5, allowed is at most",
    ),
    (
        {"data.crop": "padded", "data.min_crop_area": 0.5},
        "data.min_crop_area: got 0.5 for data.crop=padded",
    ),
    ({"data.repeats": 3, "data.decode": "gpu"}, "data.decode: got gpu, allowed with data.repeats=3 is cpu"),
    ({"data.repeats": 3, "data.order": "quasi_random"}, "data.order: got quasi_random, allowed with data.repeats=3 is"),
    ({"augment.color_jitter": "0.3,0.3,0.3,0.6"}, "augment.color_jitter: got a hue of 0.6, allowed are 0 to 0.5"),
    (
        {"augment.policy": "three_augment", "augment.fill": "mean"},
        "augment.fill: got mean for augment.policy",
    ),
    ({"training.eval_only": 1}, "training.eval_only=1 needs --checkpoint.resume"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_impossible_combinations_of_training_options(changes, message):
    with pytest.raises(ValueError, match=message):
        build(TrainConfig, {"data.val": "v.beton", "data.train": "t.beton", **changes})


def test_the_printed_configuration_given_back_is_the_same(tmp_path, capsys):
    words = [
        "--config-file",
        str(ROOT / "rn_configs" / "rn50_16_epochs.yaml"),
        "--data.val=v",
        "--data.train=a b:#'\udcff",
    ]
    words += [
        "--loss.name=maxsup",
        "--lr.lr=1e-5",
        "--training.ema=0.9",
        "--data.mean=0.1,0.2,0.3",
        "--logging.name=007",
    ]
    config = parse(TrainConfig, words, "")
    with pytest.raises(SystemExit) as ended:
        parse_command(TrainConfig, [*words, "--print-config"], "")
    assert not ended.value.code
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert parse(TrainConfig, ["--config-file", str(file)], "") == config
    assert set(read_yaml(file)) == set(flatten(config))


@pytest.mark.parametrize("loss", ["baseline", "label_smoothing", "maxsup"])
def test_a_run_is_repeated_by_its_parameters(loss):
    file = ROOT / "docs" / "example_runs" / f"digits_resnet10_{loss}_seed1" / "params.json"
    params, words = json.loads(file.read_text()), ["--config-file", str(file)]
    assert params["config"]["checkpoint.resume"] == "auto"
    config = flatten(parse(TrainConfig, words, ""))
    was = complete(TrainConfig, params["config"]) | {"checkpoint.resume": "none"}
    assert {key: config[key] for key in was} == was
    assert (config["loss.name"], config["training.seed"]) == (loss, 1)
    assert recipe_name(words) == params["recipe"] == "digits"
    assert parse(TrainConfig, [*words, "--training.seed=7"], "").training.seed == 7


@pytest.mark.parametrize("epochs", [1, 2, 3, 8, 300])
@pytest.mark.parametrize("schedule", ["piecewise", "step", "cosine"])
def test_defaults_follow_the_length_of_the_training(epochs, schedule):
    options = {"training.epochs": epochs, "lr.schedule": schedule, "resolution.min_res": 96, "resolution.max_res": 192}
    config = build(TrainConfig, {"data.val": "v", "data.train": "t", **options})
    rates = [config.make_lr()(epoch) for epoch in np.linspace(0, epochs, 1001)[:-1]]
    assert max(rates) == pytest.approx(0.5, rel=0.01)
    last = 0.5 * 0.1 ** (min(epochs, 3) - 1) if schedule == "step" else 0.0  # as many steps as fit, at most two
    assert rates[-1] == pytest.approx(last, abs=0.001)
    sides = [config.make_resolution()(epoch) for epoch in range(epochs)]
    assert sides == sorted(sides)
    assert (sides[0], sides[-1]) == (96, 192 if epochs > 1 else 96)


def test_a_recipe_that_is_cut_short_says_where_every_value_comes_from():
    recipe = ROOT / "rn_configs" / "rn18_16_epochs.yaml"
    words = ["--config-file", str(recipe), "--data.val=v", "--data.train=t", "--training.epochs=2"]
    with pytest.raises(ValueError, match="mistakes in the options") as error:
        parse(TrainConfig, words, "")
    places = f"from {recipe}; training.epochs from the command line)"
    assert str(error.value).split("\n  ") == [
        "2 mistakes in the options:",
        "resolution.end_ramp: got 13, allowed is at most training.epochs=2, or none to follow it "
        f"(resolution.end_ramp {places}",
        f"lr.peak_epoch: got 2, allowed is less than training.epochs=2, or none to follow it (lr.peak_epoch {places}",
    ]
    follow = [f"--{key}=none" for key in ("lr.peak_epoch", "resolution.start_ramp", "resolution.end_ramp")]
    config = parse(TrainConfig, [*words, *follow], "")
    assert config.make_lr()(0.5) == 0.5
    assert [config.make_resolution()(epoch) for epoch in (0, 1)] == [160, 192]


def test_a_conflict_with_a_default_says_so():
    with pytest.raises(
        ValueError, match=r"max_res=160 \(resolution.min_res from the command line; .*max_res by default"
    ):
        parse(TrainConfig, ["--data.val=v", "--data.train=t", "--resolution.min_res=192"], "")


def test_a_smoke_test_has_a_name_and_a_length_of_its_own():
    values = {"data.val": "v", "data.train": "t", "training.batch_size": 10, "training.epochs": 4}
    whole = build(TrainConfig, values)
    assert whole.default_name("r") == "r_resnet18_baseline_seed0"
    assert whole.planned_epochs(59) == 4
    for steps, epochs in [(1, 1), (5, 1), (6, 2), (99, 4)]:
        config = build(TrainConfig, values | {"training.max_steps": steps})
        assert config.default_name("r") == f"r_resnet18_baseline_seed0_{steps}_steps"
        assert config.planned_epochs(59) == epochs


@pytest.mark.parametrize("text", ["0.5", "0.1,0.2,0.3,0.4", "0.1,0.2,red", "0.1,0.2,1.5"])
def test_the_statistics_of_the_channels_are_three_numbers(text):
    values = {"data.val": "v", "data.train": "t"}
    config = build(TrainConfig, values | {"data.mean": "0.1,0.2,0.3"})
    assert config.data.mean == (0.1, 0.2, 0.3)
    assert build(TrainConfig, json.loads(json.dumps(flatten(config)))) == config
    with pytest.raises(ValueError, match=r"data.mean: got .*, allowed is 3 comma-separated numbers from 0 to 1"):
        build(TrainConfig, values | {"data.mean": text})


def test_a_batch_that_the_ranks_cannot_share():
    config = build(
        TrainConfig, {"data.val": "v", "data.train": "t", "training.batch_size": 100, "training.accumulation": 5}
    )
    assert config.per_rank_batch(4) == 5
    with pytest.raises(ValueError, match=r"training.batch_size: got 100, allowed is a multiple of 15 \(3 processes"):
        config.per_rank_batch(3)
    mixed = build(TrainConfig, {"data.val": "v", "data.train": "t", "training.batch_size": 100, "augment.mixup": 0.8})
    assert mixed.per_rank_batch(2) == 50
    with pytest.raises(ValueError, match=r"training.batch_size: got 100, allowed with .* is a multiple of 8 \(2 x 4"):
        mixed.per_rank_batch(4)


@pytest.mark.parametrize(("batch", "scale"), [(1024, 1.0), (256, 0.25), (2048, 2.0)])
def test_the_learning_rate_scales_with_the_batch(batch, scale):
    config = build(TrainConfig, {"data.val": "v", "data.train": "t", "training.batch_size": batch})
    assert config.make_lr()(2) == pytest.approx(0.5 * scale)


@pytest.mark.parametrize(("script", "kind"), [("train_imagenet.py", TrainConfig), ("write_datasets.py", WriteConfig)])
def test_help_lists_every_option_with_its_default(script, kind):
    result = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    options = options_of(kind)
    for key, field in options.items():
        assert f"--{key} X" in text
        assert " ".join(field.metadata["help"].split()) in text
    assert text.count("default: ") + text.count("required") >= len(options)


def test_one_section_of_the_help(capsys):
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help=lr"], "")
    text = capsys.readouterr().out
    assert set(re.findall(r"--([\w.]+)", text)) == {key for key in options_of(TrainConfig) if key.startswith("lr.")}
    assert "Learning rate" in text
    with pytest.raises(ValueError, match=r"--help: got rate, allowed is --help=data \| "):
        parse(TrainConfig, ["--help", "rate"], "")


def test_help_takes_the_defaults_of_a_variants_options_from_its_file(capsys):
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"], "")
    text = " ".join(capsys.readouterr().out.split())
    assert "maxsup: weight of the penalty at the end (a number >= 0; default: 0.2)" in text
    assert "step, cosine: epochs of linear warm-up (a number >= 0; default: 0)" in text


def test_a_configuration_records_the_options_that_apply_given_or_not():
    values = {
        "data.val": "v",
        "data.train": "t",
        "loss.name": "maxsup",
        "loss.alpha_end": 0.4,
        "loss.smoothing": "none",
    }
    flat = flatten(build(TrainConfig, values))
    of_loss = {key: value for key, value in flat.items() if key.startswith("loss.")}
    weights = {"loss.class_weights": "none", "loss.effective_beta": 0.9999, "loss.reweight_epoch": 0}
    assert of_loss == {"loss.name": "maxsup", "loss.alpha_start": 0.1, "loss.alpha_end": 0.4} | weights
    # Earlier versions wrote None for what was not given or did not apply.
    earlier = dict.fromkeys(("loss.alpha_start", "loss.smoothing", "lr.step_ratio")) | flat
    earlier |= {"loss.alpha_start": None}
    assert complete(TrainConfig, earlier) == flat
    unknown = {"loss.name": "zipf", "loss.power": 1.0, "loss.smoothing": None}
    assert complete(TrainConfig, unknown) == {"loss.name": "zipf", "loss.power": 1.0}


@pytest.mark.parametrize(
    ("key", "resumable", "averaged"),
    [
        ("lr.lr", False, False),
        ("loss.alpha_end", False, False),
        ("training.seed", False, True),
        ("training.precision", True, False),
        ("data.train", True, True),
        ("checkpoint.keep", True, True),
        ("data.train_subset", False, False),
    ],
)
def test_an_option_says_whether_it_may_change_and_whether_runs_that_differ_in_it_are_averaged(key, resumable, averaged):
    assert (effect_of(key).resumable, effect_of(key).averaged) == (resumable, averaged)


def test_a_recipe_is_found_by_its_path_or_by_its_name():
    file = ROOT / "rn_configs" / "rn18_16_epochs.yaml"
    words = ["--data.val=v", "--data.train=t"]
    by_path = parse(TrainConfig, [f"--config-file={file}", *words], "")
    for name in ("rn18_16_epochs", "rn18_16_epochs.yaml"):
        assert parse(TrainConfig, [f"--config-file={name}", *words], "") == by_path
        assert [found.resolve() for found in config_files([f"-C{name}"])] == [file]


def test_a_file_of_the_folder_goes_before_a_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits.yaml").write_text("lr: {lr: 0.125}")
    config = parse(TrainConfig, ["--config-file=digits.yaml", "--data.val=v", "--data.train=t"], "")
    assert config.lr.lr == 0.125


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nothing", r"nothing \(recipes of this package: .*digits, .*rn50_16_epochs"),
        ("elsewhere/digits.yaml", r"elsewhere/digits.yaml \(--config-file=digits is the recipe of this package\)"),
    ],
)
def test_a_configuration_file_that_is_not_there_is_named_with_the_recipes(name, hint):
    with pytest.raises(FileNotFoundError, match=f"configuration file not found: {hint}"):
        parse(TrainConfig, [f"--config-file={name}"], "")


def test_an_option_that_does_not_say_it_is_an_error_when_it_is_imported():
    with pytest.raises(TypeError, match=r"cake.eggs has no effect"):
        _effects(Baking)


def test_options_are_known_without_torch_numba_ffcv_and_numpy():
    code = "import sys, ffcv_imagenet.config; print({'torch', 'numba', 'ffcv', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "set()\n", result.stderr


@pytest.mark.parametrize(
    "words", [["--lr.lr=fast"], ["--nonsense"], ["--data.val=v"], ["--data.val=nothing.beton", "--data.train=x"]]
)
def test_mistakes_end_the_script_with_one_line_and_status_2(words, tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "train_imagenet.py", *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
