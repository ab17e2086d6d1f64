#!/usr/bin/env bash
# Packs what a GPU machine with torch, but without a package index, needs to run this project, into one archive.
#
#   scripts/pack_gpu_machine.sh [--images FOLDER|TAR] ARCHIVE.tar.gz [PACKAGE ...]
#
# FOLDER has a folder of JPEGs per class, TAR is such a folder in a tar file; 400 images are enough (20 MiB).
# There, anywhere: tar xf ARCHIVE.tar.gz && source gpu_machine/enter.sh. Then every program of the project runs.
#
# The archive has the project as it lies here, compiled; the packages that such machines lack, and the PACKAGEs (torchcodec,
# nvidia-nvimgcodec-cu13 and nvidia-nvjpeg are what benchmarks/gpu_decode.py compares with); and libjpeg-turbo. What torch
# brings, and numba, opencv-python-headless, scipy, pandas, pillow, matplotlib, scikit-learn, pyyaml, tqdm, rich, psutil and
# pytest are expected there. FFCV is packed without OpenCV: it runs this project's loaders, but decodes no image itself.
# PYTHON chooses the interpreter: of the same version as there, with pip, on a system whose C library is not newer.
set -euo pipefail
cd "$(dirname "$0")/.."
images=''
if [ "${1:-}" = --images ]; then
    images=$(realpath "${2:?--images: allowed is a folder or a tar file}")
    shift 2
fi
[ $# -ge 1 ] && [ "${1:0:1}" != - ] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ -z "$images" ] || [ -e "$images" ] || { echo "error: --images: $images is not there" >&2; exit 2; }
archive=$(realpath -m "$1")
shift

# A name on the PATH may be a shim that only says how to install another version: so each is tried.
python=''
for candidate in ${PYTHON:-python3.12 "$HOME"/.pyenv/versions/3.12.*/bin/python python3}; do
    if "$candidate" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "error: PYTHON: got ${PYTHON:-none}, allowed is Python 3.11 to 3.14 with pip" >&2; exit 2; }
wanted=$(sed -n 's/^ *"\(\(fastargs\|ffcv\|cuda-core\)[=><][^";]*\).*/\1/p' pyproject.toml)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
machine=$scratch/gpu_machine
mkdir -p "$machine/site" "$machine/project"

# shellcheck disable=SC2086 # one word per package
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$machine/site" \
    $wanted assertpy pytorch-pfn-extras terminaltables "$@"
find "$machine/site" -name __pycache__ -prune -exec rm -r {} +
rm -rf "$machine/site/bin"

# FFCV's library is linked to OpenCV and all that OpenCV needs. Ours takes its memcpy alone.
suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
rm "$machine"/site/ffcv/_libffcv*.so
cc -O2 -shared -fPIC "-I$include" scripts/ffcv_without_opencv.c -o "$machine/site/ffcv/_libffcv$suffix"

git ls-files --cached --others --exclude-standard -z |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar -c --null -T - | tar -x -C "$machine/project"
# Compiled there, so that nothing here changes; it finds libjpeg-turbo beside itself.
(cd "$machine/project" && LDFLAGS='-Wl,-rpath,$ORIGIN' "$python" setup.py -q build_ext --inplace && rm -rf build)
native=$machine/project/ffcv_imagenet/native
ldd "$native/_native$suffix" | awk '$2 == "=>" && $1 ~ /^libturbojpeg/ { print $3 }' | xargs -r cp -Lt "$native"

if [ -d "$images" ]; then
    mkdir "$machine/images"
    cp -rL "$images/." "$machine/images"
elif [ -n "$images" ]; then
    mkdir "$machine/images"
    tar -xf "$images" -C "$machine/images"
fi

cat > "$machine/enter.sh" << 'ENTER'
# source this on the GPU machine: then python3 finds the packed packages, and this is the project's folder
GPU_MACHINE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export GPU_MACHINE PYTHONPATH="$GPU_MACHINE/project:$GPU_MACHINE/site${PYTHONPATH:+:$PYTHONPATH}"
cd "$GPU_MACHINE/project"
ENTER

# What is compiled here must not need a library that the other machine may lack.
foreign=$(find "$machine/project" "$machine/site/ffcv" -name '*.so*' -exec ldd {} + 2> /dev/null |
    awk -v here="$machine" '$2 == "=>" && index($3, here) != 1 { print $1 }' | sort -u |
    grep -vE '^(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+)\.so' || true)
[ -z "$foreign" ] || { echo "error: packed libraries need ${foreign//$'\n'/, }" >&2; exit 1; }

mkdir -p "$(dirname "$archive")"
tar -C "$scratch" -czf "$archive.partial" gpu_machine
mv "$archive.partial" "$archive"
du -sh --apparent-size "$machine"/* | sed 's/\t.*gpu_machine/\t/' >&2
echo "$archive: $(($(stat -c %s "$archive") / 1048576)) MiB; there: tar xf $(basename "$archive") && source gpu_machine/enter.sh"
