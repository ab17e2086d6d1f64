"""A stand-in for Slurm on this machine: ``srun`` and ``scontrol`` as the batch files use them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# One copy of the command per node; signals go to all of them, as srun does it.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
tasks=() stopped=0
trap 'stopped=1; kill -TERM "${tasks[@]}" 2>/dev/null' TERM
for ((node = 0; node < ${SLURM_JOB_NUM_NODES:-1}; node++)); do "$@" & tasks+=($!); done
[ $stopped = 0 ] || kill -TERM "${tasks[@]}"
status=0
for task in "${tasks[@]}"; do
    while kill -0 "$task" 2>/dev/null; do wait "$task"; done
    wait "$task" || status=$?
done
exit $status
"""

SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then printf 'localhost\\nother\\n'; else echo "$*" >>"$SHIMS/scontrol.txt"; fi
"""


def start_batch(shims: Path, name: str, *words: str, **variables: str) -> subprocess.Popen:
    """Start a batch file of ``slurm/`` with the job's ``variables``; other commands in ``shims`` win over real ones."""
    for command, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (shims / command).write_text(text)
        (shims / command).chmod(0o755)
    path = f"{shims}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SHIMS": str(shims), "SLURM_JOB_ID": str(os.getpid()), **variables}
    command = ["bash", str(ROOT / "slurm" / name), *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
