#!/usr/bin/env bash
# Everything that wants a GPU, one part after the other, with the tables in one folder.
# Usage: gpu_session.sh IMAGES IMAGENETTE [OUT] [PART ...]
#   IMAGES      image folder for the loaders, <class>/<image>
#   IMAGENETTE  folder with train/ and val/
#   OUT         where logs and tables go (gpu_results)
#   PART        tests, decode, speed, speed18, loaders, ablation, imagenette (all): most of them less than 10 minutes each;
#               imagenette takes longer, and goes on where it was when it is started again
set -uo pipefail
[ -n "${1:-}" ] && [ -n "${2:-}" ] || { sed -n '2,9s/^# //p' "$0" >&2; exit 2; }
images=$(realpath "$1") imagenette=$(realpath "$2")
cd "$(dirname "$0")/.."
[ -d .venv ] && export PATH="$PWD/.venv/bin:$PATH"
command -v python > /dev/null || python() { python3 "$@"; }
out=${3:-gpu_results}
parts=("${@:4}")
[ ${#parts[@]} -gt 0 ] || parts=(tests decode speed speed18 loaders ablation imagenette)
mkdir -p "$out"
python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { echo "error: torch sees no GPU" >&2; exit 2; }

speed() { # ARCH PARTS
    python benchmarks/train_speed.py --images "$images" --archs "$1" --parts "$2" --markdown "$out/$part.md"
}

train() { # ARCH LOSS SEED COMPILE
    python train_imagenet.py --config-file rn_configs/imagenette.yaml --model.arch="$1" --loss.name="$2" --training.seed="$3" \
        --training.compile="$4" \
        --training.epochs=16 --lr.peak_epoch=2 --resolution.start_ramp=8 --resolution.end_ramp=12 \
        --data.train="$out/imagenette/train.beton" --data.val="$out/imagenette/val.beton" \
        --logging.folder="$out/runs" --checkpoint.resume=auto
}

run_part() {
    case $1 in
        # Of these files alone: others import what a machine with little on it lacks.
        tests) python -m pytest -q -m gpu $(grep -l 'pytest.mark.gpu$\|marks=pytest.mark.gpu' -r tests --include=test_*.py) ;;
        decode) python benchmarks/gpu_decode.py "$images" --markdown "$out/gpu_decode.md" ;;
        speed) speed resnet50 step,end-to-end ;;
        speed18) speed resnet18 step,end-to-end ;;
        loaders) speed resnet50 loaders,reference-end-to-end ;;
        ablation) python benchmarks/train_speed.py --archs resnet50 --parts ablation --markdown "$out/ablation.md" ;;
        imagenette)
            [ -f "$out/imagenette/val.beton" ] ||
                python write_datasets.py --data.root="$imagenette" --out.dir="$out/imagenette" --write.mode=jpg || return
            for loss in baseline label_smoothing maxsup; do
                train resnet50 $loss 0 auto || return
                # Eager, so that both ways are used.
                for seed in 0 1 2; do train resnet18 $loss $seed off || return; done
            done
            python -m ffcv_imagenet.report "$out/runs" --markdown "$out/imagenette.md"
            ;;
        *) echo "error: $1 is no part: tests, decode, speed, speed18, loaders, ablation, imagenette" >&2; return 2 ;;
    esac
}

failed=()
for part in "${parts[@]}"; do
    echo "== $part"
    run_part "$part" 2>&1 | tee "$out/$part.log" || failed+=("$part")
done
echo "Logs and tables: $out${failed:+; failed: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ]
