#!/usr/bin/env bash
# Three losses compared on one data set, by the commands that a user types for ImageNet.
# Usage: demo.sh [FOLDER with train/ and val/, or an archive: docs/data.md]; without one, scikit-learn's handwritten digits.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

data=${1:-demo/digits}
if [ $# -gt 0 ]; then
    [ -e "$data" ] || { echo "error: DATA=$data is not there: give a folder with train/ and val/, or an archive of it" >&2; exit 1; }
else
    python -m ffcv_imagenet.data.digits "$data"
fi
name=$(basename "$(realpath "$data")")

python write_datasets.py --data.root="$data" --out.dir="demo/$name-beton" --write.mode=jpg --write.max_resolution=256 || {
    echo "The demo keeps its files by the data's name; for other images of this name: rm -r demo/$name-beton demo/$name-runs" >&2
    exit 1
}
for loss in baseline label_smoothing maxsup; do
    echo "Training with $loss"
    python train_imagenet.py --config-file rn_configs/digits.yaml --loss.name=$loss \
        --data.train="demo/$name-beton/train.beton" --data.val="demo/$name-beton/val.beton" \
        --logging.folder="demo/$name-runs" --checkpoint.resume=auto
done
python -m ffcv_imagenet.report "demo/$name-runs" --html "demo/$name-report.html" --markdown "demo/$name-table.md" \
    --plot "demo/$name-plot.png"
echo "Page: demo/$name-report.html, table: demo/$name-table.md, plot: demo/$name-plot.png, runs: demo/$name-runs"
