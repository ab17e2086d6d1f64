#!/usr/bin/env bash
# Gathers what a GPU machine that has torch, but no package index and no compiler, needs to run this project.
#
#   scripts/pack_gpu_machine.sh FOLDER [PACKAGE...]
#
# FOLDER gets wheels/ (this project, what it needs, and the PACKAGEs, such as torchcodec and nvidia-nvimgcodec-cu13 for
# benchmarks/gpu_decode.py), lib/ (the system's libraries that ffcv and the decoder are linked to), and enter.sh. There:
#
#   source FOLDER/enter.sh          # the first time it unpacks the wheels into FOLDER/site
#   python3 benchmarks/gpu_decode.py FILE.beton
#
# PYTHON chooses the interpreter: of the same version as there (3.12), with pip, on a system whose C library is not newer.
# HAVE names packages that the machine has (of torch's own needs none is taken along): "torch torchvision numpy".
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; }
folder=$(realpath -m "$1")
shift
python=${PYTHON:-python3.12}
have=${HAVE:-torch torchvision numpy}
mkdir -p "$folder/wheels" "$folder/lib"

# What would be installed, without what torch brings.
"$python" -m pip install --quiet --dry-run --ignore-installed --report "$folder/report.json" . "$@"
"$python" - "$folder/report.json" $have > "$folder/requirements.txt" <<'PYTHON'
import json, re, sys

wanted = {}
for item in json.load(open(sys.argv[1]))["install"]:
    metadata = item["metadata"]
    wanted[re.sub("[-_.]+", "-", metadata["name"]).lower()] = metadata
left = set(sys.argv[2:])
stack = [name for name in ("torch",) if name in left]
while stack:  # torch's needs, and theirs
    for line in wanted[stack.pop()].get("requires_dist", []):
        name = re.sub("[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower()
        if name in wanted and name not in left and (name.startswith("nvidia-") or "extra ==" not in line):
            left.add(name)
            stack.append(name)
for name, metadata in sorted(wanted.items()):
    brought = name.startswith("nvidia-") and not name.startswith("nvidia-nvimg")
    if name not in left and not brought and name != "ffcv-imagenet":
        print(f"{name}=={metadata['version']}")
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
export LD_LIBRARY_PATH="$packed/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
ENTER
rm "$folder/report.json"
du -ch "$folder"/wheels/* "$folder/lib" | sort -h
echo "$folder: there, source enter.sh"
