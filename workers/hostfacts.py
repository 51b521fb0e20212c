"""What is known of a host and a device, gathered beside the first case so that it need not wait for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from workers import probe
from workers.gpufacts import gpu_facts
from workers.protocol import DeviceKind, Environment, Fact

if TYPE_CHECKING:
    from workers.protocol import Device

#: The probe takes a tenth of a second; a stuck driver may hold it for ever, and must not hold a result.
PROBE_TIMEOUT_S: Final = 10.0


def _of_device(device: Device) -> Environment:
    """Return how a GPU is made and set; a CPU device is told of by its host."""
    if device.kind is DeviceKind.CPU:
        return Environment()
    return Environment(facts=tuple(sorted(gpu_facts(device.uuid).items())))


class HostFacts:
    """The probe's facts, and a GPU's own; they are sought from the moment that this is made."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._found = Environment(
            facts=(("host.probe", Fact(value=None, reason=f"no answer within {PROBE_TIMEOUT_S:g} s")),)
        )
        self._thread = threading.Thread(target=self._probe, name="host-facts", daemon=True)
        self._thread.start()

    def environment(self) -> Environment:
        """Return what was found, waiting for it for :data:`PROBE_TIMEOUT_S` at most."""
        self._thread.join(PROBE_TIMEOUT_S)
        return self._found

    def _probe(self) -> None:
        try:
            self._found = probe.host_report(self._device.host).environment.merged(_of_device(self._device))
        except Exception as error:  # facts are worth having, but never worth a result
            self._found = Environment(facts=(("host.probe", Fact(value=None, reason=str(error))),))
