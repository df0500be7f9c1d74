# shellcheck shell=bash
# Sourced: long steps say which of how many they are, and that they are alive.
#
#   steps=3
#   step TITLE COMMAND ...          runs it; what it prints is shown only if it fails
#   meanwhile TITLE COMMAND ...     starts it, to run beside the next steps
#   step_end                        waits for what runs meanwhile, as a step of its own
#
# On a terminal a line shows the seconds and the last thing that was printed; elsewhere each step is a line.
set -m # each command is a process group of its own, which Ctrl-C takes along
steps=1 step_number=0
declare -A running=()

step() {
    local title=$1
    shift
    step_number=$((step_number + 1))
    local log began=$SECONDS
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null &
    running[$!]=yes
    watch_step "$title" $! "$log" "$began"
}

meanwhile() {
    meanwhile_title=$1 meanwhile_began=$SECONDS
    shift
    meanwhile_log=$(mktemp)
    "$@" >"$meanwhile_log" 2>&1 </dev/null &
    meanwhile_process=$!
    running[$!]=yes
}

step_end() {
    step_number=$((step_number + 1))
    watch_step "$meanwhile_title" "$meanwhile_process" "$meanwhile_log" "$meanwhile_began"
}

# watch_step TITLE PROCESS LOG BEGAN
watch_step() {
    local label="[$step_number/$steps] $1" process=$2 log=$3 began=$4 width line code=0
    if [ -t 2 ]; then
        width=$(tput cols 2>/dev/null || echo 80)
        while kill -0 "$process" 2>/dev/null; do
            line="$label · $((SECONDS - began)) s · $(tail -n 1 "$log" | tr -d '\r' | sed 's/^ *//')"
            printf '\r\033[K%s' "${line:0:width - 1}" >&2
            sleep 0.2
        done
        printf '\r\033[K' >&2
    else
        echo "$label …" >&2
    fi
    wait "$process" || code=$?
    unset "running[$process]"
    if [ $code != 0 ]; then
        tail -n 40 "$log" >&2
        echo "$label: failed" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
    echo "$label · $((SECONDS - began)) s" >&2
}

end_running() {
    local process
    for process in "${!running[@]}"; do kill -TERM -- "-$process" 2>/dev/null || true; done
}
trap end_running EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
