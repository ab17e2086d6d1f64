#!/usr/bin/env bash
# Everything that wants a GPU, in parts, the most important first, each in a process and under a time limit of its own.
#
#   scripts/gpu_session.sh --images FOLDER [--imagenette FOLDER] [--deadline SECONDS] [--work FOLDER] [--out FOLDER]
#                          [--caches FOLDER] [--device cuda|cpu] [PART ...]
#
#   --images      image folder, FOLDER/<class>/<image>; a few hundred images are enough
#   --imagenette  folder with train/ and val/; without it nothing is trained to the end
#   --deadline    nothing goes on for longer (3600)
#   --work        data, caches, checkpoints and what is done; started again, a session goes on where it was (gpu_work)
#   --out         what to take along: at most 8 files of at most 16 MiB, written anew after each part (gpu_results)
#   --caches      the --out of an earlier session on such a machine, whose compiled code is used
#   --device      cpu: everything runs, small, to show that it does
#   PART          of these, in this order; all without any:
#                 preflight decode_tests decode blur step end_to_end step_tests step_224 resnet18 imagenette ablation
#
# Exit status: 0 when all parts are done, 1 when one failed, was stopped or left out, 2 for a mistake or a failed preflight.
set -uo pipefail
usage() { sed -n '2,19s/^# \{0,1\}//p' "$0" >&2; exit 2; }
begin=$SECONDS images='' imagenette='' deadline=3600 work=gpu_work out=gpu_results caches='' device=cuda
while [ $# -gt 0 ] && [ "${1:0:2}" = -- ]; do
    name=${1:2} value=${2:-}
    case $name in
        images | imagenette | deadline | work | out | caches | device) [ -n "$value" ] || usage ;;
        *) usage ;;
    esac
    printf -v "$name" %s "$value"
    shift 2
done
fail() { echo "error: $*" >&2; exit 2; }
[[ $deadline =~ ^[0-9]+$ ]] || fail "--deadline: got $deadline, allowed is a number of seconds"
[[ $device =~ ^(cuda|cpu)$ ]] || fail "--device: got $device, allowed is cuda | cpu"
[ -d "$images" ] || fail "--images: got '$images', allowed is a folder with a folder of images per class"
[ -z "$imagenette" ] || [ -d "$imagenette/val" ] || fail "--imagenette: $imagenette has no folder val"
images=$(realpath "$images") work=$(realpath -m "$work") out=$(realpath -m "$out")
[ -z "$imagenette" ] || imagenette=$(realpath "$imagenette")
[ -z "$caches" ] || caches=$(realpath "$caches")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} # PYTHON chooses another one
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=$PWD/.venv/bin/python

all=(preflight decode_tests decode blur step end_to_end step_tests step_224 resnet18 imagenette ablation)
declare -A limit=([preflight]=90 [decode_tests]=120 [decode]=120 [blur]=150 [step]=200 [end_to_end]=200 [step_tests]=150
    [step_224]=150 [resnet18]=240 [imagenette]=1500 [ablation]=420)
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]}")
for part in "${parts[@]}"; do
    [ -n "${limit[$part]:-}" ] || fail "$part is no part, allowed are ${all[*]}"
done

mkdir -p "$work/tables" "$work/logs" "$work/caches" "$out"
if [ -n "$caches" ] && [ ! -e "$work/caches/inductor" ]; then
    cat "$caches"/caches.tar.gz.* | tar -xz -C "$work/caches" || fail "--caches: $caches has no whole caches.tar.gz.*"
fi
# One folder each, for all processes: nothing is compiled twice.
export TORCHINDUCTOR_CACHE_DIR=$work/caches/inductor TRITON_CACHE_DIR=$work/caches/triton NUMBA_CACHE_DIR=$work/caches/numba

markers=(-m gpu) pytest=("$python" -m pytest -q -p no:cacheprovider)
speed=() decode=() train=()
if [ "$device" = cpu ]; then
    markers=()
    # How long anything takes says nothing here, on cores that others may use.
    for part in "${all[@]}"; do limit[$part]=900; done
    speed=(--device cpu --batch 2 --steps 1 --rounds 1 --epoch-images 8)
    decode=(--device cpu --images 16 --batch 8 --resolution 32 --repeats 1 --batches 4)
    train=(--dist.device=cpu --training.batch_size=4 --validation.batch_size=4 --resolution.min_res=32
        --resolution.max_res=32 --validation.resolution=32)
fi

speed() { # MINUTES ARCH SIDES PARTS [OPTION...]: MINUTES are the part's limit, less what starting takes
    local arch=$2 sides=$3
    [ "$device" = cuda ] || arch=resnet10 sides=32
    "$python" benchmarks/train_speed.py --images "$images" --workdir "$work/data" --minutes "$1" --archs "$arch" \
        --sides "$sides" --parts "$4" --markdown "$work/tables/$part.md" "${speed[@]}" "${@:5}"
}

train() { # ARCH LOSS SEED COMPILE
    local epochs=16
    [ "$device" = cuda ] || epochs=2
    "$python" train_imagenet.py --config-file rn_configs/imagenette.yaml --model.arch="$1" --loss.name="$2" \
        --training.seed="$3" --training.compile="$4" --training.epochs=$epochs --lr.peak_epoch=1 \
        --resolution.start_ramp=$((epochs / 2)) --resolution.end_ramp=$((3 * epochs / 4)) \
        --data.train="$work/imagenette/train.beton" --data.val="$work/imagenette/val.beton" \
        --logging.folder="$work/runs" --checkpoint.resume=auto "${train[@]}"
}

run_part() { # of a limit of $1 seconds
    local minutes
    minutes=$(awk "BEGIN { print ($1 - 25) / 60 }")
    case $part in
        preflight) "$python" benchmarks/preflight.py --device "$device" ;;
        decode_tests) "${pytest[@]}" "${markers[@]}" tests/data/test_decode_gpu.py tests/data/test_loader.py tests/native/test_gpu_kernels.py ;;
        decode) "$python" benchmarks/gpu_decode.py "$images" --workdir "$work/data" --markdown "$work/tables/decode.md" "${decode[@]}" ;;
        blur) speed "$minutes" resnet50 160 ablation --ablations 'blur as sums' ;;
        step) speed "$minutes" resnet50 160,192 step ;;
        end_to_end) speed "$minutes" resnet50 160 step,end-to-end ;;
        step_tests) "${pytest[@]}" "${markers[@]}" tests/train/test_step.py tests/train/test_ema.py ;;
        step_224) speed "$minutes" resnet50 224 step ;;
        resnet18) speed "$minutes" resnet18 160,192 step,end-to-end ;;
        ablation) speed "$minutes" resnet50 160 ablation ;;
        imagenette)
            [ -f "$work/imagenette/val.beton" ] ||
                "$python" write_datasets.py --data.root="$imagenette" --out.dir="$work/imagenette" --write.mode=jpg || return
            local large=resnet50 small=resnet18 losses='baseline label_smoothing maxsup' seeds='1 2 3' loss seed
            [ "$device" = cuda ] || large=resnet10 small=resnet10 losses=maxsup seeds=1
            for loss in $losses; do
                train $large "$loss" 0 auto || return
                # Eager, so that both ways are used.
                for seed in $seeds; do train $small "$loss" "$seed" off || return; done
            done
            "$python" -m ffcv_imagenet.report "$work/runs" --markdown "$work/tables/imagenette.md"
            ;;
    esac
}

#: Files for --out: a table of the parts, all tables, the logs' ends, the caches in pieces, the runs without checkpoints.
collect() {
    {
        echo "| part | outcome | seconds | limit |"
        echo "|---|---|---|---|"
        for each in "${all[@]}"; do cat "$work/$each.outcome" 2> /dev/null; done
    } > "$out/parts.md"
    for each in "${all[@]}"; do
        [ ! -f "$work/tables/$each.md" ] || { echo "## $each"; echo; cat "$work/tables/$each.md"; echo; }
    done | head -c 16000000 > "$out/tables.md"
    for each in "${all[@]}"; do
        [ ! -f "$work/logs/$each.log" ] || { echo "== $each"; tail -c 1000000 "$work/logs/$each.log"; }
    done > "$out/session.log"
    rm -f "$out"/caches.tar.gz.*
    tar -C "$work/caches" -cz . | split -b 15M -d -a 1 - "$out/caches.tar.gz."
    # Four pieces at most: what would be cut off is compiled again.
    [ ! -e "$out/caches.tar.gz.4" ] || rm -f "$out"/caches.tar.gz.*
    if [ -d "$work/runs" ]; then
        tar -C "$work" -czf "$out/runs.tar.gz" --exclude=checkpoints runs
        [ "$(stat -c %s "$out/runs.tar.gz")" -lt 16000000 ] || rm "$out/runs.tar.gz"
    fi
}

outcome() { echo "| $part | $1 | $2 | ${limit[$part]} |" > "$work/$part.outcome"; }

incomplete=0
for part in "${parts[@]}"; do
    [ ! -e "$work/$part.done" ] || [ "$part" = preflight ] || continue
    left=$((deadline - (SECONDS - begin)))
    if [ "$part" = imagenette ] && [ -z "$imagenette" ]; then
        outcome "left out: no --imagenette" ''
        continue
    fi
    # Half of its limit is what a part needs to tell anything; in a rehearsal nobody knows.
    least=$((limit[$part] / 2))
    [ "$device" = cuda ] || least=1
    if [ "$left" -lt "$least" ]; then
        outcome "left out: $left s were left" ''
        incomplete=1
        continue
    fi
    seconds=$((left < limit[$part] ? left : limit[$part]))
    echo "== $part, at most $seconds s"
    started=$SECONDS
    # The part is this script again, alone under `timeout`, which also ends what the part has started.
    export -f run_part speed train
    declare -p part work images imagenette device python speed decode train pytest markers > "$work/part.sh"
    timeout --kill-after=10 "$seconds" bash -c 'source "$1/part.sh"; run_part "$2"' - "$work" "$seconds" \
        > "$work/logs/$part.log" 2>&1
    status=$?
    tail -n 25 "$work/logs/$part.log"
    took=$((SECONDS - started))
    case $status in
        0) outcome "done" $took && touch "$work/$part.done" ;;
        124 | 137) outcome "stopped at its limit" $took && incomplete=1 ;;
        *) outcome "**failed**, status $status" $took && incomplete=1 ;;
    esac
    collect
    if [ "$part" = preflight ] && [ $status -ne 0 ]; then
        fail "the preflight says that this machine cannot run the rest: see above"
    fi
done
collect
cat "$out/parts.md"
echo "Tables, logs and caches: $out"
exit $incomplete
