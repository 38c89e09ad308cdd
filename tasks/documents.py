"""Keeping the document index in step with the tenant's documents."""

from __future__ import annotations

from dataclasses import asdict

from omni import tenancy
from omni.rag.embed import HashingEmbedder
from omni.rag.index import index
from omni.warehouse.database import open_warehouse
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "documents"


@step(STAGE, "index")
def index_folder(tenant: str, run_id: str) -> Handle:
    """Index what is new or changed, remove what vanished, in one transaction."""
    owner = tenancy.get(tenant)
    folder = owner.documents_folder
    if folder is None:
        return {"rows": 0, "note": "the tenant declares no documents"}
    with open_warehouse(owner) as warehouse, warehouse.cursor() as con:
        summary = index(con, folder, embedder=HashingEmbedder(), run_id=run_id)
    return asdict(summary) | {"rows": summary.added + summary.changed + summary.removed}


def index_documents(run: Run) -> list[Step]:
    """Submit the indexing; it needs nothing from other stages."""
    return [run.submit(STAGE, index_folder, "index", run.tenant.tenant, run.run_id)]
