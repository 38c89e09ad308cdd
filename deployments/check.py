"""What Prefect lets pass in `prefect.yaml`, found before deploying: `python -m deployments.check`.

Prefect drops misspelt keys silently, deploys a placeholder for a flow whose import fails, finds a wrong
cron only after earlier deployments are live, and turns an unset `{{ $VARIABLE }}` into nothing.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import MissingFlowError, ParameterTypeError, ScriptError
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.importtools import import_object
from prefect.workers.process import ProcessVariables
from pydantic import BaseModel, TypeAdapter, ValidationError

from omni.settings import PROJECT

SEVERITIES = ("low", "medium", "high", "critical")
_OWNER = re.compile(r"^owner:[a-z][a-z0-9-]*$")
_SEVERITY = re.compile(rf"^severity:({'|'.join(SEVERITIES)})$")
_VARIABLE = re.compile(r"\{\{\s*\$(\w+)\s*\}\}")
_STEP_KEYWORDS = {"id", "requires"}
_TRIGGERS: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error; the plain loader keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        written = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in written:
            if written.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def _hint(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"


def _unknown(found: Mapping[str, Any], known: set[str], where: str) -> Iterator[str]:
    for key in found:
        if key not in known:
            yield f"{where}: unknown key {str(key)!r}{_hint(str(key), known)}"


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(problem["msg"] for problem in error.errors())
    return str(error) or type(error).__name__


def _values(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _values(value)
    elif isinstance(node, Sequence):
        for value in node:
            yield from _values(value)


def _unset_variables(node: Any, where: str) -> Iterator[str]:
    for text in _values(node):
        for name in _VARIABLE.findall(text):
            if name not in os.environ:
                yield f"{where}: ${name} is not set here and would be deployed as an empty text"


def _actions(owner: Mapping[str, Any], where: str) -> Iterator[str]:
    for section in ("build", "push", "pull"):
        steps = owner.get(section) or []
        for step in [steps] if isinstance(steps, Mapping) else steps:
            yield from _action(step, f"{where}{section}")


def _action(step: Any, where: str) -> Iterator[str]:
    if not isinstance(step, Mapping) or len(step) != 1:
        yield f"{where}: a step is one mapping of a function's name to its inputs"
        return
    name, inputs = next(iter(step.items()))
    try:
        function = import_object(name)
    except Exception as error:  # noqa: BLE001  importing runs any code
        yield f"{where}: {name} cannot be imported: {_reason(error)}"
        return
    given = {key: value for key, value in (inputs or {}).items() if key not in _STEP_KEYWORDS}
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        yield f"{where}: {name}: {error}"


def _concurrency(limit: Any, where: str) -> Iterator[str]:
    if limit is None or isinstance(limit, int):
        return
    if not isinstance(limit, Mapping):
        yield f"{where}: a number, or a mapping with limit and collision_strategy"
        return
    yield from _unknown(limit, _names(ConcurrencyLimitSpec), where)
    strategies = [strategy.value for strategy in ConcurrencyLimitStrategy]
    strategy = limit.get("collision_strategy")
    if strategy not in strategies:
        yield f"{where}: collision_strategy is {strategy!r}{_hint(str(strategy), strategies)}"
    if not isinstance(limit.get("limit"), int) or limit["limit"] < 1:
        yield f"{where}: limit is {limit.get('limit')!r}, expected a number of at least 1"


def _work_pool(pool: Any, where: str) -> Iterator[str]:
    if not isinstance(pool, Mapping):
        yield f"{where}: no work_pool; nothing would ever run it"
        return
    if not pool.get("name"):
        yield f"{where}: no work_pool name; nothing would ever run it"
    yield from _unknown(pool, _names(WorkPoolConfig), where)
    yield from _unknown(pool.get("job_variables") or {}, _names(ProcessVariables), f"{where}.job_variables")


def _tags(tags: Any, where: str) -> Iterator[str]:
    present = [str(tag) for tag in tags] if isinstance(tags, list) else []
    if not any(_OWNER.match(tag) for tag in present):
        yield f"{where}: no owner; add a tag such as owner:data-platform"
    if not any(_SEVERITY.match(tag) for tag in present):
        yield f"{where}: no severity; add one of {', '.join(f'severity:{name}' for name in SEVERITIES)}"


def _schedule(schedule: Any, where: str) -> Iterator[str]:
    if not isinstance(schedule, Mapping):
        yield f"{where}: expected a mapping, found {type(schedule).__name__}"
        return
    yield from _unknown(schedule, _names(RawScheduleConfig), where)
    if not schedule.get("slug"):
        yield f"{where}: no slug; without one a redeploy cannot tell schedules apart"
    if schedule.get("cron") and not schedule.get("timezone"):
        yield f"{where}: cron without a timezone runs in UTC; name one, such as Europe/Berlin"
    try:
        RawScheduleConfig.model_validate(
            {key: schedule[key] for key in schedule if key in _names(RawScheduleConfig)}
        )
        _schedule_config_to_deployment_schedule(dict(schedule))
    except (ValueError, TypeError) as error:
        yield f"{where}: {_reason(error)}"


def _parameters(
    flow: Flow[..., Any], given: Mapping[str, Any], where: str, *, complete: bool
) -> Iterator[str]:
    accepted = inspect.signature(flow.fn).parameters
    for name in given:
        if name not in accepted:
            yield f"{where}: {flow.name} takes no parameter {name!r}{_hint(name, accepted)}"
            return
    missing = [n for n, p in accepted.items() if p.default is inspect.Parameter.empty and n not in given]
    if missing and complete:
        yield f"{where}: {flow.name} needs {', '.join(missing)}; a scheduled run would fail"
        return
    try:
        if not missing:
            flow.validate_parameters(dict(given))
            return
        hints = inspect.get_annotations(flow.fn, eval_str=True)
        for name, value in given.items():
            TypeAdapter(hints.get(name, Any)).validate_python(value)
    except (ParameterTypeError, ValidationError, TypeError) as error:
        yield f"{where}: {_reason(error)}"


def _shadows(path: Path, root: Path) -> Iterator[str]:
    """A flow's folder comes first on sys.path, so its file hides a module of the same name."""
    stem = path.stem
    hidden = stem in sys.stdlib_module_names or any(
        (Path(entry) / stem).is_dir() or (Path(entry) / f"{stem}.py").is_file()
        for entry in sys.path
        if entry and Path(entry).resolve() not in (path.parent.resolve(), root.resolve())
    )
    if hidden:
        yield f"{path.relative_to(root)}: hides the module {stem!r} of the same name; rename the file"


def _load_flow(entrypoint: Any, root: Path, where: str) -> tuple[Flow[..., Any] | None, list[str]]:
    if not isinstance(entrypoint, str) or ".py:" not in entrypoint:
        return None, [f"{where}: entrypoint is {entrypoint!r}, expected flows/<file>.py:<function>"]
    path = root / entrypoint.rsplit(":", 1)[0]
    if not path.is_file():
        known = [str(file.relative_to(root)) for file in sorted((root / "flows").rglob("*.py"))]
        return None, [f"{where}: {entrypoint.rsplit(':', 1)[0]} does not exist{_hint(entrypoint, known)}"]
    if problems := list(_shadows(path, root)):
        return None, problems
    before = sys.path.copy()
    try:
        return load_flow_from_entrypoint(f"{root / entrypoint}", use_placeholder_flow=False), []
    except ScriptError as error:
        cause = error.user_exc
        return None, [f"{where}: {entrypoint} does not import: {type(cause).__name__}: {cause}"]
    except MissingFlowError as error:
        return None, [f"{where}: {entrypoint}: {error}"]
    finally:
        sys.path[:] = before


def _deployment(deployment: Mapping[str, Any], root: Path, where: str) -> Iterator[str]:
    yield from _unknown(deployment, _names(DeploymentConfig), where)
    yield from _tags(deployment.get("tags"), where)
    yield from _work_pool(deployment.get("work_pool"), f"{where}.work_pool")
    yield from _concurrency(deployment.get("concurrency_limit"), f"{where}.concurrency_limit")
    yield from _actions(deployment, f"{where}.")
    yield from _unset_variables({k: v for k, v in deployment.items() if k != "pull"}, where)
    for number, trigger in enumerate(deployment.get("triggers") or [], start=1):
        try:
            _TRIGGERS.validate_python({"name": "trigger", **trigger})
        except (ValidationError, TypeError) as error:
            yield f"{where}.triggers[{number}]: {_reason(error)}"
    flow, problems = _load_flow(deployment.get("entrypoint"), root, where)
    yield from problems
    parameters = deployment.get("parameters") or {}
    if flow is not None:
        yield from _parameters(flow, parameters, f"{where}.parameters", complete=False)
    for schedule in deployment.get("schedules") or []:
        slug = schedule.get("slug", "?") if isinstance(schedule, Mapping) else "?"
        at = f"{where}.schedules[{slug}]"
        yield from _schedule(schedule, at)
        if flow is not None and isinstance(schedule, Mapping):
            given = {**parameters, **(schedule.get("parameters") or {})}
            yield from _parameters(flow, given, at, complete=True)


def _is_flow(decorator: ast.expr) -> bool:
    named = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", "")) == "flow"


def _undeployed(root: Path, deployed: set[Any]) -> Iterator[str]:
    """Functions decorated with `@flow` under flows/ that no deployment names."""
    for path in sorted((root / "flows").rglob("*.py")):
        at = path.relative_to(root).as_posix()
        try:
            body = ast.parse(path.read_text(encoding="utf-8")).body
        except SyntaxError as error:
            yield f"{at}: not valid Python: {error}"
            continue
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            entrypoint = f"{at}:{node.name}"
            if entrypoint not in deployed and any(_is_flow(decorator) for decorator in node.decorator_list):
                yield f"{entrypoint}: this flow has no deployment"


def _repeated(values: Iterable[Any]) -> list[str]:
    listed = [str(value) for value in values if value is not None]
    return sorted({value for value in listed if listed.count(value) > 1})


def problems(root: Path = PROJECT) -> list[str]:
    """Everything wrong with `prefect.yaml` and the flows it names.

    Args:
        root: the folder of prefect.yaml and flows/.
    """
    try:
        text = (root / "prefect.yaml").read_text(encoding="utf-8")
        document = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  a subclass of the safe loader
    except (OSError, yaml.YAMLError) as error:
        return [f"prefect.yaml: {error}"]
    deployments = document.get("deployments") if isinstance(document, dict) else None
    if not isinstance(deployments, list) or not all(isinstance(item, dict) for item in deployments):
        return ["prefect.yaml: expected a mapping with a list of deployments"]
    found = list(_unknown(document, _names(PrefectYamlModel) | {"definitions"}, "prefect.yaml"))
    try:
        PrefectYamlModel.model_validate(document)
    except ValidationError as error:
        found += [
            f"prefect.yaml: {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        ]
    found += _actions(document, "")
    found += [
        f"{name}: more than one deployment has this name"
        for name in _repeated(d.get("name") for d in deployments)
    ]
    slugs = _repeated(
        s.get("slug") for d in deployments for s in d.get("schedules") or [] if isinstance(s, dict)
    )
    found += [f"{slug}: more than one schedule has this slug" for slug in slugs]
    for number, deployment in enumerate(deployments, start=1):
        if not deployment.get("name"):
            found.append(f"deployment {number}: no name")
        found += _deployment(deployment, root, str(deployment.get("name") or f"deployment {number}"))
    deployed = {deployment.get("entrypoint") for deployment in deployments}
    found += _undeployed(root, deployed)
    return list(dict.fromkeys(found))


def main() -> int:
    """Print what is wrong; the exit status is 1 when something is."""
    wrong = problems()
    if not wrong:
        sys.stdout.write("prefect.yaml: every deployment is right.\n")
        return 0
    sys.stdout.write("\n".join(f"- {problem}" for problem in wrong) + f"\n{len(wrong)} problems.\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
