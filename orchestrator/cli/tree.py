"""What `muster devices` shows: lab, hosts, devices as a tree, each gap with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.inventory import spans
from orchestrator.report.console import drawing_console, drawn
from orchestrator.report.printable import printable
from orchestrator.report.words import count
from workers.protocol import DeviceKind, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from orchestrator.diagnosis import Gap
    from orchestrator.inventory import DeclaredDevice, Inventory
    from workers.protocol import Device, HostReport

#: What rich draws before a branch, for each level above it.
_GUIDE_WIDTH: Final = 4
#: The narrowest that a line is wrapped to.
_NARROWEST: Final = 20

#: Facts of a host's line, each with what is written before it.
_SYSTEM: Final = (("host.os", ""), ("python.version", "Python "), ("gpu.driver", "driver "))


def draw(lab: str, inventory: Inventory, *, width: int | None, color: bool) -> str:
    """Return the hosts of a lab in the config's order, with what each has and what it lacks, and a line that counts."""
    from rich.tree import Tree

    console = drawing_console(width, color)
    tree = Tree(_text(printable(lab), "bold"), guide_style="dim")
    for host in dict.fromkeys(entry.device.host for entry in inventory.declared):
        _add_host(tree, host, inventory, console)
    console.print(tree)
    console.print()
    console.print(_total(inventory))
    return drawn(console)


def _add_host(tree: Tree, host: str, inventory: Inventory, console: Console) -> None:
    report = inventory.report_of(host)
    entries = [entry for entry in inventory.declared if entry.device.host == host]
    undeclared = [device for device in inventory.undeclared if device.host == host]
    absence = _absence(entries)
    branch = tree.add(_hanging(_host(host, report, absence), console, depth=1, indent=2))
    column = max(len(device.selector) for device in (*(entry.device for entry in entries), *undeclared))
    frameworks = report.frameworks if report is not None else ()
    leaves = [
        *(_declared(entry, report, column, absence) for entry in entries),
        *(_device(device, report, column).append("  (not in the config)", "dim") for device in undeclared),
        *(
            _text(printable(f"{each.name} {each.version or each.reason or 'to be installed'}"), "dim")
            for each in frameworks
        ),
    ]
    for leaf in leaves:
        branch.add(_hanging(leaf, console, depth=2, indent=column + 2))


def _hanging(text: Text, console: Console, *, depth: int, indent: int) -> Text:
    """Return ``text`` wrapped to what is left of the width at that depth, its further lines set in."""
    first, *rest = text.wrap(console, max(console.width - _GUIDE_WIDTH * depth, _NARROWEST))
    # Less room for all but the first line: what does not fit there is taken together and wrapped anew.
    if rest:
        others = _text("").join([_stripped(line).append(" ") for line in rest])
        rest = list(others.wrap(console, max(console.width - _GUIDE_WIDTH * depth - indent, _NARROWEST)))
    return _text("\n").join([_stripped(first), *(_text(" " * indent).append_text(_stripped(line)) for line in rest)])


def _stripped(line: Text) -> Text:
    line.rstrip()
    return line


def _absence(entries: Sequence[DeclaredDevice]) -> Gap | None:
    """Return why nothing of a host can be measured, where that is one reason: it is told once, with the host."""
    gaps = {entry.gap for entry in entries}
    gap = gaps.pop()
    return None if gaps or gap is None or gap.verdict is Verdict.DEVICE_MISSING else gap


def _host(host: str, report: HostReport | None, absence: Gap | None) -> Text:
    text = _text(printable(host), "bold")
    if report is not None:
        facts = [(before, report.environment.get(name).value) for name, before in _SYSTEM]
        known = [f"{before}{value}" for before, value in facts if value is not None]
        text.append(_joined(*known, report.cpu.memory))
    return text if absence is None else text.append_text(_gap(absence))


def _gap(gap: Gap) -> Text:
    return _text("  ").append(gap.verdict.value, "bold red").append(f": {printable(gap.reason)}")


def _declared(entry: DeclaredDevice, report: HostReport | None, column: int, absence: Gap | None) -> Text:
    if entry.gap is None or (entry.gap == absence and report is not None):
        return _device(entry.device, report, column)
    selector = _text(entry.device.selector.ljust(column))
    return selector if entry.gap == absence else selector.append_text(_gap(entry.gap))


def _device(device: Device, report: HostReport | None, column: int) -> Text:
    details = _gpu(device, report) if device.kind is DeviceKind.GPU else _cpu(device, report)
    return _text(device.selector.ljust(column)).append(
        _joined(device.name, device.memory or "memory unknown", *details)
    )


def _gpu(device: Device, report: HostReport | None) -> list[str | None]:
    gpus = report.gpus if report is not None else ()
    state = next((gpu.state for gpu in gpus if gpu.index == device.index), None)
    if state is None:
        return [device.uuid]
    node = state.numa_node.value
    return [None if node is None else f"NUMA {node}", "in use" if state.processes else None, device.uuid]


def _cpu(device: Device, report: HostReport | None) -> list[str | None]:
    cores = set(device.cores)
    nodes = [node for node, members in report.cpu.numa if cores & set(members)] if report is not None else []
    return [
        f"{count(len(device.cores), 'core')} ({spans(device.cores)})",
        f"NUMA {spans(nodes)}" if nodes else None,
    ]


def _joined(*parts: str | None) -> str:
    """Return what is known, behind two blanks; nothing where nothing is."""
    known = ", ".join(printable(part) for part in parts if part)
    return f"  {known}" if known else ""


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style)


def _total(inventory: Inventory) -> Text:
    hosts = {entry.device.host for entry in inventory.declared}
    usable = sum(entry.gap is None for entry in inventory.declared)
    missing = len(inventory.declared) - usable
    text = f"{count(len(hosts), 'host')}, {count(usable, 'device')} to be measured"
    return _text(f"{text}, {missing} that cannot be" if missing else text)
