"""Every declaration checked against the others, before anything runs.

What `make check` and `omni check` execute: contracts, models, metrics, experiments, predictions,
dashboards, write-backs, copies and tenants load; every model reads tables that exist and binds on empty ones;
every metric, experiment, prediction, write-back and copy names columns its table really has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb

from omni import tenancy
from omni.bi import exports
from omni.bi.board import load_board
from omni.bi.daily import rollup_models
from omni.bi.exports import Export
from omni.bi.funnel_sql import funnel_models
from omni.bi.funnels import Funnel, load_funnels
from omni.bi.metrics import Metric, load_metrics
from omni.bi.metrics import validate as validate_metrics
from omni.bi.units import refusal
from omni.catalogue.impact import impact
from omni.catalogue.project import Project, load_boards
from omni.destinations import copy_declaration as copies
from omni.destinations import declaration as write_backs
from omni.destinations.copy_declaration import Copy
from omni.destinations.declaration import WriteBack
from omni.errors import ConfigError, SchemaError
from omni.experiments.declaration import Experiment, load_experiments
from omni.ml.declaration import load_predictions
from omni.privacy.datamap import DataMap, build_map
from omni.settings import settings
from omni.sources.rest_declaration import Api, load_apis
from omni.tenancy import Tenant
from omni.usage.catalogue import close_to, load_catalogue
from omni.warehouse.contracts import Contract, load_contracts
from omni.warehouse.layers import SCHEMAS
from omni.warehouse.models import Model, in_order, load_models
from omni.warehouse.portable import refuse_unportable
from omni.warehouse.publish import SCHEMAS as PUBLISHED

Columns = dict[str, dict[str, str]]
WEB_EVENTS = "raw.hubspot__web_events"
PAGE_VIEW = "page_view"
"""What core.usage_events calls a page in an access log."""


def validate_all(folder: Path | None = None) -> dict[str, int]:
    """Validate all declarations.

    Args:
        folder: where they lie; the project's `data/` by default.

    Returns:
        How many of each kind there are.

    Raises:
        ConfigError: naming file, field and what is wrong.
        SchemaError: a model names a column its parents lack, or lacks one its header declares.
    """
    data = folder or settings().data
    contracts = load_contracts(data / "contracts")
    metrics = load_metrics(data / "metrics")
    models = load_models(data / "models") | rollup_models(data / "metrics") | funnel_models(data / "funnels")
    tenants = tenancy.tenants()
    _refuse_broken(Project(data, contracts, models, metrics, load_boards(data / "dashboards")))
    refuse_unportable(models)
    columns = columns_of(contracts, models, next(iter(tenants.values())))
    keys = {c.table: c.key for c in contracts.values()} | {m.name: m.header.grain for m in models.values()}
    validate_metrics(metrics, columns, keys)
    funnels, events = load_funnels(data / "funnels"), load_catalogue(data / "events")
    _steps_exist(funnels, {*events, *_web_events(contracts), PAGE_VIEW})
    experiments = load_experiments(data / "experiments")
    for experiment in experiments.values():
        _require(
            columns,
            experiment.table,
            [o.read for o in experiment.outcomes],
            f"experiment {experiment.name}",
        )
        _metrics_of_units_exist(experiment, metrics, columns)
    predictions = load_predictions(data / "predictions")
    for prediction in predictions.values():
        used = [prediction.entity, prediction.time, prediction.label]
        _require(columns, prediction.table, used, f"prediction {prediction.name}")
    for tenant in tenants.values():
        _streams_exist(tenant, contracts)
    apis = load_apis(data / "rest")
    _apis_have_streams(apis, contracts)
    backs = write_backs.load_write_backs(data / "writebacks")
    write_backs.validate(backs, columns, tenants)
    copied = copies.load_copies(data / "copies")
    copies.validate(copied, columns, tenants)
    exported = exports.load_exports(data / "exports")
    exports.validate(exported, columns, tenants, PUBLISHED)
    leaving: list[WriteBack | Copy | Export] = [*backs.values(), *copied.values(), *exported.values()]
    if leaving:
        _refuse_personal(leaving, build_map(contracts, models))
    return {
        "contracts": len(contracts),
        "models": len(load_models(data / "models")),
        "metrics": len(metrics),
        "funnels": len(funnels),
        "experiments": len(experiments),
        "predictions": len(predictions),
        "dashboards": len([load_board(path, metrics) for path in (data / "dashboards").glob("*.yml")]),
        "tenants": len(tenants),
        "REST APIs": len(apis),
        "write-backs": len(backs),
        "copies": len(copied),
        "exports": len(exported),
        "events": len(events),
    }


def _refuse_broken(project: Project) -> None:
    """Say all at once what names a column or table that is not there.

    Raises:
        SchemaError: one line for each, with its file.
    """
    broken = impact(project)
    if not broken:
        return
    direct = [f"{one} [{one.file}]" for one in broken if not one.because]
    resting = [str(one) for one in broken if one.because]
    more = [f"and with them {len(resting)} that rest on these:", *resting] if resting else []
    raise SchemaError("\n".join([*direct, *more]))


def check_leaving(one: WriteBack | Copy | Export) -> None:
    """Refuse a write-back, copy or export of columns that must not leave the house.

    Raises:
        ConfigError: as `refuse_personal` of write-backs, copies and exports; or an export's table is declared
            nowhere, so that nobody knows what it holds.
    """
    data = settings().data
    models = load_models(data / "models") | rollup_models(data / "metrics") | funnel_models(data / "funnels")
    contracts = load_contracts(data / "contracts")
    if isinstance(one, Export):
        exports.refuse_undeclared(one, {*contracts, *models})
    _refuse_personal([one], build_map(contracts, models))


def _refuse_personal(leaving: Iterable[WriteBack | Copy | Export], found: DataMap) -> None:
    held = [(d.table, d.column, d) for d in found.declared]
    held += [(d.table, d.column, d.source) for d in found.derived if d.through != "computed"]
    hidden: dict[str, set[str]] = {}
    for table, column, source in held:
        if source.personal.protect != "clear":
            hidden.setdefault(table, set()).add(column)
    for one in leaving:
        if isinstance(one, Copy):
            copies.refuse_personal(one, hidden, found.clear_columns())
        elif isinstance(one, Export):
            exports.refuse_personal(one, hidden, found.clear_columns())
        else:
            write_backs.refuse_personal(one, hidden, found.clear_columns())


def columns_of(contracts: Mapping[str, Contract], models: Mapping[str, Model], tenant: Tenant) -> Columns:
    """Columns of every table with their types, found by building all models on empty contracted tables.

    Raises:
        ConfigError: a model reads a table nobody declares, or models form a circle.
        SchemaError: a model's SQL does not bind.
    """
    found: Columns = {}
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as con:
        for schema in SCHEMAS:
            con.execute(f"CREATE SCHEMA {schema}")
        for contract in contracts.values():
            con.execute(contract.ddl())
            found[contract.table] = {name: column.duckdb_type for name, column in contract.columns.items()}
        for model in in_order(models, contracts):
            try:
                con.execute(f"CREATE TABLE {model.name} AS SELECT * FROM ({model.stored(tenant)}) LIMIT 0")
            except duckdb.Error as error:
                raise SchemaError(f"{model.origin}: {str(error).splitlines()[0]}") from None
            found[model.name] = {row[0]: row[1] for row in con.execute(f"DESCRIBE {model.name}").fetchall()}
            header = model.header
            named = [*header.grain, *filter(None, [header.time_column])]
            _require(found, model.name, named, f"{model.origin} (header)")
    return found


def _require(columns: Columns, table: str, names: list[str], who: str) -> None:
    if table not in columns:
        raise ConfigError(f"{who}: reads {table}, which no contract and no model declares")
    if missing := sorted(set(names) - set(columns[table])):
        raise ConfigError(
            f"{who}: {table} has no column {', '.join(missing)}; it has {', '.join(columns[table])}"
        )


def _web_events(contracts: Mapping[str, Contract]) -> list[str]:
    """The events that the web site is known to send."""
    contract = contracts.get(WEB_EVENTS)
    column = contract.columns.get("event") if contract else None
    return (column.accepted if column else None) or []


def _steps_exist(funnels: Mapping[str, Funnel], events: set[str]) -> None:
    known = dict.fromkeys(sorted(events))
    for funnel in funnels.values():
        for step in funnel.steps:
            if step.event not in events:
                raise ConfigError(
                    f"data/funnels/{funnel.name}.yml: step {step.name}: no event {step.event!r} in "
                    f"data/events or in the contract {WEB_EVENTS}{close_to(step.event, known)}"
                )


def _metrics_of_units_exist(experiment: Experiment, metrics: Mapping[str, Metric], columns: Columns) -> None:
    for outcome in experiment.outcomes:
        if outcome.metric is None:
            continue
        who = f"experiment {experiment.name}: outcome {outcome.name}"
        if outcome.metric not in metrics:
            raise ConfigError(f"{who}: no metric {outcome.metric!r}; `omni metrics list` lists them")
        metric = metrics[outcome.metric]
        if problem := refusal(metric):
            raise ConfigError(f"{who}: {problem}")
        _require(columns, metric.model or "", [outcome.key or ""], who)


def _apis_have_streams(apis: Mapping[str, Api], contracts: Mapping[str, Contract]) -> None:
    for contract in contracts.values():
        source = contract.source
        if source and source.vendor in apis and source.object not in apis[source.vendor].streams:
            raise ConfigError(
                f"{contract.table}: data/rest/{source.vendor}.yml declares no stream {source.object!r}; "
                f"it has {', '.join(apis[source.vendor].streams)}"
            )


def _streams_exist(tenant: Tenant, contracts: Mapping[str, Contract]) -> None:
    known = {(c.source.vendor, c.source.object) for c in contracts.values() if c.source and c.parent is None}
    for vendor, streams in tenant.sources.items():
        for stream in streams:
            if (vendor, stream) not in known:
                offered = sorted(name for v, name in known if v == vendor)
                raise ConfigError(
                    f"Tenant {tenant.tenant!r}: {vendor} has no stream {stream!r}; "
                    f"it has {', '.join(offered)}"
                )
