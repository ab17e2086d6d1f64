"""What a shell completes: the printed scripts, run by the shells."""

import shutil
import subprocess

import pytest

from ffcv_imagenet import __main__, completion
from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.options import options_of

#: Ask the script for the completions of a line, each on a line of its own.
BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=$' =:'
_ffcv_imagenet "${2%% *}" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
#: zsh's own functions only work inside its line editor: their calls are printed.
ZSH = """
compdef() { : }
compset() { : }
_files() { echo FILES }
compadd() { while [ "$1" != -- ]; do shift; done; shift; print -l -- "$@"; (( $# )) }
source "$1"
words=(${(s: :)2}); [[ $2 != *' ' ]] || words+=('')
CURRENT=$#words
_ffcv_imagenet
"""


@pytest.fixture(scope="module", params=["bash", "zsh"])
def complete(request, tmp_path_factory):
    """A function from a line to the words that may follow; zsh does not filter them before its line editor does."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    file = tmp_path_factory.mktemp("completion") / "script"
    file.write_text(completion.script(request.param, ["train", "sweep", "report", "data.verify"]))
    ask = BASH if request.param == "bash" else ZSH

    def completed(line):
        command = [request.param, "-c", ask, "ask", str(file), line]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        prefix = line.rpartition(" ")[2]
        prefix = prefix.partition("=")[2] if "=" in prefix else prefix
        return [word for word in done.stdout.split() if word.startswith(prefix)]

    return completed


def test_commands_their_options_and_the_options_values_are_completed(complete):
    assert complete("ffcv-imagenet ") == ["train", "sweep", "report", "data.verify"]
    assert complete("ffcv-imagenet da") == ["data.verify"]
    keys = {f"--{key}=" for key in options_of(TrainConfig)}
    assert keys <= set(complete("ffcv-imagenet train --"))
    assert {"--help", "--dry-run", "--print-config", "--config-file="} <= set(complete("ffcv-imagenet train --"))
    assert complete("ffcv-imagenet train --loss.name=") == list(LOSSES.kinds)
    assert complete("ffcv-imagenet train --lr.lr=1 --data.flip=") == ["0", "1"]
    assert complete("ffcv-imagenet train --config-file=rn18_1") == ["rn18_16_epochs"]
    assert complete("ffcv-imagenet report --comp") == ["--compare="]
    assert complete("ffcv-imagenet report --compare=") == ["paper"]
    assert complete("ffcv-imagenet data.verify --dec") == ["--decode"]
    assert complete("ffcv-imagenet data.verify --print-o") == []


def test_a_sweep_takes_the_options_of_a_training_too(complete):
    assert set(complete("ffcv-imagenet sweep --sweep.lr.l")) == {"--sweep.lr.lr="}
    assert complete("ffcv-imagenet sweep --lr.l") == ["--lr.lr="]


def test_what_torchrun_starts_is_completed(complete):
    for start in ("torchrun --nproc-per-node=8 /a/train_imagenet.py", "torchrun -m ffcv_imagenet.train"):
        assert complete(f"{start} --dist.device=c") == ["cuda", "cpu"]
    assert "train" not in complete("torchrun t")


def test_every_command_tells_its_options():
    for command in __main__.COMMANDS:
        assert "--help" in completion.options_of_command(command)


def test_the_command_prints_the_script(capsys):
    __main__.main(["--print-completion", "zsh"])
    assert capsys.readouterr().out.startswith("#compdef ffcv-imagenet torchrun\n")
    with pytest.raises(ValueError, match=r"--print-completion: got 'fish', allowed is bash | zsh"):
        __main__.main(["--print-completion=fish"])
