"""A real SLURM of one node for tests: slurmctld, slurmd, slurmdbd and MariaDB, on loopback, in a folder of their own.

Needs root and Debian's slurmctld, slurmd, slurm-client, slurmdbd and mariadb-server. Nothing of the machine's own SLURM
or database is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from few_questions import QUESTIONS

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "sacct", "mariadbd", "mariadb-install-db")
#: The smallest experiment that passes through all stages.
SMALL = ("experiments=smoke", "pool.limit=300", *QUESTIONS, "tracker=none")
LONGEST_WAIT = 400  # seconds
CPUS = 16  # more than there are: jobs wait for each other, not for the machine

_DATABASE = """\
AuthType=auth/none
DbdHost=localhost
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""

# Credentials expire soon, or a requeued job would wait two minutes. The node claims CPUs it does not have.
_CLUSTER = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={dbd}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=100000,defer_batch
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
KillWait=5
JobRequeue=1
MaxArraySize=1001
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 \
RealMemory=64000 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A SLURM that lives in `folder` between `start` and `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._database: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str | None:
        """Say what keeps a cluster from being started here, or None."""
        lacking = [name for name in PROGRAMS if shutil.which(name) is None]
        if lacking:
            return f"a SLURM for tests needs {', '.join(lacking)} (Debian: slurmctld slurmd slurmdbd mariadb-server)"
        return "starting SLURM needs root" if os.geteuid() else None

    def start(self) -> None:
        """Start all daemons and wait until a job could run."""
        for name in ("state", "spool", "sql"):
            (self.folder / name).mkdir(parents=True)
        ports = dict(zip(("ctld", "slurmd", "dbd", "sql"), _free_ports(4), strict=True))
        values = {"folder": self.folder, "host": socket.gethostname().partition(".")[0], "cpus": CPUS, **ports}
        (self.folder / "slurm.conf").write_text(_CLUSTER.format(**values))
        database = self.folder / "slurmdbd.conf"
        database.write_text(_DATABASE.format(**values))
        database.chmod(0o600)
        self._start_database(ports["sql"])
        self.run("slurmdbd")
        wait_until(lambda: not self.run("sacctmgr", "-n", "-i", "list", "cluster", check=False).returncode)
        self.run("sacctmgr", "-n", "-i", "add", "cluster", "test", check=False)
        self.run("slurmctld", "-c")
        self.run("slurmd", "-N", str(values["host"]))
        wait_until(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T", check=False).stdout)

    def _start_database(self, port: int) -> None:
        data, sock = self.folder / "sql", self.folder / "sql.sock"
        options = ["--no-defaults", f"--datadir={data}", "--user=root"]
        self.run("mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db")
        network = [f"--socket={sock}", "--bind-address=127.0.0.1", f"--port={port}"]
        haste = [
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
        ]
        with open(self.folder / "sql.log", "w") as log:
            command = ["mariadbd", *options, *network, *haste]
            self._database = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        client = ["mariadb", "--no-defaults", "-uroot", "-S", str(sock), "-e"]
        wait_until(lambda: not self.run(*client, "select 1", check=False).returncode)
        for host in ("localhost", "127.0.0.1"):
            who = f"slurm@'{host}'"
            self.run(*client, f"create user {who} identified by 'slurm'; grant all on slurm_acct_db.* to {who}")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of this cluster, such as squeue."""
        answer = subprocess.run(
            command, env={**os.environ, **self.environment}, cwd=self.folder, capture_output=True, text=True
        )
        assert not (check and answer.returncode), f"{command}: {answer.stderr}"
        return answer

    @contextmanager
    def closed(self) -> Generator[None]:
        """Start no job meanwhile; what is submitted waits."""
        self.run("scontrol", "update", "PartitionName=test", "State=DOWN")
        try:
            yield
        finally:
            self.run("scontrol", "update", "PartitionName=test", "State=UP")

    def states(self) -> dict[str, str]:
        """Return job -> state of all jobs there ever were."""
        answer = self.run("squeue", "-h", "--array", "--states=all", "--format=%i|%T")
        return dict(line.split("|") for line in answer.stdout.splitlines())

    def wait_for_jobs(self) -> None:
        """Wait until no job is queued or running."""
        wait_until(lambda: not self.run("squeue", "-h").stdout.strip())

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.run("scancel", "--user=root", check=False)
        for daemon in ("slurmd", "slurmctld", "slurmdbd"):
            pid = self.folder / f"{daemon}.pid"
            if pid.exists() and pid.read_text().strip():
                os.kill(int(pid.read_text()), signal.SIGTERM)
                wait_until(lambda pid=pid: not pid.exists())
        if self._database:
            self._database.terminate()
            self._database.wait(20)


def tasks(store: Path, stage: str) -> dict[str, str]:
    """Return the tasks of one kind of stage of a store's only sweep, and their jobs."""
    (sweep,) = (store / "sweeps").iterdir()
    jobs = json.loads((sweep / "jobs.json").read_text())
    return {name: job for name, job in jobs.items() if name.startswith(stage)}


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition; fail when it takes too long, even for a busy machine."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not holds():
        assert time.monotonic() < deadline, f"waited {LONGEST_WAIT} s in vain"
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
