#!/usr/bin/env bash
# Tries the two commands of README.md on a new machine: a Debian made by debootstrap in a folder of its own.
#
#   scripts/fresh_machine.sh [--without-root] [--torch-first] [--tests=all|smoke] [--folder=FOLDER] [--share=PATH ...] SUITE
#
# SUITE is a Debian release: bookworm (12), trixie (13), testing. The last commit is cloned into the machine, which is then set
# up by the steps of Dockerfile; `make demo` and `make test` follow. At the end one line for the table of docs/install.md.
#
# --without-root   the commands run as a user without root and without sudo, on a machine where root has installed a
#                  compiler and Python's headers, but no headers of OpenCV or libjpeg-turbo
# --torch-first    torch is there before, in the system's own Python, and is kept (TORCH=keep)
# --tests=smoke    a selection ($smoke below) in place of `make test`
# --folder=FOLDER  where the machine is made, and deleted at the end (default: a new one under /tmp); 9 GB
# --share=PATH     a file or folder of this machine that is read there, too, such as certificates and what pip is told
#                  here (not /etc/ssl/certs, into which the machine's own packages write); what pip downloads is kept in
#                  pip's own cache of this machine
#
# Needs root, debootstrap and util-linux. MIRROR chooses the mirror; APT_CONF is a line for apt's configuration there, such
# as 'Acquire::Check-Valid-Until "false";' for a mirror that has not been updated for weeks. Whatever is mounted is so for
# this script alone.
set -euo pipefail
cd "$(dirname "$0")/.."
smoke='tests/native/test_native_decoder.py tests/data/test_writer*.py tests/test_packaging.py'

without_root='' torch_first='' tests=all folder='' shares=() suite=''
for word; do
    case $word in
    --without-root) without_root=yes ;;
    --torch-first) torch_first=yes ;;
    --tests=all | --tests=smoke) tests=${word#*=} ;;
    --folder=?*) folder=${word#*=} ;;
    --share=?*) shares+=("$(realpath -- "${word#*=}")") ;;
    [a-z]*) suite=$word ;;
    *) sed -n '2,22s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
[ -n "$suite" ] || { sed -n '2,22s/^# \{0,1\}//p' "$0" >&2; exit 2; }
for program in debootstrap unshare; do
    command -v $program >/dev/null || { echo "error: $program is not installed" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "error: making a machine takes root" >&2; exit 2; }
folder=${folder:-$(mktemp -d /tmp/fresh_machine.XXXXXX)}
machine=$folder/$suite
[ ! -e "$machine" ] || { echo "error: $machine is there already" >&2; exit 2; }
mkdir -p "$machine"
# In this process mounts are gone with the process inside that made them, so that nothing but the machine is deleted.
remove() { findmnt --list --noheadings --output TARGET | grep -q "^$machine" || rm -rf --one-file-system "$machine"; }
trap remove EXIT

debootstrap --variant=minbase "$suite" "$machine" ${MIRROR:+"$MIRROR"} > "$folder/$suite.log"
cp /etc/resolv.conf "$machine/etc/resolv.conf"
[ -z "${APT_CONF:-}" ] || echo "$APT_CONF" > "$machine/etc/apt/apt.conf.d/99fresh_machine"
cache=$(python3 -m pip cache dir 2>/dev/null || true)
step() { sed -n 's/^RUN //p' Dockerfile | sed -n "$1p"; }
user=root home=/root place=/opt
prepare=$(step 1)
[ -z "$torch_first" ] || prepare+=' python3-pip'
if [ -n "$without_root" ]; then
    user=someone home=/home/someone place=/home/someone
    cache='' # pip takes nothing from a cache of another user's
    prepare+=" g++ python3-dev python3-venv && useradd --create-home $user"
fi

# What pip and others are told by this machine's environment.
told=()
while IFS= read -r -d '' word; do
    case $word in PIP_* | *_proxy=* | *_PROXY=* | SSL_CERT_* | REQUESTS_CA_BUNDLE=*) told+=("$word") ;; esac
done < <(env -0)

# shellcheck disable=SC2016 # expanded inside
enter='root=$1 cache=$2 user=$3 command=$4
shift 4
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for path; do
    mkdir -p "$(dirname "$root$path")"
    if [ -d "$path" ]; then mkdir -p "$root$path"; else touch "$root$path"; fi
    mount --bind -o ro "$path" "$root$path"
done
if [ -n "$cache" ]; then
    mkdir -p "$root/root/.cache/pip"
    mount --bind "$cache" "$root/root/.cache/pip"
fi
exec chroot "$root" setpriv --reuid="$user" --regid="$user" --clear-groups bash -euc "$command"'

inside() { # inside USER COMMAND: run it in the machine
    local home=/home/$1
    [ "$1" != root ] || home=/root
    unshare --mount --pid --fork --kill-child env -i --default-signal=INT,QUIT "${told[@]}" HOME="$home" LANG=C.UTF-8 \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin bash -euc "$enter" enter "$machine" "$cache" "$1" "$2" "${shares[@]}"
}

inside root "export DEBIAN_FRONTEND=noninteractive; $prepare" >> "$folder/$suite.log"
if [ -n "$torch_first" ]; then
    inside root 'pip install --quiet --break-system-packages torch torchvision' >> "$folder/$suite.log"
fi
git clone --quiet --no-local . "$machine$place/ffcv_imagenet"
[ $user = root ] || inside root "chown -R $user:$user $home"

minutes='' result=passed
try() { # try NAME COMMAND
    [ $result = passed ] || return 0
    local begin=$SECONDS
    echo "== $suite: $1"
    inside $user "cd $place/ffcv_imagenet && ${torch_first:+export TORCH=keep; }$2" || result="$1: failed"
    minutes+="${minutes:+, }$1 $(((SECONDS - begin + 30) / 60))"
}
try setup "$(step 2)"
try demo 'make demo'
case $tests in
all) try tests 'make test' ;;
smoke) try 'selected tests' ".venv/bin/python -m pytest -q ${smoke//$'\n'/ }" ;;
esac

versions=$(inside $user "cd $place/ffcv_imagenet"' && .venv/bin/python -c "
import sys, torch
print(\"%d.%d.%d\" % sys.version_info[:3], torch.__version__, sep=\" | \")
"' || echo 'none | none')
system=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' "$machine/etc/os-release")
echo "| $system${without_root:+, without root}${torch_first:+, with its own torch} | $versions | $minutes | $result |"
[ "$result" = passed ]
