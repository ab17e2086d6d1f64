#!/usr/bin/env bash
# Makes .venv with everything that the project needs. Does nothing when it is there and up to date.
# PYTHON=...        the interpreter (3.11 to 3.14)
# TORCH=keep        with the interpreter's own torch and torchvision, as in NVIDIA's images, instead of new ones
# WITHOUT_ROOT=1    install no system packages, even if that is possible (docs/install.md says what replaces them)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/progress.sh

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }
python=${PYTHON:-}
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$python" ] && break
    if is_supported "$candidate"; then python=$candidate; fi
done
if ! is_supported "${python:-false}"; then
    echo "Python 3.11 to 3.14 is needed (PYTHON=... chooses one); found: $(python3 --version 2>&1 || echo none)" >&2
    exit 1
fi
keep_torch=''
case ${TORCH:-} in
'') ;;
keep) keep_torch=yes ;;
*) echo "error: TORCH: got $TORCH, allowed is keep" >&2; exit 2 ;;
esac

stamp=.venv/.installed-from
wanted=$({ "$python" --version; echo "$keep_torch"; cat pyproject.toml setup.py scripts/setup.sh scripts/without_root/*.txt \
    ffcv_imagenet/native/*.[ch]; } | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

# ffcv and the crop decoder are compiled at installation, against OpenCV and libjpeg-turbo: what there is a way around, and
# what not.
replaceable=() packages=()
command -v c++ >/dev/null && command -v make >/dev/null || packages+=(build-essential)
command -v pkg-config >/dev/null || replaceable+=(pkg-config)
pkg-config --exists opencv4 2>/dev/null || replaceable+=(libopencv-dev)
pkg-config --exists libturbojpeg 2>/dev/null || replaceable+=(libturbojpeg0-dev)
# On ARM the decoder's SIMD code is compiled with them; without them it is slower.
[ "$(uname -m)" != aarch64 ] || [ -d /usr/include/simde ] || replaceable+=(libsimde-dev)
name=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
[ -f "$headers/Python.h" ] || packages+=("$name-dev")
"$python" -c 'import ensurepip' 2>/dev/null || packages+=("$name-venv")
if [ $((${#packages[@]} + ${#replaceable[@]})) -gt 0 ]; then
    # No recommended packages: OpenCV's would bring a desktop.
    install="apt-get update && apt-get install -y --no-install-recommends ${packages[*]} ${replaceable[*]}"
    if [ -z "${WITHOUT_ROOT:-}" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "Installing system packages: ${packages[*]} ${replaceable[*]}"
        DEBIAN_FRONTEND=noninteractive with_progress sh -c "$install" >/dev/null
        replaceable=()
    elif [ -z "${WITHOUT_ROOT:-}" ] && command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        echo "Installing system packages: ${packages[*]} ${replaceable[*]}"
        with_progress sudo -n DEBIAN_FRONTEND=noninteractive sh -c "$install" >/dev/null
        replaceable=()
    elif [ ${#packages[@]} -gt 0 ]; then
        echo "System packages are missing. On Debian or Ubuntu, run this once:" >&2
        echo "    sudo sh -c '$install'" >&2
        echo "Without root: of these, only ${replaceable[*]:-none} can be replaced (docs/install.md)." >&2
        exit 1
    fi
fi

others=$([ -z "$keep_torch" ] && echo false || echo true) # whether the interpreter's own packages are seen
if [ ! -x .venv/bin/pip ] || [ "$(.venv/bin/python --version)" != "$("$python" --version)" ] ||
    ! grep -qs "^include-system-site-packages = $others" .venv/pyvenv.cfg; then
    "$python" -m venv --clear ${keep_torch:+--system-site-packages} .venv
fi
# On a terminal pip shows what it loads, how fast, and how long that takes.
pip() { with_progress .venv/bin/python -m pip "$@" $([ -t 2 ] || echo --quiet) --disable-pip-version-check; }

if [ ${#replaceable[@]} -gt 0 ]; then
    echo "Without ${replaceable[*]}: docs/install.md says what replaces them"
    export TURBOJPEG=$PWD/.venv/lib/libturbojpeg
    if [[ " ${replaceable[*]} " == *" libturbojpeg0-dev "* ]]; then
        rm -rf "$TURBOJPEG"
        pip install --target "$TURBOJPEG/wheel" --no-deps --python-version 3.11 --only-binary :all: --require-hashes \
            -r scripts/without_root/turbojpeg.txt
        mv "$TURBOJPEG"/wheel/turbojpeg.libs/libturbojpeg-* "$TURBOJPEG"
        rm -r "$TURBOJPEG/wheel"
        ln -s "$(basename "$TURBOJPEG"/libturbojpeg-*)" "$TURBOJPEG/libturbojpeg.so"
        export LDFLAGS="${LDFLAGS:-} -Wl,-rpath,$TURBOJPEG"
    fi
    export PATH=$PWD/scripts/without_root:$PATH
    # Neither taken from pip's cache nor kept there: with OpenCV it would be another library.
    pip install --no-cache-dir --no-binary ffcv --no-deps "$(sed -n 's/^ *"\(ffcv==[^"]*\)",.*/\1/p' pyproject.toml)"
fi

if [ -n "$keep_torch" ]; then
    echo "Installing Python packages into .venv, with $name's own torch"
    .venv/bin/python - << 'END'
"""Write what pip is to install, and the versions of torch and torchvision that it is to leave alone."""
import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted, kept = [], []
for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
    needed = re.fullmatch(r"(torch|torchvision)>=(\d+)\.(\d+)", line)
    if needed is None:
        wanted.append(line)
        continue
    try:
        found = version(needed[1])
    except PackageNotFoundError:
        raise SystemExit(f"error: TORCH=keep: this Python has no {needed[1]}, needed is {line}") from None
    if tuple(map(int, re.match(r"(\d+)\.(\d+)", found).groups())) < (int(needed[2]), int(needed[3])):
        raise SystemExit(f"error: TORCH=keep: this Python has {needed[1]} {found}, needed is {line}")
    kept.append(f"{needed[1]}=={found}")
Path(".venv/wanted.txt").write_text("\n".join(wanted))
Path(".venv/kept.txt").write_text("\n".join(kept))
END
    pip install -c .venv/kept.txt -r .venv/wanted.txt
    pip install --no-deps -e .
else
    echo "Installing Python packages into .venv (torch with CUDA is large: some minutes)"
    pip install -e '.[dev]'
fi

# The wheel of OpenCV for desktops needs libGL, which a machine without a desktop may lack.
if ! .venv/bin/python -c 'import cv2' 2>/dev/null; then
    pip uninstall -y opencv-python
    pip install --no-deps opencv-python-headless
fi
echo "$wanted" > "$stamp"
