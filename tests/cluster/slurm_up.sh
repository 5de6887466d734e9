#!/usr/bin/env bash
# A Slurm of one node for the tests: accounting, two pretended GPUs, the loopback interface only. Needs root on a
# Debian-like machine that has no Slurm of its own; slurm_install.sh installs the packages.
#
# Everything lies in one private folder (SLURM_TEST_HOME). What is running already is left running, so that the script
# may be called again; slurm_down.sh stops what this started, and nothing else.
set -euo pipefail
umask 022

HOME_DIR=${SLURM_TEST_HOME:-$(dirname "$(mktemp -u)")/anatomy-slurm}
ETC=/etc/slurm
CONFIGS="slurm.conf gres.conf cgroup.conf"
NODE=$(hostname -s)
CORES=$(getconf _NPROCESSORS_ONLN)  # nproc would heed OMP_NUM_THREADS
MEMORY=$(awk '/^MemTotal/ { print int($2 / 1024) - 1024 }' /proc/meminfo)

fail() { echo "error: $*" >&2; exit 2; }

[ "$(id -u)" = 0 ] || fail "slurm_up.sh: needs root, as munge, slurmd and /etc/slurm do"
for tool in munged mariadbd mariadb-install-db slurmdbd slurmctld slurmd sbatch sacct; do
    command -v "$tool" > /dev/null || fail "slurm_up.sh: $tool is not installed; see slurm_install.sh"
done
for name in $CONFIGS; do
    # A configuration that is not ours is a real cluster's.
    if [ -e "$ETC/$name" ] || [ -L "$ETC/$name" ]; then
        [ "$(readlink "$ETC/$name")" = "$HOME_DIR/etc/$name" ] || fail "slurm_up.sh: $ETC/$name exists and is not ours"
    fi
done

mkdir -p "$HOME_DIR"/{etc,log,state,spool,pids,munge,database,devices} "$ETC"
chmod 711 "$HOME_DIR/munge"

# within SECONDS COMMAND...: repeat a command until it succeeds.
within() {
    local until=$((SECONDS + $1)) name=$2
    shift
    until "$@" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "slurm_up.sh: $name did not answer in time; see $HOME_DIR/log"
        sleep 0.2
    done
}

running() { [ -s "$HOME_DIR/pids/$1" ] && [ "$(cat "/proc/$(cat "$HOME_DIR/pids/$1")/comm" 2> /dev/null)" = "$1" ]; }

# daemon NAME ARGUMENTS...: in a session of its own, so that it outlives the shell and its time limit.
daemon() {
    local name=$1
    shift
    setsid "$name" "$@" > "$HOME_DIR/log/$name.out" 2>&1 < /dev/null &
    echo $! > "$HOME_DIR/pids/$name"
}

# --- munge: who may speak to the daemons --------------------------------------------------------------------------
SOCKET=$HOME_DIR/munge/munge.socket
[ -s "$HOME_DIR/munge/key" ] || (umask 077; head -c 128 /dev/urandom > "$HOME_DIR/munge/key")
if ! running munged; then
    rm -f "$SOCKET" "$SOCKET.lock"
    daemon munged --foreground --force --num-threads=2 --key-file="$HOME_DIR/munge/key" --socket="$SOCKET" \
        --pid-file="$HOME_DIR/munge/pid" --seed-file="$HOME_DIR/munge/seed" --log-file="$HOME_DIR/log/munged.log"
    within 10 munge --no-input --socket="$SOCKET"
fi

# --- the accounting database: a socket, no port --------------------------------------------------------------------
DATABASE=$HOME_DIR/database/socket
if ! running mariadbd; then
    [ -d "$HOME_DIR/database/data/mysql" ] || mariadb-install-db --no-defaults --user=root --skip-test-db \
        --datadir="$HOME_DIR/database/data" --auth-root-authentication-method=socket \
        > "$HOME_DIR/log/mariadb-install-db.out" 2>&1
    daemon mariadbd --no-defaults --user=root --datadir="$HOME_DIR/database/data" --socket="$DATABASE" \
        --pid-file="$HOME_DIR/database/pid" --skip-networking --innodb-buffer-pool-size=64M
    within 60 mariadb-admin --no-defaults --socket="$DATABASE" ping
fi

# --- configuration -------------------------------------------------------------------------------------------------
cat > "$HOME_DIR/etc/slurmdbd.conf" << END
AuthType=auth/munge
AuthInfo=socket=$SOCKET
DbdHost=localhost
DbdPort=26819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_accounts
PidFile=$HOME_DIR/slurmdbd.pid
LogFile=$HOME_DIR/log/slurmdbd.log
END
chmod 600 "$HOME_DIR/etc/slurmdbd.conf"

# AccountingStoragePass: else sacctmgr looks for the system's munge socket. linuxproc and task/none: no control groups
# are needed, and memory limits are not enforced.
cat > "$HOME_DIR/etc/slurm.conf" << END
ClusterName=anatomytest
SlurmctldHost=$NODE(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$SOCKET
CredType=cred/munge
StateSaveLocation=$HOME_DIR/state
SlurmdSpoolDir=$HOME_DIR/spool
SlurmctldPidFile=$HOME_DIR/slurmctld.pid
SlurmdPidFile=$HOME_DIR/slurmd.pid
SlurmctldLogFile=$HOME_DIR/log/slurmctld.log
SlurmdLogFile=$HOME_DIR/log/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=5
MinJobAge=300
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=26819
AccountingStoragePass=$SOCKET
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=$CORES Boards=1 SocketsPerBoard=1 CoresPerSocket=$CORES ThreadsPerCore=1 RealMemory=$MEMORY Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=$NODE Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=$NODE Default=NO MaxTime=INFINITE State=UP
END
# A GPU is counted where it has a device file; these two are copies of /dev/null. Jobs get CUDA_VISIBLE_DEVICES, and no
# GPU behind it.
for number in 0 1; do
    [ -c "$HOME_DIR/devices/gpu$number" ] || mknod -m 666 "$HOME_DIR/devices/gpu$number" c 1 3
done
echo "NodeName=$NODE Name=gpu File=$HOME_DIR/devices/gpu[0-1]" > "$HOME_DIR/etc/gres.conf"
echo "CgroupPlugin=cgroup/v1" > "$HOME_DIR/etc/cgroup.conf"
# At the default place, and not by SLURM_CONF: Snakemake's plugin takes all SLURM variables out of the environment.
for name in $CONFIGS; do ln -sfn "$HOME_DIR/etc/$name" "$ETC/$name"; done

# --- the daemons ---------------------------------------------------------------------------------------------------
if ! running slurmdbd; then
    # slurmdbd.conf has no key for the database's socket; its client library reads this variable.
    export MYSQL_UNIX_PORT=$DATABASE SLURM_CONF=$HOME_DIR/etc/slurm.conf
    daemon slurmdbd -D
    unset MYSQL_UNIX_PORT SLURM_CONF
    within 60 sacctmgr --noheader show cluster
fi
if ! sacctmgr --noheader --parsable2 show cluster format=cluster | grep -qx anatomytest; then
    sacctmgr --immediate add cluster anatomytest > /dev/null
fi
if ! sacctmgr --noheader --parsable2 show assoc user=root format=account | grep -qx study; then
    sacctmgr --immediate add account study Description=study Organization=study > /dev/null || true
    sacctmgr --immediate add user root account=study > /dev/null
fi
running slurmctld || daemon slurmctld -D
within 30 scontrol ping
running slurmd || daemon slurmd -D -N "$NODE"
# The state folder remembers a node that was drained or down when it was last stopped.
within 30 sh -c "sinfo --noheader --format %T | grep -qE 'idle|mixed|alloc' \
    || { scontrol update NodeName=$NODE State=RESUME; false; }"
echo "slurm is up: $(sinfo --noheader --format '%P %T %c cores, %m MB, %G' | paste -sd ';')"
