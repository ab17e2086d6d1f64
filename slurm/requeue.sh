# shellcheck shell=bash
# For the batch files here. Slurm sends USR1 to the batch shell before the time limit and at a pre-emption (#SBATCH
# --signal=B:USR1@120), TERM when the job has to go now.

# Where srun's tasks get the cores that sbatch was asked for (Slurm >= 22.05 does not hand them on by itself).
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# run_and_requeue COMMAND...: run it. At USR1 or TERM, ask it to stop (it writes its checkpoint) and put the job back
# into the queue, where the same command goes on; its exit status otherwise.
run_and_requeue() {
    local stopped=0 status=0 child=
    trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' USR1 TERM
    "$@" &
    child=$!
    [ "$stopped" = 0 ] || kill -TERM "$child" 2>/dev/null || true # The signal came just before.
    # A signal ends `wait` early.
    while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
    wait "$child" || status=$?
    if [ "$stopped" = 1 ] && [ "$status" != 0 ]; then
        echo "Stopped by Slurm: requeueing job $SLURM_JOB_ID"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$status"
}
