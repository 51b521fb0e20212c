"""Write the parts of the pages that follow from the code: ``python docs/generate.py``.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; all else on a page is written by hand.
``--check`` writes nothing and exits with 1 if a page is stale. ``make golden`` writes them too.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if __name__ == "__main__":  # started as a script: the packages lie one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator import errors
from orchestrator.cli import app
from orchestrator.config.kinds import EXCEPT, EXPECTED, NOT_YET
from orchestrator.config.load import json_schema
from orchestrator.dispatch import transitions as moves_of
from orchestrator.report import columns
from orchestrator.web.app import create_app
from orchestrator.web.settings import ServeSettings
from workers.protocol import Pass, Verdict

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orchestrator.report.columns import Field

DOCS: Final = Path(__file__).resolve().parent

_PART: Final = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: Bounds that only keep numbers within what is stored; no reader needs them.
_NO_BOUND: Final = 2**31 - 1

Node = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Write every stale page, or with ``--check`` only name it."""
    stale = [page for page, text in current().items() if page.read_text(encoding="utf-8") != text]
    for page in stale:
        print(f"{page.relative_to(DOCS.parent)}: {'stale' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            page.write_text(current()[page], encoding="utf-8")
    return int("--check" in arguments and bool(stale))


def current() -> dict[Path, str]:
    """Return every page that has generated parts, as it should be now; raises KeyError for a part nobody makes."""
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.md"))}
    return {page: _PART.sub(_filled, text) for page, text in pages.items() if _PART.search(text)}


def _filled(part: re.Match[str]) -> str:
    return f"{part[1]}\n{PARTS[part['name']]().strip()}\n\n{part[3]}"


# --- tables ----------------------------------------------------------------------------------------------------


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns padded; a bar inside a cell is escaped."""
    grid = [[cell.replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in grid]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def code(text: object) -> str:
    """Return text as code."""
    return f"`{text}`"


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# --- the config ------------------------------------------------------------------------------------------------


def config_keys() -> str:
    """Return a section for each mapping of the grammar, with a table of its keys."""
    return "\n\n".join(_Grammar(json_schema()).sections())


class _Grammar:
    """The JSON Schema of the config, read for people."""

    def __init__(self, schema: Node) -> None:
        self._root = schema
        self._definitions: Node = schema["$defs"]
        #: Headings by the name of the mapping that stands below them.
        self._title_of: dict[str, str] = {}
        self._sections: list[tuple[str, Node]] = []
        self._collect("The top of the file", "", schema)

    def sections(self) -> Iterator[str]:
        """Give each section: heading, what it is about, its keys."""
        for title, node in self._sections:
            keys = [self._row(key, value, node) for key, value in node["properties"].items()]
            grid = table(("Key", "Value", "Default", "Meaning"), keys)
            yield f"## {title}\n\n{node['description']}\n\n{grid}"

    def _collect(self, title: str, path: str, node: Node) -> None:
        """Note a mapping and those below it; one that stands in several places is noted at the highest."""
        self._sections.append((title, node))
        found: list[tuple[str, str]] = []
        for key, value in node["properties"].items():
            name = self._mapping_of(value)
            if name is not None and name not in self._title_of:
                below = f"{path}.{key}".lstrip(".") + ("[]" if value.get("type") == "array" else "")
                self._title_of[name] = code(below)
                found.append((name, below))
        for name, below in found:
            self._collect(code(below), below, self._definitions[name])

    def _mapping_of(self, node: Node) -> str | None:
        """Return the name of the mapping that a key holds, alone, in a list, or null."""
        for inner in (node, node.get("items", {}), *node.get("anyOf", ())):
            name = inner.get("$ref", "").rpartition("/")[2]
            if name and "properties" in self._definitions[name]:
                return str(name)
        return None

    def _row(self, key: str, node: Node, parent: Node) -> tuple[str, str, str, str]:
        default = "*required*" if key in parent.get("required", ()) else self._default(node)
        return code(key), self._value(node), default, self._meaning(node)

    def _meaning(self, node: Node) -> str:
        # A key that says the same as its mapping has no words of its own in the schema.
        text = node.get("description") or self._definitions[node["$ref"].rpartition("/")[2]]["description"]
        if NOT_YET not in node:
            return str(text)
        but = f", beside {code(node[EXCEPT].rstrip('.') + '…')}" if EXCEPT in node else ""
        if not but and self._default(node):
            but = ", beside the default"
        return f"**Not supported yet**{but} ({node[NOT_YET]}). {text}"

    def _default(self, node: Node) -> str:
        value = node.get("default")
        if value is None or isinstance(value, dict):
            return ""
        if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], dict):
            value = value[0]
        return code(_flow(value)) if value != [] else code("[]")

    def _value(self, node: Node) -> str:
        name = self._mapping_of(node)
        if name is not None:
            title = self._title_of[name]
            link = f"[{title}](#{slug(title)})"
            return f"list of {link}" if node.get("type") == "array" else link
        return _listed(self._kinds(node))

    def _kinds(self, node: Node) -> list[str]:
        if "$ref" in node:
            return self._kinds(self._definitions[node["$ref"].rpartition("/")[2]])
        if "anyOf" in node:
            return self._alternatives([one for one in node["anyOf"] if one.get("type") != "null"])
        if "enum" in node:
            return [code(word) for word in node["enum"] if isinstance(word, str)]
        if "const" in node:
            return [code(node["const"])]
        if node.get("type") == "array":
            return [f"a list: {_listed(self._kinds(node['items']))}"]
        return [node.get(EXPECTED) or _bounded(node)]

    def _alternatives(self, nodes: list[Node]) -> list[str]:
        single = [self._kinds(one) for one in nodes if one.get("type") != "array"]
        if len(nodes) == 2 and len(single) == 1:
            return [f"{_listed(single[0])}; or a list of these"]
        return [kind for one in nodes for kind in self._kinds(one)]


def _bounded(node: Node) -> str:
    if node["type"] == "boolean":
        return "`true` or `false`"
    low, high = node.get("minimum"), node.get("maximum")
    words = {"integer": "a whole number", "number": "a number", "string": "text"}[node["type"]]
    if high is not None and high < _NO_BOUND:
        return f"{words} from {low} to {high}"
    return words if low is None else f"{words} of at least {low}"


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(kinds)


def _flow(value: Any) -> str:
    """Return a default as YAML has it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items() if one is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


# --- the command line ------------------------------------------------------------------------------------------


def commands() -> str:
    """Return a section for each command, in the order of ``muster --help``."""
    group = command_line()
    parts = [f"## muster\n\n{_first_line(group.help)}\n\n{_options(group.params)}"]
    for name, command in group.commands.items():
        parts += _command(f"muster {name}", command, "##")
    return "\n\n".join(parts)


def _command(name: str, command: Any, heading: str) -> Iterator[str]:
    """Give a command's section, and after it those of its own commands."""
    below = subcommands(command)
    usage = " ".join([name, *(_usage(p) for p in command.params), *(["|".join(below)] if below else [])])
    options = f"\n\n{_options(command.params)}" if command.params else ""
    yield f"{heading} {name}\n\n```\n{usage}\n```\n\n{_first_line(command.help)}{options}"
    for inner, one in below.items():
        yield from _command(f"{name} {inner}", one, f"{heading}#")


def subcommands(command: Any) -> dict[str, Any]:
    """Return the commands that a command consists of, by name; none for most, and none that is for muster itself."""
    return {name: one for name, one in getattr(command, "commands", {}).items() if not one.hidden}


def command_line() -> Any:
    """Return the root of the commands: a group of typer's."""
    import typer

    return typer.main.get_command(app.build())


def _first_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def _usage(parameter: Any) -> str:
    word = parameter.metavar or parameter.name.upper()
    if not _is_option(parameter):
        return word if parameter.required or word.startswith("[") else f"[{word}]"
    value = "" if getattr(parameter, "is_flag", False) else f" {word}"
    return f"[{parameter.opts[0]}{value}]" + ("…" if parameter.multiple else "")


def _options(parameters: Sequence[Any]) -> str:
    return table(("Argument or option", "Default", "Meaning"), [_option_row(one) for one in parameters])


def _option_row(parameter: Any) -> tuple[str, str, str]:
    is_flag = getattr(parameter, "is_flag", False)
    value = "" if is_flag or not _is_option(parameter) else f" {parameter.metavar or parameter.name.upper()}"
    names = ", ".join(code(f"{name}{value}") for name in parameter.opts) if _is_option(parameter) else ""
    variable = f" Also by the environment variable {code(parameter.envvar)}." if parameter.envvar else ""
    several = " May be given several times." if parameter.multiple else ""
    return (
        names or code((parameter.metavar or parameter.name.upper()).strip("[]")),
        "*required*" if parameter.required else _default_of(parameter.default, is_flag),
        f"{parameter.help or ''}{several}{variable}".strip(),
    )


def _default_of(default: object, is_flag: bool) -> str:
    return "" if default is None or is_flag else code(default)


# --- errors, verdicts, dispatch --------------------------------------------------------------------------------


def error_classes() -> str:
    """Return every error that reaches a person, with the exit code that it means."""
    rows = [(code(kind.__name__), str(int(kind.exit_code)), _sentence(kind.__doc__)) for kind in _kinds_of_errors()]
    return table(("Error", "Exit code", "What is wrong"), rows)


def _kinds_of_errors() -> list[type[errors.MusterError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.MusterError)]
    return [kind for kind in found if kind is not errors.MusterError]


def _sentence(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def verdict_kinds() -> str:
    """Return what the code decides by a verdict alone."""
    rows = [
        (code(verdict.value), "yes" if verdict.has_figure else "no", "yes" if verdict.is_transient else "no")
        for verdict in Verdict
    ]
    return table(("Verdict", "Has a figure", "Tried again, up to `limits.attempts`"), rows)


def transitions() -> str:
    """Return the three tables that move devices, cases and attempts."""
    tables: tuple[tuple[str, Mapping[tuple[Any, moves_of.Trigger], enum.Enum]], ...] = (
        ("Device", moves_of.DEVICE_TRANSITIONS),
        ("Case", moves_of.CASE_TRANSITIONS),
        ("Attempt", moves_of.ATTEMPT_TRANSITIONS),
    )
    return "\n\n".join(_moves(title, moves) for title, moves in tables)


def _moves(title: str, moves: Mapping[tuple[Any, moves_of.Trigger], enum.Enum]) -> str:
    rows = [
        (code(before.value), code(trigger.__name__), "stays" if after is before else code(after.value))
        for (before, trigger), after in moves.items()
    ]
    return f"### {title}\n\n{table(('While it is', 'comes', 'and it becomes'), rows)}"


# --- the table and the store -----------------------------------------------------------------------------------


def table_columns() -> str:
    """Return every column that a table can have, in order."""
    groups = (
        ("always", columns.seed_fields()),
        ("layers, operations", (columns.work_field(),)),
        ("operations", columns.seed_fields((Pass.BACKWARD_DATA, Pass.BACKWARD_WEIGHTS))[3:-1]),
        ("`--wide`", columns.wide_fields()),
        ("`report.relative_to`", columns.ratio_fields("ROW", lambda _: None)),
    )
    return table(
        ("Key", "Heading", "Unit", "With a spread", "Shown"),
        [_column_row(field, shown) for shown, fields in groups for field in fields],
    )


def _column_row(field: Field, shown: str) -> tuple[str, str, str, str, str]:
    column = field.column
    return code(column.key), column.heading, column.unit or "", "yes" if column.has_spread else "", shown


#: What the columns hold whose names do not tell; the tables themselves carry types alone.
_STORED: Final = {
    "runs.id": "Twelve hexadecimal digits.",
    "runs.name": "The config's `name`.",
    "runs.created_at": "Before its first case began.",
    "runs.finished_at": "`NULL` while it goes on, and for ever if it was killed.",
    "runs.state": "`running`, `finished` or `interrupted`. A run that was killed stays `running`.",
    "runs.config_text": "The config, to the letter.",
    "runs.config_path": "Where it was read; for messages only.",
    "runs.overrides": "JSON list of `--set …` and `--only …` as typed.",
    "runs.simulated": "1 where the figures are invented.",
    "runs.muster_version": "Of the head.",
    "runs.rerun_of": "The run that it repeats; `NULL` for most.",
    "live.run_id": "A run that goes on; of one that was killed a row may stay, and counts for nothing.",
    "live.state": "JSON: what each device is doing, as the head said last, once a second at most.",
    "environments.hash": "SHA-256 of the JSON.",
    "environments.json": "The facts, as JSON: see [environment facts](environment-facts.md).",
    "cases.id": "",
    "cases.run_id": "",
    "cases.position": "Place in the plan, from 0.",
    "cases.key": "Content hash of device, workload, sampling and method.",
    "cases.device_id": "`host/selector`.",
    "cases.device": "The device as JSON.",
    "cases.workload": "The workload as JSON, every parameter fixed.",
    "cases.sampling": "How many steps, as JSON.",
    "cases.method_version": "Raised when the way time is taken changes.",
    "cases.verdict": "How it ended: see [verdicts](verdicts.md). `NULL` while it has not.",
    "cases.reason": "Why there is no figure, or why it is doubtful.",
    "attempts.id": "",
    "attempts.case_id": "",
    "attempts.number": "From 1 within the case.",
    "attempts.verdict": "How this attempt ended.",
    "attempts.reason": "",
    "attempts.stopped_by": "`steps`, `precision` or `time`; `NULL` where sampling did not come to its end.",
    "attempts.peak_flops": "FLOP/s of a large matrix product in the same process.",
    "attempts.peak_reason": "Why there is no peak.",
    "attempts.copy_bytes_per_s": "Bytes per second of a large array, read and written in place, in the same process.",
    "attempts.copy_reason": "Why there is no such figure.",
    "attempts.phases": "JSON list: seconds in each phase of the child.",
    "attempts.ending": "JSON: exit code, signal, end of what the child wrote to stderr.",
    "attempts.started_at": "Seconds since the epoch, on the clock of the device's host.",
    "attempts.duration_s": "Seconds from the request to the result, as the agent saw it.",
    "attempts.environment_hash": "",
    "attempts.batch_size": "The batch that was measured, where the largest that fits was looked for; else `NULL`.",
    "samples.attempt_id": "",
    "samples.kind": "`warmup` or `measured`.",
    "samples.count": "How many.",
    "samples.ms": "Milliseconds in the order they were taken, 8 bytes each: IEEE 754 binary64, little-endian.",
    "late_results.id": "",
    "late_results.case_id": "",
    "late_results.number": "Of the attempt that it is of.",
    "late_results.received_at": "When it came, on the clock of the head.",
    "late_results.result": "The result as JSON, samples included.",
    "quarantines.target": "`host/selector` of a device, or a host's name.",
    "quarantines.simulated": "1 where it is one of a made-up lab.",
    "quarantines.since": "",
    "quarantines.until": "When it gets cases again.",
    "quarantines.failures": "Cases in a row that failed there.",
    "quarantines.reason": "Why the last of them failed.",
    "quarantines.run_id": "The run that put it aside.",
    "runs.imported_from": "The file that a run of another store was taken in from; `NULL` for this store's own.",
    "runs.schedule": "The schedule that began it; `NULL` where a person did.",
    "schedules.name": "What people call it.",
    "schedules.added_at": "When it was added, or replaced.",
    "schedules.config_text": "The config as it was then; every run of the schedule is of this text.",
    "schedules.config_path": "Where it came from.",
    "schedules.overrides": "`--set` and `--only` as they were typed, a JSON list.",
    "schedules.simulated": "Whether its runs are of a made-up lab.",
    "schedules.is_paused": "Whether it begins no runs for now.",
    "schedules.decided_until": "Up to here on the calendar every time was decided.",
    "firings.id": "",
    "firings.schedule": "Whose time it is.",
    "firings.due_at": "The time; of a schedule each is there once.",
    "firings.begins_at": "The same and the jitter.",
    "firings.cause": "`time`, `catch_up`, or `asked` (`muster schedule run-now`).",
    "firings.state": "`waiting`, `running`, `done`, `skipped` or `missed`.",
    "firings.reason": "Why there was no run, or why it counts as none.",
    "firings.run_id": "The run that it began.",
    "firings.began_at": "When.",
    "firings.ended_at": "When all of it was over: the run, the comparison, the telling.",
    "firings.outcome": "`ok`, `failure`, `regression` or `recovery`; `NULL` before its end, and where nothing began.",
    "firings.told": "Who was told and how that went, a JSON list of lines.",
    "runs.imported_at": "When that was.",
    "cases.process": "Which of `measure.processes` fresh processes, from 1.",
    "cases.peers": "The other devices that the case holds at once, by rank, as JSON, or `NULL`.",
    "cases.company": "`alone` or `together` where `host_concurrency: both` compares the two, else `NULL`.",
    "attempts.doubts": "JSON list of what speaks against the figure.",
    "attempts.telemetry": "What the agent saw meanwhile: JSON, compressed by zlib; `NULL` where nobody looked.",
    "baselines.name": "As a person gave it.",
    "baselines.run_id": "The run that it stands for.",
    "baselines.set_at": "When it was set.",
    "noise_floors.id": "",
    "noise_floors.device_id": "`host/device`.",
    "noise_floors.device_uuid": "A GPU's UUID, else `NULL`.",
    "noise_floors.workload": "JSON, as in `cases`.",
    "noise_floors.simulated": "1 where the figures are invented.",
    "noise_floors.measured_at": "The newest one of a device and a workload counts.",
    "noise_floors.run_id": "The run that measured it.",
    "noise_floors.processes": "Fresh processes that it is made of.",
    "noise_floors.between_sd": "Standard deviation between processes, as a share of the mean.",
    "noise_floors.within_sd": "Standard deviation within a process, as a share of the mean.",
}


def store_tables() -> str:
    """Return every table of the store; raises KeyError for a column that nobody has described."""
    from orchestrator.store.tables import METADATA

    parts = []
    for stored in METADATA.tables.values():
        rows = [
            (
                code(column.name),
                str(column.type).replace("DATETIME", "DATETIME (UTC)"),
                _role(column),
                _STORED[f"{stored.name}.{column.name}"],
            )
            for column in stored.columns
        ]
        parts.append(f"### {code(stored.name)}\n\n{table(('Column', 'Type', 'Key', 'What'), rows)}")
    return "\n\n".join(parts)


def _role(column: Any) -> str:
    targets = [f"→ {code(key.target_fullname)}" for key in column.foreign_keys]
    return ", ".join((["primary"] if column.primary_key else []) + targets)


# --- the API ---------------------------------------------------------------------------------------------------


def api_routes() -> str:
    """Return a row for each route of the API, as its OpenAPI document has it."""
    app_of_api = create_app(ServeSettings(store_url="sqlite://"))
    rows = [
        (code(f"{method.upper()} {path}"), ", ".join(map(_question, found.get("parameters", []))), found["summary"])
        for path, methods in app_of_api.openapi()["paths"].items()
        for method, found in methods.items()
    ]
    return table(("Route", "Questions", "What"), rows)


def _question(parameter: Node) -> str:
    mark = "" if parameter["in"] == "path" or not parameter["required"] else " (required)"
    return f"{code(parameter['name'])}{mark}"


PARTS: Final[dict[str, Callable[[], str]]] = {
    "api": api_routes,
    "config-keys": config_keys,
    "command-line": commands,
    "errors": error_classes,
    "verdicts": verdict_kinds,
    "transitions": transitions,
    "columns": table_columns,
    "store": store_tables,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
