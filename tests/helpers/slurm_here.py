"""A SLURM of one node in namespaces of its own: `python slurm_here.py FOLDER COMMAND...` runs a command beside it.

Mounts, processes and the host's name are private (unshare), with a /proc of their own, without which slurmstepd cannot
signal; nothing is left on the machine, as controller, node and their files live in FOLDER and end with the namespace.
Ports are any that are free, as several may be up at once. The variable SLURM_HERE_MORE holds more lines of slurm.conf.
With SLURM_HERE_OUTAGE=PATH,SECONDS the controller is ended when the file PATH is there, and started anew after that.
"""

import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "unshare")

CONFIG = """\
ClusterName=here
SlurmctldHost={name}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ReturnToService=2
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AuthInfo=cred_expire=5
KillWait=5
MinJobAge=300
{more}
NodeName={name} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={name} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """The reason for which there can be no SLURM here; None: there can."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(missing)}: not installed"
    done = subprocess.run(
        ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true"], capture_output=True
    )
    return f"namespaces are refused: {done.stderr.decode().strip()}" if done.returncode else None


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens to."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def end_controller(controller: subprocess.Popen, words: list[str], when: Path, seconds: float) -> None:
    """Waits for a file, ends the controller, and starts it anew some seconds later."""
    while not when.exists():
        time.sleep(0.05)
    controller.terminate()
    controller.wait()
    time.sleep(seconds)
    subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> int:
    folder, command = Path(sys.argv[1]).absolute(), sys.argv[2:]
    if os.environ.get("SLURM_HERE") != "inside":
        words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]
        os.environ["SLURM_HERE"] = "inside"
        # one process, so that its end is that of all
        os.execvp(words[0], [*words, __file__, str(folder), *command])  # noqa: S606
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    name = platform.node().partition(".")[0]
    config = folder / "slurm.conf"
    user = os.environ.get("USER") or "root"
    more = os.environ.get("SLURM_HERE_MORE", "")
    cpus = len(os.sched_getaffinity(0))
    ports = free_ports(2)
    config.write_text(CONFIG.format(name=name, user=user, folder=folder, cpus=cpus, more=more, ports=ports))
    os.environ |= {"SLURM_CONF": str(config)}
    daemons = [["slurmctld", "-D", "-f", str(config)], ["slurmd", "-D", "-f", str(config)]]
    with open(folder / "daemons.log", "w") as log:
        controller, _ = [subprocess.Popen(words, stdout=log, stderr=log) for words in daemons]
    if outage := os.environ.get("SLURM_HERE_OUTAGE"):
        path, _, seconds = outage.rpartition(",")
        arguments = (controller, daemons[0], Path(path), float(seconds))
        threading.Thread(target=end_controller, args=arguments, daemon=True).start()
    for _ in range(120):
        said = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True).stdout
        if "idle" in said:
            return subprocess.run(command).returncode
        time.sleep(0.25)
    print(f"SLURM did not come up: {said}\n{(folder / 'slurmctld.log').read_text()[-2000:]}", file=sys.stderr)
    return 99


if __name__ == "__main__":
    sys.exit(main())
