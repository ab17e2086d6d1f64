#!/usr/bin/env bash
# Makes .venv with everything that the project needs. Does nothing when it is there and up to date.
# PYTHON=... chooses the interpreter (3.11 to 3.14).
set -euo pipefail
cd "$(dirname "$0")/.."

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

stamp=.venv/.installed-from
wanted=$({ "$python" --version; cat pyproject.toml setup.py scripts/setup.sh ffcv_imagenet/native/*.[ch]; } | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

# ffcv and the crop decoder are compiled at installation, against OpenCV and libjpeg-turbo.
packages=()
command -v c++ >/dev/null && command -v make >/dev/null || packages+=(build-essential)
command -v pkg-config >/dev/null || packages+=(pkg-config)
pkg-config --exists opencv4 2>/dev/null || packages+=(libopencv-dev)
pkg-config --exists libturbojpeg 2>/dev/null || packages+=(libturbojpeg0-dev)
name=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
[ -f "$headers/Python.h" ] || packages+=("$name-dev")
"$python" -c 'import ensurepip' 2>/dev/null || packages+=("$name-venv")
if [ ${#packages[@]} -gt 0 ]; then
    # No recommended packages: OpenCV's would bring a desktop.
    install="apt-get update && apt-get install -y --no-install-recommends ${packages[*]}"
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "Installing system packages: ${packages[*]}"
        DEBIAN_FRONTEND=noninteractive sh -c "$install" >/dev/null
    elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        echo "Installing system packages: ${packages[*]}"
        sudo -n DEBIAN_FRONTEND=noninteractive sh -c "$install" >/dev/null
    else
        echo "System packages are missing. On Debian or Ubuntu, run this once:" >&2
        echo "    sudo sh -c '$install'" >&2
        echo "On other systems use conda: see environment.yml." >&2
        exit 1
    fi
fi

if [ ! -x .venv/bin/pip ] || [ "$(.venv/bin/python --version)" != "$("$python" --version)" ]; then
    "$python" -m venv --clear .venv
fi
echo "Installing Python packages into .venv (torch with CUDA is large: some minutes)"
.venv/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
echo "$wanted" > "$stamp"
