"""Transactions, turns, errors and what survives."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text, update

import astraml_ray.store.engine as engine
from astraml_ray.errors import StoreBusyError, StoreUnavailableError
from astraml_ray.store.engine import Store, database_url, migrate, open_store
from astraml_ray.store.jobs import create_job, find_job, get_job, new_job_id, update_job
from astraml_ray.store.leases import acquire_lease
from astraml_ray.store.tables import jobs
from tests.store.conftest import NOW, new_job
from tests.store.databases import Postgres


def together(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Runs the work in threads that begin at once; the errors it raised."""
    errors: list[BaseException] = []
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_a_write_is_there_afterwards_and_a_failed_one_is_not(store: Store, url: str) -> None:
    kept, lost = new_job(), new_job()

    def fail() -> None:
        with store.write() as conn:
            create_job(conn, lost, now=NOW)
            raise ZeroDivisionError

    create(store, kept.id)
    with pytest.raises(ZeroDivisionError):
        fail()
    again = open_store(url)
    with again.read() as conn:
        assert find_job(conn, kept.id) is not None
        assert find_job(conn, lost.id) is None
    again.close()


def test_a_read_cannot_write(store: Store, job_id: str) -> None:
    with pytest.raises(StoreUnavailableError, match=r"read-?only"), store.read() as conn:
        update_job(conn, job_id, message="x")
    with store.write() as conn:  # nor does it spoil the connection
        update_job(conn, job_id, message="y")
    with store.read() as conn:
        assert get_job(conn, job_id).message == "y"


def test_a_sqlite_write_holds_the_lock_from_the_first_moment(sqlite_store: Store, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "astraml.db", timeout=0, isolation_level=None)
    with sqlite_store.read():
        other.execute("BEGIN IMMEDIATE")
        other.execute("COMMIT")
    with sqlite_store.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()


def test_sqlite_is_set_up_to_survive_a_power_cut(sqlite_store: Store) -> None:
    for open_transaction in (sqlite_store.read, sqlite_store.write):
        with open_transaction() as conn:
            found = [conn.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")]
            assert found == ["wal", 2]
            assert conn.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_reads_go_on_while_another_writes(store: Store, job_id: str) -> None:
    with store.write() as writing:
        update_job(writing, job_id, message="not yet")
        with store.read() as conn:
            assert get_job(conn, job_id).message is None
    with store.read() as conn:
        assert get_job(conn, job_id).message == "not yet"


def test_many_threads_lose_no_write(store: Store, job_id: str) -> None:
    def work(number: int) -> None:
        for _ in range(10):
            with store.write() as conn:
                conn.execute(update(jobs).where(jobs.c.id == job_id).values(priority=jobs.c.priority + 1))

    assert together(16, work) == []
    with store.read() as conn:
        assert get_job(conn, job_id).priority == 160


def test_one_who_waits_too_long_is_told_so(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WAIT_S", 0.2)
    impatient = open_store(url)
    with store.write() as conn:
        create_job(conn, new := new_job(), now=NOW)
        conn.execute(text("UPDATE leases SET token = token"))
        errors = together(1, lambda _: create(impatient, new.id))
    assert [type(error) for error in errors] == [StoreBusyError]
    assert errors[0].retryable  # type: ignore[attr-defined]
    errors = together(1, lambda _: create(impatient, new_job().id))
    assert errors == []
    impatient.close()


def create(store: Store, job_id: str) -> None:
    with store.write() as conn:
        create_job(conn, new_job(id=job_id), now=NOW)


def test_another_process_that_writes_is_waited_for(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_WAIT_S", 0.2)
    impatient = open_store(f"sqlite:///{tmp_path / 'astraml.db'}")
    other = sqlite3.connect(tmp_path / "astraml.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError):
        create(impatient, new_job().id)
    timer = threading.Timer(0.1, lambda: other.execute("COMMIT"))
    timer.start()
    create(sqlite_store, new_job().id)
    timer.join()
    other.close()
    impatient.close()


def test_a_write_inside_a_write_fails_at_once(sqlite_store: Store) -> None:
    with sqlite_store.write(), pytest.raises(RuntimeError, match="inside another"), sqlite_store.write():
        pass
    with sqlite_store.write():
        pass


def test_two_stores_of_one_file_share_their_turns(sqlite_store: Store, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "astraml.db")
    other = open_store(f"sqlite:///{tmp_path / 'link.db'}")
    with sqlite_store.write(), pytest.raises(RuntimeError, match="inside another"), other.write():
        pass
    other.close()


def test_a_writer_that_is_killed_leaves_nothing_behind(sqlite_store: Store, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from astraml_ray.store.engine import open_store\n"
        "from astraml_ray.store.jobs import create_job\n"
        "from tests.store.conftest import NOW, new_job\n"
        "store = open_store(sys.argv[1])\n"
        "with store.write() as conn: create_job(conn, new_job(id='whole'), now=NOW)\n"
        "with store.write() as conn:\n"
        "    create_job(conn, new_job(id='half'), now=NOW)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    url = f"sqlite:///{tmp_path / 'astraml.db'}"
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGKILL)
    create(sqlite_store, "after")
    with sqlite_store.read() as conn:
        assert [find_job(conn, name) is not None for name in ("whole", "half", "after")] == [True, False, True]


def test_a_missing_file_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(StoreUnavailableError, match="unable to open"), store.read():
        pass
    with pytest.raises(StoreUnavailableError, match="unable to open"), store.write():
        pass
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "none.db").write_bytes(b"something else entirely" * 100)
    with (
        pytest.raises(StoreUnavailableError, match="not a database"),
        open_store(f"sqlite:///{tmp_path / 'none.db'}").read() as conn,
    ):
        find_job(conn, "x")
    with pytest.raises(StoreUnavailableError, match="not a database"):
        migrate(f"sqlite:///{tmp_path / 'none.db'}")


def test_a_full_disk_is_an_error_that_loses_only_that_write(sqlite_store: Store) -> None:
    with sqlite_store.write() as conn:
        pages = conn.execute(text("PRAGMA page_count")).scalar()
        conn.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StoreUnavailableError, match="full"), sqlite_store.write() as conn:
        create_job(conn, new_job(spec={"x": "y" * 100_000}), now=NOW)
    with sqlite_store.write() as conn:
        conn.execute(text("PRAGMA max_page_count = 1000000"))
    create(sqlite_store, new_job_id(NOW))


def test_tables_that_are_missing_lead_to_the_migration(tmp_path: Path, postgres: Postgres) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    empty = postgres.empty()
    for url in (f"sqlite:///{tmp_path / 'empty.db'}", empty):
        store = open_store(url)
        with pytest.raises(StoreUnavailableError, match="lacks tables") as caught, store.read() as conn:
            find_job(conn, "x")
        assert "astraml up" in str(caught.value.hint)
        store.close()
    postgres.drop(empty)


def test_a_server_that_is_away_is_an_error_without_the_password() -> None:
    store = open_store("postgresql://someone:hush@127.0.0.1:9/none")
    with pytest.raises(StoreUnavailableError) as caught, store.read():
        pass
    assert "hush" not in str(caught.value)
    with pytest.raises(StoreUnavailableError) as caught:
        migrate("postgresql://someone:hush@127.0.0.1:9/none")
    assert "hush" not in str(caught.value)


def test_connections_that_broke_while_idle_are_replaced(store: Store, postgres: Postgres, job_id: str) -> None:
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with store.write() as conn:
        update_job(conn, job_id, message="x")


def test_a_connection_that_breaks_in_a_transaction_is_an_error(postgres: Postgres, postgres_url: str) -> None:
    store = open_store(postgres_url)

    def work() -> None:
        with store.write() as conn:
            pid = conn.execute(text("SELECT pg_backend_pid()")).scalar()
            postgres.execute(f"SELECT pg_terminate_backend({pid})")
            create_job(conn, new_job(), now=NOW)

    with pytest.raises(StoreUnavailableError):
        work()
    assert acquire_lease(store, "x", "y", ttl_s=1, now=NOW) is not None
    store.close()
    postgres.clear(postgres_url)


@pytest.mark.parametrize(
    "url", ["", "what", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg://x"]
)
def test_urls_of_no_supported_database(url: str) -> None:
    with pytest.raises(StoreUnavailableError):
        database_url(url)


def test_postgres_gets_its_driver() -> None:
    for given in ("postgresql://a:b@c/d", "postgresql+psycopg://a:b@c/d"):
        url = database_url(given)
        assert (url.drivername, url.password, url.database) == ("postgresql+psycopg", "b", "d")
