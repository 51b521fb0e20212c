"""Which device is shown on which line. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cli.progress.picture import Picture, Seen


class Places:
    """The devices on the lines that there are, from one drawing to the next.

    A device keeps its line while it is busy, so that lines do not jump under the eyes of whoever reads them. One that
    is not gives its line to a busy one that has none.
    """

    def __init__(self) -> None:
        self._shown: list[Seen] = []

    def arrange(self, picture: Picture, room: int) -> Sequence[Seen]:
        """Return the devices of the first ``room`` lines; every one in the plan's order where there is room for all."""
        devices = picture.devices
        if len(devices) <= room:
            self._shown = list(devices.values())
            return self._shown
        shown = self._shown[:room]
        known = {seen.device.id for seen in shown}
        # As many as have lines at most are skipped, so this costs no more than the lines.
        waiting = (seen for seen in picture.busy.values() if seen.device.id not in known)
        shown = [seen if seen.is_busy else next(waiting, seen) for seen in shown]
        shown += itertools.islice(waiting, room - len(shown))
        if len(shown) < room:
            known = {seen.device.id for seen in shown}
            others = (seen for seen in devices.values() if seen.device.id not in known)
            shown += itertools.islice(others, room - len(shown))
        self._shown = shown
        return shown
