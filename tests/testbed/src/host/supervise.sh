# Runs a program of a host as a kubelet runs a static pod: one that fails is started again.
# One that was killed, or ended when it was told to, stays dead until somebody starts it.
# Arguments: the log, and the command line.
log=$1
shift
exec >>"$log" 2>&1 </dev/null
while :; do
    status=0
    "$@" || status=$?
    if [ "$status" -eq 0 ] || [ "$status" -gt 128 ]; then
        exit "$status"
    fi
    echo "${1##*/} ended with status $status; it is started again in 5 s"
    sleep 5
done
