"""Attribution from the journeys themselves, beside the rules that the models apply."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from omni import tenancy
from omni.attribution.markov import Journey, attribute
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.versions import fingerprint, finish_step, step_is_fresh
from omni.warehouse.write import replace_table
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "attribution"
JOURNEYS, RESULT = "marts.attribution_journeys", "ml.attribution_markov"


@step(STAGE, "markov")
def attribute_conversions(tenant: str, run_id: str) -> Handle:
    """Hand out conversions over channels by removal effect, if the journeys changed."""
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        with warehouse.cursor() as con:
            inputs = fingerprint(con, [JOURNEYS])
            if (known := step_is_fresh(con, STAGE, inputs)) is not None:
                return known | {"rows": 0}
            found = con.execute(
                f"SELECT kind, path, conversions, lost FROM {JOURNEYS} ORDER BY kind, path"
            ).fetchall()
        rows = []
        for kind in sorted({row[0] for row in found}):
            journeys = [Journey(tuple(p.split(" > ")), int(c), int(n)) for k, p, c, n in found if k == kind]
            rows += [
                (kind, channel, credit.removal_effect, credit.share, credit.conversions)
                for channel, credit in attribute(journeys).items()
            ]
        contract = contracts()[RESULT]
        types = {"kind": pl.String, "channel": pl.String}
        schema = {name: types.get(name, pl.Float64) for name in contract.columns}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        summary = {"channels": frame["channel"].n_unique(), "paths": len(found)}
        with warehouse.transaction() as write:
            written = replace_table(write, contract, frame, run_id)
            finish_step(write, STAGE, inputs, run_id, summary)
    return summary | {"rows": written}


def attribute_all(run: Run, built: Mapping[str, Step]) -> list[Step]:
    """Submit the attribution; it waits for the journeys."""
    after = [built[JOURNEYS]] if JOURNEYS in built else []
    return [run.submit(STAGE, attribute_conversions, "markov", run.tenant.tenant, run.run_id, after=after)]
