"""Index the documents."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import documents
from tasks.run import running


@flow(name="index-documents", flow_run_name="documents {tenant}", task_runner=RUNNER)
def index_documents(tenant: str) -> State[Any]:
    """Bring the document index in step with the tenant's documents.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("index_documents", tenant) as run:
        documents.index_documents(run)
    return run.outcome()
