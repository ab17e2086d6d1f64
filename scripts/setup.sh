#!/usr/bin/env bash
# Makes .venv with everything that the project needs. Does nothing when it is there and up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.installed-from
wanted=$(cat pyproject.toml setup.py scripts/setup.sh ffcv_imagenet/native/*.[ch] | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

# ffcv and the crop decoder are compiled at installation, against OpenCV and libjpeg-turbo.
packages=(build-essential pkg-config libopencv-dev libturbojpeg0-dev)
if ! { command -v c++ && command -v pkg-config && pkg-config --exists opencv4 libturbojpeg; } >/dev/null 2>&1; then
    # No recommended packages: OpenCV's would bring a desktop.
    install="apt-get update && apt-get install -y --no-install-recommends ${packages[*]}"
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "Installing system packages: ${packages[*]}"
        DEBIAN_FRONTEND=noninteractive sh -c "$install" >/dev/null
    elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        echo "Installing system packages: ${packages[*]}"
        sudo -n DEBIAN_FRONTEND=noninteractive sh -c "$install" >/dev/null
    else
        echo "ffcv and the crop decoder need a C and C++ compiler, pkg-config, OpenCV and libjpeg-turbo. On Debian or Ubuntu, run this once:" >&2
        echo "    sudo sh -c '$install'" >&2
        echo "On other systems use conda: see environment.yml." >&2
        exit 1
    fi
fi

python=${PYTHON:-}
for candidate in python3.12 python3.11 python3; do
    [ -n "$python" ] && break
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null; then
        python=$candidate
    fi
done
if ! "${python:-false}" -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null; then
    echo "Python 3.11 or 3.12 is needed (PYTHON=... chooses one); found: $(python3 --version 2>&1 || echo none)" >&2
    exit 1
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "Installing Python packages into .venv (torch with CUDA is large: some minutes)"
.venv/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
echo "$wanted" > "$stamp"
