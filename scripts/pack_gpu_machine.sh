#!/usr/bin/env bash
# Gathers what a GPU machine that has torch, but no package index and no compiler, needs to run this project.
#
#   scripts/pack_gpu_machine.sh FOLDER [PACKAGE...]
#
# FOLDER gets wheels/ (this project, what it needs, and the PACKAGEs, such as torchcodec, nvidia-nvimgcodec-cu13 and
# nvidia-nvjpeg for benchmarks/gpu_decode.py, pytest and scikit-learn for the tests), lib/ (the system's libraries that
# ffcv and the decoder are linked to), and enter.sh. There, in this repository:
#
#   source FOLDER/enter.sh          # the first time it unpacks the wheels into FOLDER/site
#   python3 benchmarks/gpu_decode.py FILE.beton
#
# Pack again when C code has changed: Python code is the repository's, the compiled decoder is the packed one.
# PYTHON chooses the interpreter: of the same version as there (3.12), with pip, on a system whose C library is not newer.
# HAVE names packages that the machine has, as pip takes them (of torch's own needs none is taken along):
# "torch torchvision numpy", better with their versions: "torch==2.11.0 torchvision==0.26.0 numpy==2.5.2 scipy pillow".
# LIMIT=60 splits it into FOLDER/part1, FOLDER/part2, ... of at most so many MiB. There all that is in them goes into one folder.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 2; }
folder=$(realpath -m "$1")
shift
python=${PYTHON:-python3.12}
have=${HAVE:-torch torchvision numpy}
mkdir -p "$folder/wheels" "$folder/lib"

# What would be installed, without what torch brings.
"$python" -m pip install --quiet --dry-run --ignore-installed --report "$folder/report.json" . $have "$@"
"$python" - "$folder/report.json" "$have" "$@" > "$folder/requirements.txt" <<'PYTHON'
import json, re, sys


def names(requirements):
    return {re.sub("[-_.]+", "-", re.match(r"[\w.-]+", item)[0]).lower() for item in requirements}


wanted, asked = {}, names(sys.argv[3:])
for item in json.load(open(sys.argv[1]))["install"]:
    metadata = item["metadata"]
    wanted[re.sub("[-_.]+", "-", metadata["name"]).lower()] = metadata
left = names(sys.argv[2].split())
stack = [name for name in ("torch",) if name in left]
while stack:  # torch's needs, and theirs
    for line in wanted[stack.pop()].get("requires_dist", []):
        (name,) = names([line])
        if name in wanted and name not in left and (name.startswith("nvidia-") or "extra ==" not in line):
            left.add(name)
            stack.append(name)
for name, metadata in sorted(wanted.items()):
    brought = name in left or name.startswith("nvidia-")
    if name in asked or (not brought and name != "ffcv-imagenet"):
        # The one with windows wants a desktop's libraries, and is larger.
        print(f"{'opencv-python-headless' if name == 'opencv-python' else name}=={metadata['version']}")
PYTHON
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder/wheels" . -r "$folder/requirements.txt"

# The shared libraries behind the two compiled extensions, except those that every machine has.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m pip install --quiet --no-index --no-deps --target "$scratch" "$folder"/wheels/ffcv*.whl
find "$scratch" -name '*.so' -exec ldd {} + | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+)\.so' | xargs -r cp -Lt "$folder/lib"

cat > "$folder/enter.sh" <<'ENTER'
# source this on the GPU machine
packed=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ! -e "$packed/site/.complete" ]; then
    python3 -m pip install --quiet --no-index --no-deps --upgrade --target "$packed/site" "$packed"/wheels/*.whl &&
        touch "$packed/site/.complete"
fi
export PYTHONPATH="$packed/site${PYTHONPATH:+:$PYTHONPATH}"
if [ -f ffcv_imagenet/native/fic.h ]; then # Programs in the repository's root find its own modules first: so let all.
    cp "$packed"/site/ffcv_imagenet/native/*.so ffcv_imagenet/native/
    export PYTHONPATH="$PWD:$PYTHONPATH"
fi
export LD_LIBRARY_PATH="$packed/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
ENTER
rm "$folder/report.json"
du -ch "$folder"/wheels/* "$folder/lib" | sort -h
if [ -n "${LIMIT:-}" ]; then
    rm -rf "$folder"/part*
    "$python" - "$folder" "$LIMIT" <<'PYTHON'
import sys
from pathlib import Path

folder, limit = Path(sys.argv[1]), float(sys.argv[2]) * 2**20
files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
sizes = []
for path in files:
    size = path.stat().st_size
    if size > limit:
        sys.exit(f"error: {path.name} has {size / 2**20:.1f} MiB, LIMIT is {sys.argv[2]}")
    part = next((number for number, used in enumerate(sizes) if used + size <= limit), len(sizes))
    if part == len(sizes):
        sizes.append(0)
    sizes[part] += size
    target = folder / f"part{part + 1}" / path.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
print(*(f"part{number}: {size / 2**20:.1f} MiB" for number, size in enumerate(sizes, 1)), sep="\n")
PYTHON
    rmdir "$folder/wheels" "$folder/lib"
fi
echo "$folder: there, source enter.sh"
