"""What models cost: ten million events to daily numbers, against the bare SQL, dbt and SQLMesh.

    python -m benchmarks.models [--events 10000000] [--runs 5] [--only omni,bare,dbt,sqlmesh] [--work FOLDER]

The same model (`benchmarks/peers/*`: events, exact and approximate distinct users and a sum by day, tenant
and name; not-null checks of the three keys) on the same events of 30 days, in one DuckDB file per tool.
Measured, each in a process of its own, in turn: building everything, against the SELECT alone, once without
what starting and importing costs and once as a command from start to finish; then the command that refreshes
one day whose events have changed. Prints wall seconds, CPU seconds of the process and its children (minimum
of the runs) and peak memory. After each step all sides must hold equal tables. Ends with a day corrected
late: only its window may be built, all other days must keep their content.

dbt and SQLMesh are installed into environments of their own below the work folder (by uv, from the package
index); a side that cannot be installed is left out aloud.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

PEERS = Path(__file__).parent / "peers"
FIRST = date(2026, 10, 1)
DAYS = 30
LAST = FIRST + timedelta(days=DAYS - 1)
SIDES = ("omni", "bare", "dbt", "sqlmesh")
INSTALL = {
    "dbt": ["dbt-core<1.12", "dbt-duckdb>=1.11,<1.12", f"duckdb=={duckdb.__version__}"],
    "sqlmesh": ["sqlmesh==0.236.*"],
}
EVENTS = """
CREATE OR REPLACE TABLE raw.bench_events AS SELECT
    i AS event_id,
    TIMESTAMP '{first}' + to_microseconds(CAST(floor(i * ({days} * 86400000000 / {events})) AS BIGINT))
        AS occurred_at,
    'tenant_' || lpad(
        CAST(CAST(floor(200 * power((hash(i * 7 + 1) % 1000003) / 1000003.0, 2)) AS INT) AS VARCHAR), 3, '0'
    ) AS tenant_id,
    'event_' || (hash(i * 13 + 5) % 12) AS event_name,
    CAST(floor(500000 * power((hash(i * 17 + 3) % 1000003) / 1000003.0, 1.5)) AS BIGINT) AS user_id,
    CAST((hash(i * 19 + 11) % 10000) / 100.0 AS DECIMAL(18, 2)) AS amount
FROM range({events}) AS r(i)
"""
OMNI = str(Path(sys.executable).with_name("omni"))


@dataclass(frozen=True)
class Cost:
    """One command, start to finish."""

    wall: float
    cpu: float
    peak_mib: float

    def __str__(self) -> str:
        return f"{self.wall:6.2f} s wall {self.cpu:6.2f} s CPU {self.peak_mib:6.0f} MiB"


def command(words: list[str], environment: dict[str, str], folder: Path) -> Cost:
    """Run a command to its end; its CPU time includes that of the processes it started and waited for."""
    log = folder / "command.log"
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{log.read_text(errors='replace')[-3000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def least(costs: list[Cost]) -> Cost:
    """The smallest of each figure, and the largest memory."""
    return Cost(min(c.wall for c in costs), min(c.cpu for c in costs), max(c.peak_mib for c in costs))


@dataclass(frozen=True)
class Bench:
    """The work folder and what lies in it."""

    work: Path
    events: int

    @property
    def ours(self) -> Path:
        """Our warehouse's file."""
        return self.work / "state" / "tenants" / "bench" / "warehouse.duckdb"

    def file(self, side: str) -> Path:
        """The DuckDB file of a side."""
        return self.ours if side == "omni" else self.work / f"{side}_warehouse.duckdb"

    def environment(self, side: str) -> dict[str, str]:
        """What a side's commands need to know."""
        known = {
            "OMNI_HOME": str(self.work / "state"),
            "OMNI_DATA": str(PEERS / "omni"),
            "OMNI_SECRET_KEY": "a key for benchmarks, long enough to pass",
            "BENCH_WAREHOUSE": str(self.file(side)),
            "DO_NOT_TRACK": "1",
            "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
        }
        return os.environ | known

    def program(self, side: str) -> str:
        """A tool's command in its own environment."""
        return str(self.work / f"venv-{side}" / "bin" / side)


def prepare(bench: Bench, sides: list[str]) -> list[str]:
    """Make events and install the peers; the sides that can run."""
    bench.work.mkdir(parents=True, exist_ok=True)
    if not bench.ours.exists():
        code = (
            "from omni import tenancy; from omni.warehouse.database import open_warehouse\n"
            "with open_warehouse(tenancy.get('bench')) as w: w.cursor().execute('SELECT 1')"
        )
        command([sys.executable, "-c", code], bench.environment("omni"), bench.work)
        with duckdb.connect(bench.ours) as con:
            con.execute(EVENTS.format(first=FIRST, days=DAYS, events=bench.events))
    usable = []
    for side in sides:
        if side in INSTALL and not _installed(bench, side):
            print(f"{side}: not installed, left out")
            continue
        if not bench.file(side).exists():
            with duckdb.connect(bench.file(side)) as con:
                con.execute(f"ATTACH '{bench.ours}' AS ours (READ_ONLY)")
                con.execute("CREATE SCHEMA raw; CREATE SCHEMA marts")
                con.execute("CREATE TABLE raw.bench_events AS FROM ours.raw.bench_events")
        if side in INSTALL and not (bench.work / side).exists():
            shutil.copytree(PEERS / side, bench.work / side)
        usable.append(side)
    return usable


def _installed(bench: Bench, side: str) -> bool:
    if Path(bench.program(side)).exists():
        return True
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    venv = bench.work / f"venv-{side}"
    for words in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(venv)],
        [uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), *INSTALL[side]],
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr[-500:])
            return False
    return True


def build_only(bench: Bench, side: str) -> Cost:
    """Building the whole table, from the open file to the closed one."""
    words = [sys.executable, "-m", "benchmarks.models", "--child", side, "--work", str(bench.work)]
    done = subprocess.run(words, env=bench.environment(side), capture_output=True, text=True, check=True)
    return Cost(**json.loads(done.stdout))


def child(bench: Bench, side: str) -> None:
    """Build in this process and print the cost."""
    from omni import tenancy
    from omni.catalogue.project import all_models
    from omni.warehouse.build import build_models
    from omni.warehouse.database import open_warehouse

    if side == "bare":
        with duckdb.connect(bench.file(side)) as con:
            con.execute("SELECT 1")
            begun = _clock()
            con.execute("DROP TABLE IF EXISTS marts.usage_daily")
            con.execute(f"CREATE TABLE marts.usage_daily AS {_bare_sql()}")
    else:
        models = all_models()
        with open_warehouse(tenancy.get("bench")) as warehouse:
            with warehouse.transaction() as write:
                write.execute("DELETE FROM ops.models")
            begun = _clock()
            build_models(warehouse, models, run_id="bench")
    wall, cpu = (now - then for now, then in zip(_clock(), begun, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "peak_mib": peak}))


def _clock() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def _bare_sql() -> str:
    return (PEERS / "omni" / "models" / "marts" / "usage_daily.sql").read_text().partition("*/")[2]


def build_all(bench: Bench, side: str) -> Cost:
    """The command that builds the whole table anew."""
    environment = bench.environment(side)
    if side == "omni":
        return command([OMNI, "models", "run", "-c", "bench", "--full", "--quiet"], environment, bench.work)
    if side == "bare":
        code = (
            "import duckdb, sys\nwith duckdb.connect(sys.argv[1]) as con:\n"
            "    con.execute('CREATE OR REPLACE TABLE marts.usage_daily AS ' + sys.argv[2])"
        )
        words = [sys.executable, "-c", code, environment["BENCH_WAREHOUSE"], _bare_sql()]
        return command(words, environment, bench.work)
    if side == "dbt":
        words = ["build", "--full-refresh", "--select", "usage_daily", "--profiles-dir", "."]
        return command([bench.program(side), *words], environment, bench.work / side)
    words = ["plan", "--auto-apply", "--no-prompts", "--skip-tests"]
    if _has_state(bench):
        words += ["--restate-model", "marts.usage_daily", "--start", str(FIRST), "--end", str(LAST)]
    return command([bench.program(side), *words], environment, bench.work / side)


def _has_state(bench: Bench) -> bool:
    with duckdb.connect(bench.file("sqlmesh"), read_only=True) as con:
        row = con.execute("SELECT count(*) FROM duckdb_schemas() WHERE schema_name = 'sqlmesh'").fetchone()
    return bool(row and row[0])


def refresh_day(bench: Bench, side: str, day: date) -> Cost:
    """The command that brings one day up to date, after its events changed."""
    environment = bench.environment(side)
    _change(bench, side, day)
    if side == "omni":
        return command([OMNI, "models", "run", "-c", "bench", "--quiet"], environment, bench.work)
    if side == "dbt":
        given = json.dumps({"since": str(day), "until": str(day + timedelta(days=1))})
        words = ["build", "--select", "usage_daily", "--vars", given, "--profiles-dir", "."]
        return command([bench.program(side), *words], environment, bench.work / side)
    words = ["plan", "--auto-apply", "--no-prompts", "--skip-tests", "--restate-model", "marts.usage_daily"]
    words += ["--start", str(day), "--end", str(day)]
    return command([bench.program(side), *words], environment, bench.work / side)


def _change(bench: Bench, side: str, day: date) -> None:
    """Correct some of a day's events, as a load would; ours records which day it touched."""
    sql = (
        "UPDATE raw.bench_events SET amount = amount + 1, user_id = user_id + 1 "
        f"WHERE occurred_at >= TIMESTAMP '{day}' AND occurred_at < TIMESTAMP '{day + timedelta(days=1)}' "
        "AND event_id % 10 = 0"
    )
    with duckdb.connect(bench.file(side)) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.begin()
        con.execute(sql)
        if side == "omni":
            from omni.warehouse.versions import record_change

            record_change(con, "raw.bench_events", [day], run_id="load")
        con.commit()


def contents(bench: Bench, side: str) -> dict[date, tuple[int, int]]:
    """Rows and content of every day of a side's table; tables of all sides must agree."""
    table = "main.usage_daily" if side == "dbt" else "marts.usage_daily"
    with duckdb.connect(bench.file(side), read_only=True) as con:
        rows = con.execute(
            "SELECT event_date, count(*), CAST(sum(hash(event_date, tenant_id, event_name, events, users, "
            f"amount)::HUGEINT) % 1000000007 AS BIGINT) FROM {table} GROUP BY 1"
        ).fetchall()
    return {day: (count, content) for day, count, content in rows}


def late_day(bench: Bench) -> None:
    """A correction nine days back builds that day's window and leaves every other day as it was."""
    day = LAST - timedelta(days=9)
    before = contents(bench, "omni")
    refresh_day(bench, "omni", day)
    after = contents(bench, "omni")
    changed = sorted(d for d in after if after[d] != before.get(d))
    with duckdb.connect(bench.ours, read_only=True) as con:
        built = con.execute(
            "SELECT window_start FROM ops.windows WHERE run_id = (SELECT run_id FROM ops.models)"
        ).fetchall()
    if changed != [day] or built != [(day,)]:
        raise SystemExit(f"correcting {day} changed {changed} and built {built}")
    print(f"late day: {day} corrected; 1 window built, {len(after) - 1} days unchanged by hash")


def measure(bench: Bench, sides: list[str], runs: int) -> None:
    """Measure in turn, so that a busy moment hits every side alike, and compare the tables."""
    steps: list[tuple[str, list[str], Callable[[str], Cost]]] = [
        ("build alone", [s for s in sides if s in ("omni", "bare")], lambda side: build_only(bench, side)),
        ("full build", sides, lambda side: build_all(bench, side)),
        (
            "one day",
            [s for s in sides if s != "bare"],
            lambda side: refresh_day(bench, side, LAST - timedelta(days=1)),
        ),
    ]
    for title, taking, step in steps:
        costs: dict[str, list[Cost]] = {side: [] for side in taking}
        for _ in range(runs):
            for side in taking:
                costs[side].append(step(side))
        best = {side: least(costs[side]) for side in taking}
        for side, cost in best.items():
            print(f"{title:12s} {side:8s} {cost}", end="")
            print(
                f"   x{cost.wall / best['omni'].wall:.2f} wall x{cost.cpu / best['omni'].cpu:.2f} CPU of ours"
            )
        tables = {side: contents(bench, side) for side in taking}
        if any(table != tables[taking[0]] for table in tables.values()):
            raise SystemExit(f"after {title} the tables differ")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=",".join(SIDES))
    parser.add_argument("--work", type=Path, help="kept for the next time; a temporary folder by default")
    parser.add_argument("--child", choices=("omni", "bare"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(Bench(chosen.work, chosen.events), chosen.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench((chosen.work or Path(temporary)).resolve(), chosen.events)
        sides = prepare(bench, [side for side in SIDES if side in chosen.only.split(",")])
        measure(bench, sides, chosen.runs)
        late_day(bench)


if __name__ == "__main__":
    main()
