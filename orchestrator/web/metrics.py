"""``/metrics``: what Prometheus reads, by its own client library. Asked of the store at each reading."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from orchestrator.results import RunState
from orchestrator.schedules.service import LEADER
from orchestrator.schedules.state import schedule_data
from orchestrator.web.context import Here
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from orchestrator.live import LiveRun
    from orchestrator.store.repository import Store

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
def metrics(here: Here) -> Response:
    """Return every metric as Prometheus's text."""
    registry = CollectorRegistry()
    with here.source.opened() as store:
        registry.register(_OfStore(store))
        ProcessCollector(registry=registry)
        text = generate_latest(registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


class _OfStore(Collector):
    """What the store tells at one moment."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield a family at a time."""
        yield InfoMetricFamily("muster_build", "Version of muster.", value={"version": VERSION})
        yield from self._runs()
        yield from self._live()
        yield from self._quarantines()
        yield from self._schedules()

    def _runs(self) -> Iterator[Metric]:
        states = self._store.states()
        family = GaugeMetricFamily("muster_runs", "Runs in the store.", labels=["state"])
        for state in RunState:
            family.add_metric([state.value], states.get(state, 0))
        yield family

    def _live(self) -> Iterator[Metric]:
        live = self._store.live()
        cases = GaugeMetricFamily("muster_live_cases", "Cases of runs that go on.", labels=["run", "state"])
        left = GaugeMetricFamily("muster_live_eta_seconds", "Time until the end, where it is known.", labels=["run"])
        for run in live:
            for state, number in _cases(run).items():
                cases.add_metric([run.run_id, state], number)
            if run.left_s is not None:
                left.add_metric([run.run_id], run.left_s)
        yield cases
        yield left
        yield from _devices(live)

    def _quarantines(self) -> Iterator[Metric]:
        now = datetime.datetime.now(datetime.timezone.utc)
        family = GaugeMetricFamily("muster_quarantined", "1 for each that is put aside.", labels=["target"])
        for one in self._store.quarantines(now, simulated=False):
            family.add_metric([one.target], 1)
        yield family

    def _schedules(self) -> Iterator[Metric]:
        found = [schedule_data(self._store.schedules, each) for each in self._store.schedules.every()]
        leads = GaugeMetricFamily("muster_scheduler_at_work", "1 while a scheduler leads.")
        leads.add_metric([], LEADER in self._store.at_work())
        paused = GaugeMetricFamily("muster_schedule_paused", "1 while it begins no runs.", labels=["schedule"])
        coming = GaugeMetricFamily(
            "muster_schedule_next_timestamp_seconds", "When its next run begins.", labels=["schedule"]
        )
        last = GaugeMetricFamily(
            "muster_schedule_last_outcome", "1 for what came of its last time.", labels=["schedule", "outcome"]
        )
        for each in found:
            paused.add_metric([each["name"]], each["is_paused"])
            if each["next_at"] is not None:
                coming.add_metric([each["name"]], datetime.datetime.fromisoformat(each["next_at"]).timestamp())
            if each["last"] is not None:
                last.add_metric([each["name"], each["last"]["outcome"] or each["last"]["state"]], 1)
        yield from (leads, paused, coming, last)


def _cases(run: LiveRun) -> dict[str, int]:
    return {"figure": run.done - run.failed, "failed": run.failed, "open": run.total - run.done}


def _devices(live: tuple[LiveRun, ...]) -> Iterator[Metric]:
    labels = ["run", "host", "device"]
    counted = GaugeMetricFamily("muster_live_devices", "Devices by what they do.", labels=["run", "activity"])
    figures = {
        "last_ms": GaugeMetricFamily("muster_device_step_milliseconds", "The last step.", labels=labels),
        "temperature_c": GaugeMetricFamily("muster_device_temperature_celsius", "As read last.", labels=labels),
        "power_w": GaugeMetricFamily("muster_device_power_watts", "As read last.", labels=labels),
    }
    for run in live:
        for activity, number in sorted(Counter(device.activity for device in run.devices).items()):
            counted.add_metric([run.run_id, activity], number)
        for device in run.devices:
            for name, family in figures.items():
                value: float | None = getattr(device, name)
                if value is not None:
                    family.add_metric([run.run_id, device.host, device.id], value)
    yield from (counted, *figures.values())
