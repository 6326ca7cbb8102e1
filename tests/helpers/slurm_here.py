"""A SLURM of one node in namespaces of its own: `python slurm_here.py FOLDER COMMAND...` runs a command beside it.

Mounts, processes and the host's name are private (unshare), with a /proc of their own, without which slurmstepd cannot
signal; nothing is left on the machine, as controller, node and their files live in FOLDER and end with the namespace.
"""

import os
import platform
import shutil
import subprocess
import sys
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
SlurmctldPort=26817
SlurmdPort=26818
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


def main() -> int:
    folder, command = Path(sys.argv[1]).absolute(), sys.argv[2:]
    if os.environ.get("SLURM_HERE") != "inside":
        words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]
        return subprocess.run(
            [*words, __file__, str(folder), *command], env=os.environ | {"SLURM_HERE": "inside"}
        ).returncode
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    name = platform.node().partition(".")[0]
    config = folder / "slurm.conf"
    user = os.environ.get("USER") or "root"
    more = os.environ.get("SLURM_HERE_MORE", "")
    cpus = len(os.sched_getaffinity(0))
    config.write_text(CONFIG.format(name=name, user=user, folder=folder, cpus=cpus, more=more))
    os.environ |= {"SLURM_CONF": str(config)}
    daemons = [["slurmctld", "-D", "-c", "-f", str(config)], ["slurmd", "-D", "-f", str(config)]]
    with open(folder / "daemons.log", "w") as log:
        for words in daemons:
            subprocess.Popen(words, stdout=log, stderr=log)
    for _ in range(120):
        said = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True).stdout
        if "idle" in said:
            return subprocess.run(command).returncode
        time.sleep(0.25)
    print(f"SLURM did not come up: {said}\n{(folder / 'slurmctld.log').read_text()[-2000:]}", file=sys.stderr)
    return 99


if __name__ == "__main__":
    sys.exit(main())
