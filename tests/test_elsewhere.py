"""Options of other programs: their names here exist, and a mistake is answered with them."""

import re
from pathlib import Path

import pytest

from ffcv_imagenet.config import TrainConfig, WriteConfig
from ffcv_imagenet.elsewhere import PROGRAMS, called_here
from ffcv_imagenet.options import OptionsError, options_of, parse
from ffcv_imagenet.script import OneLineParser

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"ffcv-imagenet": "from_ffcv_imagenet", "timm": "from_timm_and_torchvision"}
PAGES["torchvision"] = PAGES["timm"]
ENTRIES = [(program, there, here) for program, table in PROGRAMS.items() for there, here in table.items()]


@pytest.mark.parametrize(("program", "there", "here"), ENTRIES, ids=[f"{p} {there}" for p, there, _ in ENTRIES])
def test_every_answer_can_be_given_here(program, there, here):
    assert here.options or here.note
    known = options_of(TrainConfig if here.names() <= set(options_of(TrainConfig)) else WriteConfig)
    assert here.names() <= set(known)
    assert there not in known, "an option with the same name needs no answer"
    values = dict(re.findall(r"--([\w.]+)=([\w.]+)", here.options))
    for key, value in values.items():
        checker = known[key].metadata["checker"]
        for word in here.values.values() if value == "X" else [value] if value.islower() or value[0].isdigit() else []:
            checker.check(word)  # or it raises


@pytest.mark.parametrize(("program", "there", "here"), ENTRIES, ids=[f"{p} {there}" for p, there, _ in ENTRIES])
def test_the_page_of_a_program_has_the_row(program, there, here):
    name = there if "." in there else ("-" if len(there) == 1 else "--") + there.replace("_", "-")
    options = f"`{here.options}`" if here.options else ""
    row = f"| `{name}` | {options} | {re.sub('--[a-z][^ ,;:]*', lambda m: f'`{m[0]}`', here.notes())} |"
    assert row in (DOCS / f"{PAGES[program]}.md").read_text().splitlines()


def mistakes(*words, kind=TrainConfig):
    with pytest.raises(OptionsError) as error:
        parse(kind, words, "")
    return error.value.texts


def test_a_file_of_ffcv_imagenet_is_answered_with_the_names_here(tmp_path):
    file = tmp_path / "rn50.yaml"
    file.write_text(
        "data: {train_dataset: a.beton, num_workers: 12, in_memory: 1}\n"
        "lr: {lr: 0.5, lr_schedule_type: cyclic}\n"
        "training: {batch_size: 512, label_smoothing: 0.1, use_blurpool: 1}\n"
    )
    told = "an option of ffcv-imagenet"
    assert mistakes("--config-file", str(file)) == (
        f"{file}: unknown option 'data.train_dataset' ({told}: here --data.train=a.beton)",
        f"{file}: unknown option 'data.in_memory' ({told}: nothing to give: the system's cache keeps what fits)",
        f"{file}: unknown option 'lr.lr_schedule_type' ({told}: here --lr.schedule=piecewise)",
        f"{file}: unknown option 'training.label_smoothing' "
        f"({told}: here --loss.name=label_smoothing --loss.smoothing=0.1)",
        f"{file}: unknown option 'training.use_blurpool' ({told}: here --model.blurpool=1)",
        "training.batch_size of ffcv-imagenet: here the batch over all processes; there it is that of one process",
        "lr.lr of ffcv-imagenet: here the rate for a batch of --lr.base_batch, from where it scales with "
        "--training.batch_size",
    )


def test_arguments_of_timm_and_torchvision_are_answered_with_the_names_here(tmp_path):
    assert mistakes("--weight-decay", "1e-4", "--lr-step-size=30", "--smoothing=0.1", "-j", "8") == (
        "unknown argument '--weight-decay' (an option of torchvision and timm: here --training.weight_decay=X)",
        "unknown argument '--lr-step-size=30' (an option of torchvision: here --lr.step_length=30)",
        "unknown argument '--smoothing=0.1' (an option of timm: here --loss.name=label_smoothing --loss.smoothing=0.1)",
        "unknown argument '-j' (an option of torchvision and timm: here --data.num_workers=X, "
        "threads of each process; by default its share of the cores)",
    )
    file = tmp_path / "args.yaml"
    file.write_text("amp: true\nsched: cosine\nnonsense: 1\n")
    in_no_section = "is in no section, allowed is a mapping of sections to options"
    assert mistakes("--config-file", str(file)) == (
        f"{file}: 'amp' {in_no_section} (an option of torchvision and timm: here --training.precision=fp16, "
        "or bf16; auto, the default, takes one of them on a GPU)",
        f"{file}: 'sched' {in_no_section} (an option of timm: here --lr.schedule=cosine)",
        f"{file}: 'nonsense' {in_no_section} (--help lists all options)",
    )


def test_an_answer_is_an_option_of_the_command():
    assert mistakes("--cfg.write_mode=raw", kind=WriteConfig) == (
        "unknown argument '--cfg.write_mode=raw' (an option of ffcv-imagenet: here --write.mode=raw)",
    )
    assert called_here("weight_decay", options_of(WriteConfig)) is None
    parser = OneLineParser()
    parser.add_argument("--html")
    with pytest.raises(ValueError) as error:
        parser.parse_args(["--htlm=a", "--device=cpu", "more"])
    assert str(error.value) == (
        "unknown argument '--htlm=a' (did you mean --html?); unknown argument '--device=cpu' (--help lists all options)"
    )
