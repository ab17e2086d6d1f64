#!/usr/bin/env bash
# Sourced by setup.sh: how far an installation is, on a terminal and elsewhere.

# Run a command, and outside a terminal say every minute (PROGRESS_SECONDS) how much there is in .venv and how fast it grows.
with_progress() {
    local interval=${PROGRESS_SECONDS:-60} status=0 ticker
    [ -t 2 ] && { "$@"; return; }
    (
        before=$(_megabytes)
        while sleep "$interval" > /dev/null 2>&1 && kill -0 $$ 2> /dev/null; do # not longer than what it tells of
            now=$(_megabytes)
            echo "  still at work after $SECONDS s: $now MB in .venv, $((now - before)) MB more than $interval s before" >&2
            before=$now
        done
    ) &
    ticker=$!
    "$@" || status=$?
    kill "$ticker" 2> /dev/null || true
    wait "$ticker" 2> /dev/null || true
    return "$status"
}

_megabytes() { { du -sm .venv 2> /dev/null || echo 0; } | cut -f1; }
