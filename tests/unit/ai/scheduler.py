"""A scheduler of one JSON file, as docs/commands.md wants it:  python scheduler.py FILE (status | pause | resume | checkpoint) ...

FILE holds nodes, jobs, paused, admission_held_by and until (mark -> Unix seconds). Used by tests and as an example.
"""

import fcntl
import json
import sys
import time
from pathlib import Path


def main(path: str, verb: str, *arguments: str) -> None:
    file = Path(path)
    with Path(f"{path}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = json.loads(file.read_text())
        for mark, until in list(state["until"].items()):
            if time.time() >= until:
                give_back(state, mark)
        if verb == "status":
            print(json.dumps(state))
        elif verb == "pause":
            pause(state, *arguments)
        elif verb == "resume":
            give_back(state, arguments[0])
        elif verb == "checkpoint":
            print("\n".join(job for job in arguments[1:] if job not in state.get("deaf", [])))
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.replace(file)


def pause(state: dict, mark: str, until: str, kind: str, *names: str) -> None:
    state["until"][mark] = float(until)
    if kind == "admission":
        state["admission_held_by"] = state["admission_held_by"] or mark
    for node in state["nodes"]:
        if kind == "node" and node["name"] in names:
            node["held_by"] = node["held_by"] or mark
    for job in [j for j in state["jobs"] if kind == "job" and j["id"] in names]:
        state["jobs"].remove(job)
        state["paused"].append({"id": job["id"], "held_by": mark, "job": job})
        busy(state, job, -1)


def give_back(state: dict, mark: str) -> None:
    state["until"].pop(mark, None)
    state["admission_held_by"] = "" if state["admission_held_by"] == mark else state["admission_held_by"]
    for node in state["nodes"]:
        node["held_by"] = "" if node["held_by"] == mark else node["held_by"]
    for paused in [p for p in state["paused"] if p["held_by"] == mark]:
        state["paused"].remove(paused)
        state["jobs"].append(paused["job"])
        busy(state, paused["job"], 1)


def busy(state: dict, job: dict, sign: int) -> None:
    for node in state["nodes"]:
        if node["name"] in job["nodes"]:
            node["busy_gpus"] += sign * job["gpus"] // len(job["nodes"])


if __name__ == "__main__":
    main(*sys.argv[1:])
