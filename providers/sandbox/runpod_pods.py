"""The pods of the sandbox's RunPod: rented, running, stopped, gone, and what each has been billing for.

Each is a file that is replaced as a whole; one that is gone is kept for its bill. Machines do not outlive the server:
what it had rented has exited when the next one starts, as after a crash of its host.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from providers.sandbox.faults import Fault, parse_faults
from providers.sandbox.machines import Machine

MachineMaker = Callable[[Path, str, Mapping[str, str], str | None], Machine]

OWN_KEY = "pod-"
"""How a pod's own key begins; its id follows."""

KEPT_SECONDS = 31 * 86400.0
DIES_AFTER_SECONDS = 1.0
_ACTIONS = {
    "RUNNING": ["stop", "restart", "terminate"],
    "EXITED": ["start", "terminate"],
    "ERROR": ["start", "terminate"],
    "TERMINATED": [],
}


@dataclass(frozen=True)
class RentedPod:
    """One pod. Times are Unix seconds; `billing` are the spans it was billed for, the last without an end while it is.

    `status` is RunPod's word; TERMINATED is what no list shows any more.
    """

    pod_id: str
    name: str
    body: dict[str, Any]
    usd_per_hour: float
    created_at: float
    faults: tuple[str, ...] = ()
    status: str = "PROVISIONING"
    started_at: float | None = None
    billing: tuple[tuple[float, float | None], ...] = ()

    @property
    def actions(self) -> list[str]:
        return _ACTIONS.get(self.status, ["stop", "terminate"])

    @property
    def is_billing(self) -> bool:
        return bool(self.billing) and self.billing[-1][1] is None

    def billed_seconds(self, since: float, until: float) -> float:
        """For how long it was billed within a span."""
        now = time.time()
        spans = [(began, now if ended is None else ended) for began, ended in self.billing]
        return sum(max(0.0, min(ended, until) - max(began, since)) for began, ended in spans)


class Pods:
    """All pods. `own_url` is where a machine reaches this very part; `machine` makes one of a disk's folder, the
    container's `args` and variables, and what its trainer is to do wrong."""

    def __init__(self, folder: Path, own_url: Callable[[], str], machine: MachineMaker = Machine) -> None:
        self._folder = folder
        self._own_url = own_url
        self._make_machine = machine
        self._pods: dict[str, RentedPod] = {}
        self._machines: dict[str, Machine] = {}
        self._lock = threading.RLock()

    def load(self) -> None:
        """Take up what an earlier server left."""
        (self._folder / "disks").mkdir(parents=True, exist_ok=True, mode=0o700)
        for disk in (self._folder / "disks").iterdir():
            if disk.is_dir():
                shutil.rmtree(disk, ignore_errors=True)
            elif time.time() - disk.stat().st_mtime > KEPT_SECONDS:
                disk.unlink(missing_ok=True)
        known = {one.name for one in fields(RentedPod)}
        for path in self._folder.glob("*.json"):
            raw = {name: value for name, value in json.loads(path.read_text()).items() if name in known}
            spans = tuple((began, ended) for began, ended in raw["billing"])
            pod = RentedPod(**{**raw, "faults": tuple(raw["faults"]), "billing": spans})
            if time.time() - pod.created_at > KEPT_SECONDS:
                path.unlink(missing_ok=True)
                continue
            self._pods[pod.pod_id] = pod
            if pod.status not in ("EXITED", "TERMINATED"):
                self._change(pod.pod_id, status="EXITED", billing=_closed(pod))

    def close(self) -> None:
        """End every machine; their pods have exited when the next server looks."""
        with self._lock:
            machines, self._machines = list(self._machines.values()), {}
        for machine in machines:
            machine.end()

    def ever(self) -> list[RentedPod]:
        """Every pod of the last month, those that are gone included."""
        with self._lock:
            return list(self._pods.values())

    def there(self) -> list[RentedPod]:
        """Every pod that a list shows."""
        return [pod for pod in self.ever() if pod.status != "TERMINATED"]

    def find(self, pod_id: str) -> RentedPod | None:
        """A pod that is there."""
        pod = self._pods.get(pod_id)
        return pod if pod is not None and pod.status != "TERMINATED" else None

    def uptime_seconds(self, pod: RentedPod) -> float | None:
        """How long its container runs, a little more than nothing at least; None while it does not."""
        machine = self._machines.get(pod.pod_id)
        if pod.status != "RUNNING" or machine is None or machine.began_at is None:
            return None
        return max(0.01, time.time() - machine.began_at)

    def rent(self, body: dict[str, Any], usd_per_hour: float, faults: tuple[str, ...]) -> RentedPod:
        """A new pod, billing from now; its machine starts in the background."""
        now = time.time()
        pod = RentedPod(
            pod_id=secrets.token_hex(7),
            name=body["name"],
            body=body,
            usd_per_hour=usd_per_hour * int(body["gpu"].get("count", 1)),
            created_at=now,
            faults=faults,
            billing=((now, None),),
        )
        with self._lock:
            self._pods[pod.pod_id] = pod
            self._write(pod)
        self._boot_machine(pod)
        return pod

    def end(self, pod_id: str) -> None:
        """Delete a pod for good."""
        self._halt(pod_id, "TERMINATED")

    def exit(self, pod_id: str) -> RentedPod:
        """Stop a pod: its machine goes, and bills no more."""
        return self._halt(pod_id, "EXITED")

    def boot(self, pod_id: str) -> RentedPod:
        """Start a stopped pod again."""
        pod = self._pods[pod_id]
        self._change(pod_id, status="STARTING", billing=(*_closed(pod), (time.time(), None)))
        self._boot_machine(self._pods[pod_id])
        return self._pods[pod_id]

    def _halt(self, pod_id: str, status: str) -> RentedPod:
        with self._lock:
            machine = self._machines.pop(pod_id, None)
            self._change(pod_id, status=status, billing=_closed(self._pods[pod_id]))
        if machine is not None:
            # Not while somebody waits for the answer: it may be that machine itself.
            threading.Thread(target=machine.end, daemon=True).start()
        return self._pods[pod_id]

    def _boot_machine(self, pod: RentedPod) -> None:
        drawn = {fault.kind: fault for text in pod.faults for fault in parse_faults(text)}
        self._change(pod.pod_id, status="STARTING")
        if "stay_queued" in drawn:
            return
        own = {
            "RUNPOD_POD_ID": pod.pod_id,
            "RUNPOD_API_KEY": OWN_KEY + pod.pod_id,
            "RUNPOD_GPU_COUNT": str(pod.body["gpu"].get("count", 1)),
            "RUNPOD_DC_ID": "SANDBOX-1",
            "ONMODEL_RUNPOD_URL": self._own_url(),
        }
        env = {**pod.body.get("env", {}), **own}
        disk = self._folder / "disks" / pod.pod_id
        machine = self._make_machine(disk, pod.body.get("args", ""), env, _trainer_fault(drawn))
        with self._lock:
            self._machines[pod.pod_id] = machine
        machine.start(lambda: self._is_up(pod.pod_id))
        if "freeze" in drawn:
            machine.freeze()
        if "fail" in drawn:
            timer = threading.Timer(DIES_AFTER_SECONDS, self._die, [pod.pod_id])
            timer.daemon = True
            timer.start()

    def _is_up(self, pod_id: str) -> None:
        with self._lock:
            if self._pods[pod_id].status in ("STARTING", "RUNNING"):
                self._change(pod_id, status="RUNNING", started_at=time.time())

    def _die(self, pod_id: str) -> None:
        if self.find(pod_id) is not None:
            self.exit(pod_id)

    def _change(self, pod_id: str, **facts: Any) -> None:
        with self._lock:
            self._pods[pod_id] = replace(self._pods[pod_id], **facts)
            self._write(self._pods[pod_id])

    def _write(self, pod: RentedPod) -> None:
        draft = self._folder / f"{pod.pod_id}.tmp"
        draft.write_text(json.dumps(asdict(pod)))
        draft.rename(self._folder / f"{pod.pod_id}.json")


def moment(seconds: float | None) -> str | None:
    """Unix seconds as RunPod writes times."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _closed(pod: RentedPod) -> tuple[tuple[float, float | None], ...]:
    if not pod.is_billing:
        return pod.billing
    return (*pod.billing[:-1], (pod.billing[-1][0], time.time()))


def _trainer_fault(drawn: dict[str, Fault]) -> str | None:
    """What its trainer is to do wrong, in the words of the stand-in programs."""
    if "trainer" in drawn:
        return drawn["trainer"].argument or "crash"
    if "no_file" in drawn:
        return "no_file"
    if "never_ends" in drawn:
        return "slow:86400"
    return f"slow:{drawn['slow'].number(5):g}" if "slow" in drawn else None
