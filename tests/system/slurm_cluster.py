"""A real Slurm on this machine: one slurmctld and four slurmd that believe to have eight GPUs each.

Everything lives in one temporary directory and on free ports; every process is ended by its pid. KillWait, cred_expire and
SlurmdTimeout are short, so that tests are.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

NODES = ("gpu1", "gpu2", "gpu3", "gpu4")
TOOLS = ("slurmctld", "slurmd", "sinfo", "squeue", "scontrol", "scancel", "sbatch")
KILL_WAIT_S = 3
CRED_EXPIRE_S = 5  # Slurm takes no less

_CONF = """\
ClusterName=gridpivot
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire={cred_expire}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait={kill_wait}
MinJobAge=300
SlurmdTimeout=3
GresTypes=gpu
SlurmdParameters=config_overrides
PlugStackConfig=/dev/null
MailProg=/bin/true
{nodes}
PartitionName=train Nodes=gpu[1-4] Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=REQUEUE
PartitionName=urgent Nodes=gpu[1-2] MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
PartitionName=spot Nodes=gpu[3-4] MaxTime=INFINITE State=UP PriorityTier=5 PreemptMode=REQUEUE
"""


def absent() -> list[str]:
    """Programs that are not on this machine."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [tool for tool in TOOLS if shutil.which(tool, path=path) is None]


class SlurmCluster:
    """Start, ask, break and end it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="gridpivot-slurm-"))
        self.conf = self.root / "slurm.conf"
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
            "LC_ALL": "C",
            "SLURM_CONF": str(self.conf),
        }

    def start(self) -> None:
        """Write the configuration, start everything, wait until all nodes are idle."""
        ports = _free_ports(1 + len(NODES))
        lines = [
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=8 Boards=1 SocketsPerBoard=1 "
            f"CoresPerSocket=8 ThreadsPerCore=1 RealMemory=1000 Gres=gpu:h100:8 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        self.conf.write_text(
            _CONF.format(
                ports=ports, user=self.user, root=self.root, nodes="\n".join(lines), kill_wait=KILL_WAIT_S,
                cred_expire=CRED_EXPIRE_S,
            )
        )  # fmt: skip
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        devices = self.root / "dev"
        devices.mkdir()
        for index in range(8):  # slurmd counts files; that they are no devices is a line in its log
            (devices / f"gpu{index}").touch()
        (self.root / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName=gpu[1-4] Name=gpu Type=h100 File={devices}/gpu[0-7]\n"
        )
        (self.root / "state").mkdir()
        self._spawn("slurmctld", "slurmctld", "-D")
        for name in NODES:
            self.start_node(name)
        self.until(self.idle, 20)

    def start_node(self, name: str) -> None:
        """Start one slurmd."""
        (self.root / f"spool-{name}").mkdir(exist_ok=True)
        self._spawn(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """The node vanishes."""
        process = self._processes.pop(name)
        process.kill()
        process.wait(10)

    def hang(self) -> None:
        """slurmctld stops answering, its port stays open."""
        self._processes["slurmctld"].send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """slurmctld goes on."""
        self._processes["slurmctld"].send_signal(signal.SIGCONT)

    def tool(self, *words: str) -> str:
        """What an admin types; fails when Slurm says no."""
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def submit(self, script: str, *options: str) -> str:
        """Queue a batch job; its number."""
        path = self.root / f"job-{len(list(self.root.glob('job-*')))}.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        return self.tool("sbatch", "--parsable", "-o", "/dev/null", "-t", "30", *options, str(path)).strip()

    def state(self, job_id: str) -> str:
        """State of a job, one word; empty when Slurm has forgotten it."""
        return self.tool("squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T").strip()

    def node(self, name: str) -> str:
        """`STATE,FLAGS REASON` of a node. From JSON: without it sinfo of 22.05 may go on saying "mixed" after the last job."""
        (node,) = (n for n in json.loads(self.tool("sinfo", "--json"))["nodes"] if n["name"] == name)
        return f"{','.join([node['state'], *node['state_flags']])} {node['reason']}"

    def idle(self) -> bool:
        """Whether every node answers, is in service and empty."""
        return all(self.node(name).startswith("idle ") for name in NODES)

    def until(self, true: Callable[[], bool], limit_s: float = 15.0) -> float:
        """Wait for something; the seconds that it took."""
        began = time.monotonic()
        while not true():
            if time.monotonic() - began > limit_s:
                raise AssertionError(
                    f"not within {limit_s:g} s:\n{self.tool('squeue')}{self.tool('sinfo', '-N', '-l')}"
                )
            time.sleep(0.05)
        return time.monotonic() - began

    def clear(self) -> None:
        """No jobs, no reservations, all nodes in service: a test begins."""
        queued = self.tool("squeue", "-h", "-o", "%A").split()
        if queued:
            self.tool("scancel", *set(queued))
        for line in self.tool("scontrol", "show", "reservation", "-o").splitlines():
            if line.startswith("ReservationName="):
                self.tool("scontrol", "delete", line.split()[0])
        for name in NODES:
            if "DRAIN" in self.node(name):
                self.tool("scontrol", "update", f"nodename={name}", "state=undrain")
        self.until(lambda: not self.tool("squeue", "-h").strip())
        self.until(self.idle)

    def stop(self) -> None:
        """End jobs, then daemons, by pid, and remove the directory."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.clear()
        for process in reversed(list(self._processes.values())):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self._end_what_is_left()
        shutil.rmtree(self.root, ignore_errors=True)

    def _end_what_is_left(self) -> None:
        """Job steps outlive their slurmd; they are known by this cluster's own configuration in their environment."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == str(self.conf):
                    process.kill()

    def _spawn(self, name: str, *words: str) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(words, env=self._environment, stdout=log, stderr=log)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
