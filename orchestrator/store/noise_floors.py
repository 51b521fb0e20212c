"""How far apart figures of one thing lie on a device, as it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from orchestrator.results import NoiseFloor
from orchestrator.store.tables import NOISE_FLOORS
from workers import codec
from workers.protocol import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row


def save(connection: Connection, floors: Sequence[NoiseFloor], *, simulated: bool) -> None:
    """Keep floors beside the older ones."""
    if floors:
        connection.execute(insert(NOISE_FLOORS), [_values(floor, simulated=simulated) for floor in floors])


def newest(connection: Connection, *, simulated: bool) -> tuple[NoiseFloor, ...]:
    """Return the newest floor of each workload on each device, by device and as they were kept."""
    in_order = select(NOISE_FLOORS).where(NOISE_FLOORS.c.simulated == simulated)
    found = {}
    for row in connection.execute(in_order.order_by(NOISE_FLOORS.c.device_id, NOISE_FLOORS.c.id)):
        found[row.device_id, row.device_uuid, row.workload] = row
    return tuple(map(_floor, found.values()))


def _values(floor: NoiseFloor, *, simulated: bool) -> dict[str, Any]:
    return {
        "device_id": floor.device_id,
        "device_uuid": floor.device_uuid,
        "workload": codec.to_json(floor.workload),
        "simulated": simulated,
        "measured_at": floor.measured_at,
        "run_id": floor.run_id,
        "processes": floor.processes,
        "between_sd": floor.between_sd,
        "within_sd": floor.within_sd,
    }


def _floor(row: Row[Any]) -> NoiseFloor:
    return NoiseFloor(
        device_id=row.device_id,
        device_uuid=row.device_uuid,
        workload=codec.from_json(Workload, row.workload),
        measured_at=row.measured_at,
        run_id=row.run_id,
        processes=row.processes,
        between_sd=row.between_sd,
        within_sd=row.within_sd,
    )
