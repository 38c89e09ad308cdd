"""The closing summary of a run: what each stage did and found, and what went wrong and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """The closing table: what each stage did, then what it found."""
    table = Table(title=f"{summary['flow']} of {summary['tenant']}", title_justify="left", title_style="bold")
    table.add_column("stage")
    table.add_column("outcome")
    table.add_column("what it says", overflow="fold")
    for name, stage in summary["stages"].items():
        mark = {"done": "[green]done[/]", "failed": "[bold red]failed[/]", "blocked": "[yellow]blocked[/]"}
        table.add_row(
            name, mark[stage["status"]], "\n".join([*_findings(name, stage["steps"]), *_problems(stage)])
        )
    console.print(table)
    if summary.get("error"):
        console.print(f"[bold red]Failed:[/] {summary['error']}", highlight=False)
    style = "green" if summary["status"] == "done" else "bold red"
    console.print(f"[{style}]{summary['status']}[/] in {summary.get('seconds', 0):.1f} s", highlight=False)


def _problems(stage: dict[str, Any]) -> list[str]:
    return [
        f"[red]{step}[/] {problem['status']}: {problem['reason']}"
        for step, problem in stage["problems"].items()
    ]


def _findings(stage: str, steps: dict[str, dict[str, Any]]) -> list[str]:
    tell = _TELLERS.get(stage)
    return tell(steps) if tell else []


def _ingested(steps: dict[str, dict[str, Any]]) -> list[str]:
    loads = [step for step in steps.values() if "tables" in step]
    lines = []
    for load in loads:
        for table, counts in load["tables"].items():
            changes = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing new"
            lines.append(f"{table}: {changes}")
    rejected = sum(load["rejected"] for load in loads)
    return lines + ([f"[yellow]{rejected} rows in the dead letters[/]"] if rejected else [])


def _built(steps: dict[str, dict[str, Any]]) -> list[str]:
    made = [step for step in steps.values() if step["action"] in ("full", "days")]
    lines = [
        f"{step['model']}: {step['rows']:,} rows" for step in made if not step["model"].startswith("metrics.")
    ]
    skipped = sum(step["action"] == "skip" for step in steps.values())
    rolled = len(made) - len(lines)
    warnings = [f"[yellow]{check}[/]" for step in steps.values() for check in step["failing_checks"]]
    counted = ([f"{rolled} series"] if rolled else []) + ([f"{skipped} up to date"] if skipped else [])
    return lines + counted + warnings


def _trained(steps: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for step in steps.values():
        if "model" in step:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in step["metrics"].items())
            lines += [f"{step['model']} v{step['version']}: {scores}", f"  {step['reason']}"]
        elif "note" in step:
            lines.append(step["note"])
    return lines


def _analysed(steps: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"{r['experiment']} / {r['outcome']}: {r['effect']:+.4f} [{r['ci_low']:+.4f}, {r['ci_high']:+.4f}] "
        f"{r['decision']}"
        for step in steps.values()
        for r in step.get("results", [])
        if r["effect"] is not None
    ] or ["no units"]


def _watched(steps: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for step in steps.values():
        lines.append(
            f"{step['flags']} unusual days in {step['watched']} metrics, {step['critical']} critical"
        )
        lines += [
            f"  {flag['day']} {flag['metric']} {flag['direction']}: "
            f"{flag['value']:g}, expected {flag['expected']:.0f}"
            for flag in step["latest"]
        ]
    return lines


def _indexed(steps: dict[str, dict[str, Any]]) -> list[str]:
    return [
        step.get("note")
        or f"{step['documents']} documents, {step['chunks']} passages; "
        f"{step['added']} new, {step['changed']} changed, {step['removed']} removed"
        for step in steps.values()
    ]


def _reported(steps: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"{step['passed']} checks passed, {step['failed']} failed, {step['unknown']} unknown\n"
        f"{_shown(step['html'])}"
        for step in steps.values()
    ]


def _path(steps: dict[str, dict[str, Any]]) -> list[str]:
    return [_shown(step["path"]) for step in steps.values()]


def _shown(path: str) -> str:
    """A path as short as the reader can use it from here."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _drained(steps: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, step in steps.items():
        counts = ((step[what], what) for what in ("done", "ignored") if step[what])
        said = ", ".join(f"{number:,} {what}" for number, what in counts) or "nothing due"
        lines.append(f"{name}: {said}; {step['objects']:,} objects read again, {step['rows']:,} rows changed")
    return lines


def _written(steps: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, step in steps.items():
        lines.append(f"{name}: {step['written']:,} rows written, {step['unchanged']:,} unchanged")
        if waiting := step["rejected"] + step["held"]:
            lines.append(
                f"[yellow]{waiting} rows in the dead letters[/]; see omni write-back {name} --dry-run"
            )
    return lines


def _copied(steps: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"{name}: " + ("nothing new" if step["unchanged"] else f"{step['written']:,} rows copied")
        for name, step in steps.items()
    ]


def _drafted(steps: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for step in steps.values():
        said = ", ".join(f"{partner} {amount}" for partner, amount in step["drafts"].items())
        lines.append(f"{step['month']}: {said or 'nothing'} to be approved, {step['approved']} approved")
        lines += _path({"": step})
    return lines


_TELLERS = {
    "copies": _copied,
    "write back": _written,
    "ingest": _ingested,
    "models": _built,
    "metrics": _built,
    "predictions": _trained,
    "experiments": _analysed,
    "anomalies": _watched,
    "documents": _indexed,
    "publish": _path,
    "dashboards": _path,
    "compliance": _reported,
    "webhooks": _drained,
    "partners": _drafted,
}
