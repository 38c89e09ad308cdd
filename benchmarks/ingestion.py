"""What loading costs: 200,000 nested contacts and then 20,000 changed ones, against dlt on the same pages.

    uv sync --group bench && python -m benchmarks.ingestion [--contacts 200000] [--runs 3]

Both sides read the same pages of JSON from a file (30 properties, 0 to 3 associations each, seeded), in a
process of their own, in turn, and load them into a fresh DuckDB with a typed parent and a child table: first
all contacts, then a tenth as many, half changed and half new, merged by key. dlt runs with Parquet files,
which it recommends, as it stands and with type hints on flattened records; the faster one counts. Each side
first loads a hundred contacts elsewhere, so that imports are not counted. Both end with the same rows, which
is checked. Prints CPU seconds, wall seconds, peak memory and the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

TEXT = [
    "email",
    "firstname",
    "lastname",
    "phone",
    "company",
    "jobtitle",
    "city",
    "state",
    "zip",
    "country",
    "address",
    "website",
    "hs_email_domain",
    "message",
    "lifecyclestage",
    "hs_lead_status",
    "hs_analytics_source",
    "industry",
    "hs_persona",
]
NUMBERS = [
    "annualrevenue",
    "hs_analytics_num_visits",
    "num_associated_deals",
    "hubspotscore",
    "days_to_close",
]
MOMENTS = ["createdate", "lastmodifieddate", "hs_last_sales_activity_timestamp"]
TRUTHS = ["hs_is_unworked", "hs_email_optout"]
PROPERTIES = [*TEXT, *NUMBERS, *MOMENTS, *TRUTHS, "hs_object_id"]
WORDS = ["ada", "grace", "alan", "edsger", "barbara", "donald", "radia", "tim", "linus", "margaret"]
PAGE = 100
START = datetime(2020, 1, 1, tzinfo=UTC)


def _moment(rng: random.Random) -> str:
    when = START + timedelta(milliseconds=rng.randrange(6 * 365 * 86_400_000))
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def _contact(number: int, rng: random.Random, *, changed: bool) -> dict[str, Any]:
    values: dict[str, str | None] = {}
    for name in PROPERTIES:
        if name not in ("hs_object_id", "createdate", "lastmodifieddate") and rng.random() < 0.25:
            values[name] = None
        elif name == "hs_object_id":
            values[name] = str(number)
        elif name == "email":
            values[name] = f"{rng.choice(WORDS)}{number}@example.com"
        elif name in NUMBERS:
            values[name] = f"{rng.random() * 1e5:.2f}"
        elif name in MOMENTS:
            values[name] = _moment(rng)
        elif name in TRUTHS:
            values[name] = rng.choice(("true", "false"))
        else:
            values[name] = f"{rng.choice(WORDS)}{rng.randrange(10_000)}"
    if changed:
        year, rest = str(values["lastmodifieddate"]).split("-", 1)
        values["lastmodifieddate"] = f"{int(year) + 8}-{rest}"
    links = sorted({rng.randrange(1, 20_001) for _ in range(rng.randint(0, 3))})
    return {
        "id": str(number),
        "properties": values,
        "createdAt": values["createdate"],
        "updatedAt": values["lastmodifieddate"],
        "archived": False,
        "associations": {
            "companies": {"results": [{"id": str(n), "type": "contact_to_company"} for n in links]}
        },
    }


def make_pages(path: Path, first: int, count: int, seed: int, *, changed: bool = False) -> None:
    """Write `count` contacts with ids from `first`, 100 a line; `changed` ones eight years later."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for start in range(first, first + count, PAGE):
            page = [_contact(n, rng, changed=changed) for n in range(start, min(start + PAGE, first + count))]
            file.write(json.dumps({"results": page}) + "\n")


def pages(path: Path) -> Iterator[bytes]:
    """A file's pages as they would arrive."""
    with path.open("rb") as file:
        yield from file


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak() -> int:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own.ru_maxrss, children.ru_maxrss) // 1024


CONTRACT = """
table: raw.hubspot__contacts
description: the benchmark's contacts
owner: b@example.com
grain: one row per contact
key: [id]
source: {vendor: hubspot, object: contacts, cursor: lastmodifieddate}
columns:
  id: {type: string, nullable: false}
"""
CHILD = """
table: raw.hubspot__contact_companies
description: the benchmark's links
owner: b@example.com
grain: one row per link
key: [contact_id, company_id]
parent: raw.hubspot__contacts
parent_key: contact_id
source: {vendor: hubspot, object: contacts, rows: associations.companies}
columns:
  contact_id: {type: string, nullable: false, from: ^.id}
  company_id: {type: string, nullable: false, from: id}
"""
TENANT = "tenant: bench\ntitle: Bench\ntimezone: UTC\ncurrency: EUR\nsources: {hubspot: [contacts]}\n"


def _declare(folder: Path) -> None:
    """The project's own declarations for the benchmark's two tables, under `folder`."""
    kinds = dict.fromkeys(TEXT, "string") | dict.fromkeys(NUMBERS, "float")
    kinds |= (
        dict.fromkeys(MOMENTS, "timestamp") | dict.fromkeys(TRUTHS, "boolean") | {"hs_object_id": "integer"}
    )
    columns = "".join(f"  {name}: {{type: {kind}}}\n" for name, kind in kinds.items())
    for path, text in (
        ("contracts/raw/contacts.yml", CONTRACT + columns),
        ("contracts/raw/links.yml", CHILD),
        ("tenants/bench.yml", TENANT),
        ("tenants/warm.yml", TENANT.replace("tenant: bench", "tenant: warm")),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def child_omni(folder: Path) -> list[dict[str, float]]:
    """Type, stage and merge as a night does; only the pages come from a file."""
    _declare(folder / "data")
    os.environ |= {"OMNI_DATA": str(folder / "data"), "OMNI_HOME": str(folder / "state")}
    from contextlib import nullcontext
    from dataclasses import replace

    from pydantic import SecretStr

    from omni import tenancy
    from omni.sources import hubspot
    from omni.sources.connection import Connection
    from omni.sources.extract import tables
    from omni.sources.http import decode
    from omni.sources.hubspot_links import attach
    from omni.sources.hubspot_objects import flat
    from omni.sources.reading import Reading
    from omni.sources.vendor import Page, Window
    from omni.warehouse.database import open_warehouse
    from omni.warehouse.load import load

    def read(path: Path, *_: Any) -> Iterator[Page]:
        for raw in pages(path):
            results = decode(raw, "application/json")[0]["results"]
            records = [flat(result, "benchmark") for result in results]
            attach(
                records,
                "companies",
                {
                    r["id"]: [link["id"] for link in r["associations"]["companies"]["results"]]
                    for r in results
                },
            )
            yield Page(records)

    steps = []
    for name, owner in (("warm", "warm"), ("load", "bench"), ("upsert", "bench")):
        tenant = tenancy.get(owner)
        started, cpu = time.perf_counter(), _cpu()
        path = folder / f"{name}.ndjson"
        vendor = replace(
            hubspot.VENDOR, open=lambda _, p=path: nullcontext(p), read=read, fields=None,
            check=lambda *_: [], count=lambda *_: None,
        )  # fmt: skip
        since = START if name == "upsert" else None
        window = Window(since, datetime(2100, 1, 1, tzinfo=UTC))
        reading = Reading(
            tenant,
            vendor,
            "contacts",
            tables("hubspot", "contacts"),
            folder / f"staged-{name}",
            window,
            name,
            True,
        )
        staged = reading.run(Connection("hubspot", "http://unused.example", SecretStr("unused")))
        with open_warehouse(tenant) as warehouse:
            load(warehouse, staged)
        steps.append({"cpu": _cpu() - cpu, "wall": time.perf_counter() - started, "peak": _peak()})
    with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
        steps.append(
            _digest(con, "raw.hubspot__contacts", "raw.hubspot__contact_companies", "contact_id, company_id")
        )
    return steps[1:]


def child_dlt(folder: Path, hints: bool) -> list[dict[str, float]]:
    """dlt with Parquet files and merge; `hints` flattens the records and gives the types."""
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
    os.environ["DLT_DATA_DIR"] = str(folder)
    import dlt
    import duckdb
    import orjson

    kinds = dict.fromkeys(NUMBERS, "double") | dict.fromkeys(MOMENTS, "timestamp")
    kinds |= dict.fromkeys(TRUTHS, "bool") | {"hs_object_id": "bigint"}

    def flattened(path: Path) -> Iterator[list[dict[str, Any]]]:
        for raw in pages(path):
            yield [
                {
                    **r["properties"],
                    "id": r["id"],
                    "companies": [{"id": c["id"]} for c in r["associations"]["companies"]["results"]],
                }
                for r in orjson.loads(raw)["results"]
            ]

    def nested(path: Path) -> Iterator[list[dict[str, Any]]]:
        for raw in pages(path):
            yield orjson.loads(raw)["results"]

    steps = []
    for name, owner in (("warm", "warm"), ("load", "peer"), ("upsert", "peer")):
        started, cpu = time.perf_counter(), _cpu()
        pipeline = dlt.pipeline(
            owner,
            pipelines_dir=str(folder),
            destination=dlt.destinations.duckdb(str(folder / f"{owner}.duckdb")),
            dataset_name="hs",
        )
        source = (flattened if hints else nested)(folder / f"{name}.ndjson")
        resource_ = dlt.resource(
            source,
            name="contacts",
            primary_key="id",
            write_disposition={"disposition": "merge", "strategy": "delete-insert"},
            columns={k: {"data_type": v} for k, v in kinds.items()} if hints else None,
        )
        pipeline.run(resource_, loader_file_format="parquet")
        steps.append({"cpu": _cpu() - cpu, "wall": time.perf_counter() - started, "peak": _peak()})
    prefix = "" if hints else "properties__"
    link = "companies" if hints else "associations__companies__results"
    with duckdb.connect(folder / "peer.duckdb") as con:
        con.execute(
            f"CREATE VIEW links AS SELECT p.id AS contact_id, c.id AS company_id FROM hs.contacts__{link} c "
            "JOIN hs.contacts p ON p._dlt_id = c._dlt_parent_id"
        )
        steps.append(_digest(con, "hs.contacts", "links", "contact_id, company_id", prefix))
    return steps[1:]


def _digest(con: Any, parent: str, child: str, link: str, prefix: str = "") -> dict[str, Any]:
    """Rows and an order-free hash of what both sides must hold alike."""
    values = [f"{prefix}{name}::VARCHAR" for name in TEXT]
    values += [f"{prefix}{name}::DOUBLE" for name in NUMBERS]
    values += [f"{prefix}{name}::TIMESTAMPTZ" for name in MOMENTS]
    values += [f"{prefix}{name}::BOOLEAN" for name in TRUTHS]
    sql = f"SELECT count(*), sum(hash(row(id, {', '.join(values)}))::HUGEINT)::VARCHAR FROM {parent}"
    links = f"SELECT count(*), sum(hash(row({link}))::HUGEINT)::VARCHAR FROM {child}"
    return {"contacts": con.execute(sql).fetchone(), "links": con.execute(links).fetchone()}


SIDES = ("omni", "dlt parquet", "dlt parquet, hints")


def _run(side: str, data: Path) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("warm", "load", "upsert"):
            (Path(folder) / f"{name}.ndjson").symlink_to(data / f"{name}.ndjson")
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.ingestion", "--side", side, "--folder", folder],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def _compare(contacts: int, runs: int, sides: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as data:
        make_pages(Path(data) / "warm.ndjson", 0, PAGE, seed=6)
        make_pages(Path(data) / "load.ndjson", 0, contacts, seed=7)
        tenth = contacts // 10
        make_pages(Path(data) / "upsert.ndjson", contacts - tenth // 2, tenth, seed=8, changed=True)
        results = {side: [_run(side, Path(data)) for _ in range(runs)] for side in sides}
    digests = {json.dumps(run[2]) for of_side in results.values() for run in of_side}
    if len(digests) != 1:
        raise SystemExit(f"the sides disagree: { {side: runs_[0][2] for side, runs_ in results.items()} }")
    print(
        f"{contacts:,} contacts, then {tenth:,} changed or new; median of {runs}; equal rows: {digests.pop()}"
    )
    medians = {}
    for side, of_side in results.items():
        for number, step in enumerate(("load", "upsert")):
            found = {
                key: statistics.median(run[number][key] for run in of_side) for key in ("cpu", "wall", "peak")
            }
            medians[side, step] = found
            shown = f"{found['cpu']:7.2f} CPU s {found['wall']:7.2f} s {found['peak']:6.0f} MiB"
            print(f"{side:20} {step:7} {shown}")
    for step in ("load", "upsert"):
        peers = [found["cpu"] for (side, which), found in medians.items() if which == step and side != "omni"]
        if peers and ("omni", step) in medians:
            ratio = min(peers) / medians["omni", step]["cpu"]
            print(f"{step}: dlt's fastest / omni = {ratio:.1f} times the CPU")


def main() -> None:
    """Run the comparison, or one side of it in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contacts", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=SIDES, help="run one side only")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side is None:
        _compare(chosen.contacts, chosen.runs, (chosen.only,) if chosen.only else SIDES)
    elif chosen.side == "omni":
        print(json.dumps(child_omni(chosen.folder)))
    else:
        print(json.dumps(child_dlt(chosen.folder, chosen.side.endswith("hints"))))


if __name__ == "__main__":
    main()
