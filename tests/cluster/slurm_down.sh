#!/usr/bin/env bash
# Stops the daemons that slurm_up.sh started, each by the number it wrote down and only if that is still the daemon, and
# takes its links out of /etc/slurm. KEEP=1 keeps the folder with logs and accounts; without, it is deleted.
set -u

HOME_DIR=${SLURM_TEST_HOME:-$(dirname "$(mktemp -u)")/anatomy-slurm}

# Jobs first: they are no children of slurmd, and would go on without it.
if [ "$(readlink /etc/slurm/slurm.conf)" = "$HOME_DIR/etc/slurm.conf" ] && timeout 10 scancel --user root 2> /dev/null; then
    for _ in $(seq 100); do
        [ -n "$(timeout 10 squeue --noheader --user root 2> /dev/null)" ] || break
        sleep 0.2
    done
fi
for name in slurmd slurmctld slurmdbd mariadbd munged; do
    file=$HOME_DIR/pids/$name
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    if [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = "$name" ]; then
        kill -TERM "$pid"
        for _ in $(seq 100); do
            kill -0 "$pid" 2> /dev/null || break
            sleep 0.2
        done
        kill -KILL "$pid" 2> /dev/null
        echo "stopped $name"
    fi
    rm -f "$file"
done
for name in slurm.conf gres.conf cgroup.conf; do
    [ "$(readlink "/etc/slurm/$name")" = "$HOME_DIR/etc/$name" ] && rm -f "/etc/slurm/$name"
done
# Only a folder that slurm_up.sh made has this file.
if [ "${KEEP:-0}" != 1 ] && [ -f "$HOME_DIR/etc/slurmdbd.conf" ]; then
    rm -rf "$HOME_DIR"
fi
exit 0
