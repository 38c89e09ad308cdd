"""What orchestration costs: the night as a flow on a warm server, against the same functions called directly.

    python -m benchmarks.orchestration [--company olist] [--runs 3]

Both sides run the same stages with the same dependencies on a pool of threads, from an empty state, each in
a process of its own, in turn. Only one side knows Prefect. The server's start and the imports are measured
apart. Prints wall seconds, CPU seconds and peak memory, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any


def child_flow(company: str) -> dict[str, float]:
    """The night as a flow; the server's address is in the environment."""
    from omni.orchestrator.environment import apply_environment

    apply_environment()
    started = time.perf_counter()
    from flows.nightly import nightly

    imported = time.perf_counter()
    state = nightly(tenant=company, return_state=True)
    ended = time.perf_counter()
    if not state.is_completed():
        raise SystemExit(f"the flow failed: {state.message}")
    return {"import": imported - started, "wall": ended - imported}


def child_direct(company: str) -> dict[str, float]:
    """The same stages on a thread pool, without a flow."""
    from omni.orchestrator.environment import apply_environment

    apply_environment()
    os.environ.pop("PREFECT_API_URL", None)
    started = time.perf_counter()
    from flows.nightly import stages
    from omni import tenancy
    from omni.warehouse.database import open_warehouse
    from tasks.connections import connected
    from tasks.run import Run

    class Direct(Run):
        """A run whose steps are plain calls."""

        pool = ThreadPoolExecutor(128)

        def submit(
            self,
            stage: str,
            task: Any,
            label: str,
            *args: Any,
            after: Iterable[Any] = (),
            regardless_of: Iterable[Any] = (),
        ) -> Any:
            needed = [*after, *regardless_of]

            def call() -> Any:
                for future in needed:
                    future.result()
                return task.fn(*(arg.result() if isinstance(arg, Future) else arg for arg in args))

            future = self.pool.submit(call)
            self.steps.append(future)
            return future

    imported = time.perf_counter()
    tenant = tenancy.get(company)
    run = Direct("direct", tenant, str(uuid.uuid4()))
    with open_warehouse(tenant), connected(tenant):
        stages(run)
        for future in run.steps:
            future.result()
    return {"import": imported - started, "wall": time.perf_counter() - imported}


def measure(side: str, company: str, url: str) -> dict[str, float]:
    """One side, once, in a process of its own with an empty state."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"OMNI_HOME": home, "PREFECT_API_URL": url}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.orchestration", "--company", company, "--child", side],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    result["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--company", default="olist")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", choices=["flow", "direct"])
    chosen = parser.parse_args()
    if chosen.child:
        result = (child_flow if chosen.child == "flow" else child_direct)(chosen.company)
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return

    from omni.orchestrator.server import server
    from omni.settings import settings

    with tempfile.TemporaryDirectory() as home:
        os.environ["OMNI_HOME"] = home
        settings.cache_clear()
        started = time.perf_counter()
        with server(ephemeral=True) as prefect:
            print(f"server start: {time.perf_counter() - started:.1f} s (once; later nights find it running)")
            results: dict[str, list[dict[str, float]]] = {"direct": [], "flow": []}
            for _ in range(chosen.runs):
                for side in results:
                    results[side].append(measure(side, chosen.company, prefect.url))
    print(f"company {chosen.company}, median of {chosen.runs} runs in turn")
    print(f"{'':8}{'wall s':>10}{'CPU s':>10}{'peak MiB':>10}{'import s':>10}")
    medians = {
        side: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for side, runs in results.items()
    }
    for side, m in medians.items():
        print(f"{side:8}{m['wall']:10.2f}{m['cpu']:10.2f}{m['peak_mib']:10.0f}{m['import']:10.2f}")
    ratio = {key: medians["flow"][key] / medians["direct"][key] for key in ("wall", "cpu", "peak_mib")}
    print(f"{'ratio':8}{ratio['wall']:10.2f}{ratio['cpu']:10.2f}{ratio['peak_mib']:10.2f}")
    print(f"orchestration overhead: {100 * (ratio['wall'] - 1):.0f} % of the wall time")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
