#!/usr/bin/env bash
# Rehearses scripts/gpu_session.sh without a GPU, from the archive to the results, in a stand-in for a GPU machine:
# Python 3.12, torch 2.11, numpy 2.5, no package index, none of this machine's packages or library paths.
#
#   scripts/rehearse_gpu_session.sh [FOLDER]     # gpu_rehearsal; 3 GB, most of which is torch
#
# STAND_IN names such an environment that is there already. Everything runs small; exit status 0 says that all parts ran to
# their end and that what comes back keeps to its limits. The last lines are a table of what took how long.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-gpu_rehearsal}")
mkdir -p "$folder"
stand_in=${STAND_IN:-$folder/stand_in}
rows=()
step() { # NAME COMMAND...
    local name=$1 started=$SECONDS
    shift
    echo "== $name" >&2
    "$@" || { echo "error: the rehearsal ended with: $name" >&2; exit 1; }
    rows+=("| $name | done | $((SECONDS - started)) | |")
}

make_stand_in() {
    [ ! -e "$stand_in/.complete" ] || return 0
    [ -z "${STAND_IN:-}" ] || { "$stand_in/bin/python" -c 'import torch'; return; }
    local candidate python=''
    for candidate in ${PYTHON:-python3.12 "$HOME"/.pyenv/versions/3.12.*/bin/python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2> /dev/null; then python=$candidate; fi
    done
    [ -n "$python" ] || { echo "error: PYTHON: allowed is Python 3.12" >&2; return 1; }
    "$python" -m venv --clear "$stand_in" && "$stand_in/bin/pip" install --quiet --disable-pip-version-check \
        torch==2.11.0 torchvision==0.26.0 'numpy==2.5.*' numba opencv-python-headless scipy pandas pillow matplotlib \
        scikit-learn pyyaml tqdm rich psutil pytest setuptools && touch "$stand_in/.complete"
}

draw_images() {
    rm -rf "$folder/images" "$folder/imagenette"
    "$stand_in/bin/python" - "$folder" << 'PYTHON'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

for name, count, (height, width) in (
    ("images", 16, (375, 500)), ("imagenette/train", 16, (60, 80)), ("imagenette/val", 8, (60, 80))
):
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (height // 15, width // 15, 3), np.uint8))
        file = Path(sys.argv[1], name, f"n{number % 2}", f"{number}.jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, quality=90)
PYTHON
}

pack() {
    PYTHON="$stand_in/bin/python" scripts/pack_gpu_machine.sh --images "$folder/images" "$folder/gpu_machine.tar.gz"
    local size
    size=$(stat -c %s "$folder/gpu_machine.tar.gz")
    [ "$size" -le $((20 << 20)) ] || { echo "error: the archive has $size bytes, allowed are 20 MiB" >&2; return 1; }
}

unpack() { rm -rf "$folder/there" && mkdir "$folder/there" && tar -xf "$folder/gpu_machine.tar.gz" -C "$folder/there"; }

session() {
    rm -rf "$folder/work" "$folder/out"
    env -i HOME="$HOME" PATH="$stand_in/bin:/usr/bin:/bin" PIP_NO_INDEX=1 bash -c '
        source "$1/there/gpu_machine/enter.sh" && scripts/gpu_session.sh --device cpu --deadline 3600 \
            --images "$GPU_MACHINE/images" --imagenette "$1/imagenette" --work "$1/work" --out "$1/out"' - "$folder"
}

limits() {
    [ "$(find "$folder/out" -type f | wc -l)" -le 8 ] && [ -z "$(find "$folder/out" -type f -size +16M)" ] &&
        [ -s "$folder/out/tables.md" ] && ! grep -c '^Failed:' "$folder/out/tables.md"
}

step "stand-in: Python 3.12, torch 2.11" make_stand_in
step "images" draw_images
step "pack" pack
step "unpack" unpack
step "the session, with --device cpu" session
step "limits of what comes back" limits
{
    echo "| part | outcome | seconds | limit |"
    echo "|---|---|---|---|"
    printf '%s\n' "${rows[@]}"
    tail -n +3 "$folder/out/parts.md"
} | tee "$folder/rehearsal.md"
