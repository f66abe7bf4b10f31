# The init of a host: pid 1 of its PID namespace, in its own network, mount, UTS, IPC and cgroup namespaces.
# Arguments: the host's name, the directory with its own files, its cgroup mounts, and the directories it owns.
# When this process is killed, the kernel ends everything else of the host: that is a power cut.
set -eu
name=$1 files=$2 cgroups=$3
shift 3

echo "$name" >/proc/sys/kernel/hostname
ulimit -n "$(ulimit -H -n)"

# Nothing that is mounted from here on gets out to the machine.
mount --make-rprivate /
for directory in "$@"; do
    mount --bind "$files$directory" "$directory"
done
mount --bind "$files/etc/hosts" /etc/hosts
mount -t tmpfs -o mode=755 tmpfs /run

# A sysfs of this network namespace, and the cgroups as this cgroup namespace sees them.
mount -t sysfs sysfs /sys
if [ "$cgroups" = v2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # Processes live in leaves only: kubelet could not hand controllers down from where we are.
    mkdir -p /sys/fs/cgroup/init
    echo 1 >/sys/fs/cgroup/init/cgroup.procs
else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for entry in $cgroups; do
        directory=${entry%%:*} options=${entry#*:}
        case $options in
        name=*) options=none,$options ;;
        esac
        mkdir -p "$directory"
        mount -t cgroup -o "$options" cgroup "$directory"
    done
fi

# Volumes that are mounted into containers must get there: kubelet wants the root shared.
mount --make-rshared /

# The network namespace outlives a reboot; what the last life left in it does not. Faults stay: they are of the wire.
ip link delete cni0 2>/dev/null || true
nft list tables | while read -r _ family table; do
    [ "$table" = trivet-testbed-faults ] || nft delete table "$family" "$table"
done

: >/run/trivet-testbed-booted

# Wait for ever, and reap processes whose parent has ended.
while :; do
    sleep 86400 &
    wait $! || true
done
