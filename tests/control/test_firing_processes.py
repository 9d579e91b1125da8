"""Controllers in processes of their own at one database, one killed between claim and commit: each instant once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.control.test_firing import HOUR, NOON, Site, postgres, site, template

__all__ = ["postgres", "site", "template"]  # fixtures

ROOT = Path(__file__).parents[2]


def start(site: Site, holder: str, *, stands_still_at: int = 0) -> subprocess.Popen[str]:
    arguments = [site.url, holder, str(site.now), str(stands_still_at)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.control.firing_process", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert said(process) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def test_one_is_killed_between_claim_and_commit_and_two_race_for_the_rest(site: Site) -> None:
    schedules = [site.schedule(overlap="allow", catchup="all") for _ in range(3)]
    site.now = NOON + 5 * HOUR + 1
    doomed = start(site, "doomed", stands_still_at=8)
    # These ask for no lease, as if both were the only one: what makes an instant happen once is its row.
    rivals = [start(site, name) for name in ("free-one", "free-another")]
    try:
        go(doomed)
        assert said(doomed) == "claimed"
        assert len(site.jobs()) == 7, "those before it are committed, and it is not"
        doomed.send_signal(signal.SIGKILL)
        assert doomed.wait() == -signal.SIGKILL
        go(*rivals)
        numbers = [int(said(process).removeprefix("made ")) for process in rivals]
        assert [process.wait() for process in rivals] == [0, 0]
    finally:
        for process in (doomed, *rivals):
            process.kill()
            process.communicate()
    assert sum(numbers) == 18 - 7, "of the killed one's last, nothing was left"
    for made in schedules:
        assert [one.instant for one in site.occurrences(made)] == [NOON + hour * HOUR for hour in range(6)]
    jobs = [str(one.job_id) for made in schedules for one in site.occurrences(made)]
    assert (len(set(jobs)), sorted(jobs)) == (18, sorted(job.id for job in site.jobs()))
