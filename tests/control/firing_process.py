"""One pass of a controller in a process of its own, which may be killed between the claim of an instant and the commit.

Arguments: the database's URL, the holder's name (one that begins with `free` asks for no lease), the time, and how
many jobs are made before it stands still (0: never).
"""

from __future__ import annotations

import sys
import time
from typing import Any

from astraml_ray.access.targets import AllowedTargets
from astraml_ray.control import firing
from astraml_ray.control.admission import Capacity
from astraml_ray.control.controller import Reconciler
from astraml_ray.errors import StaleLeaseError, StoreError
from astraml_ray.store.engine import open_store
from tests.control.fake_launcher import FakeLauncher


def main(url: str, holder: str, now: float, stands_still_at: int) -> None:
    """Ticks until told to stop by the end of its input."""
    made = 0
    insert_job = firing.insert_job

    def insert(*arguments: Any, **more: Any) -> Any:
        nonlocal made
        job = insert_job(*arguments, **more)
        made += 1
        if made == stands_still_at:
            # The occurrence's row and the job's are written, and not committed.
            print("claimed", flush=True)
            time.sleep(3600)
        return job

    firing.insert_job = insert
    launcher = FakeLauncher(Capacity(cpus=0.5, gpus=0, free_cpus=0, free_gpus=0))
    store = open_store(url)
    controller = Reconciler(store, launcher, holder=holder, storage="/runs", clock=lambda: now)
    alone = firing.Firing(store, AllowedTargets())
    tick = (lambda: alone.look(now)) if holder.startswith("free") else controller.tick
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(20):
        try:
            tick()
        except StaleLeaseError:
            controller._lease = None  # as run_forever does
        except StoreError as error:
            print(f"store: {error}", file=sys.stderr)
        time.sleep(0.02)
    print(f"made {made}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
