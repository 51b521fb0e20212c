"""Which hosts give signs of life. Pure: whoever asks says what time it is.

Ray by itself takes a minute to notice a cut network. Every answer of an agent counts here, and one that has given none
for a while is asked for nothing but that.
"""

from __future__ import annotations

from typing import Final

#: Seconds without an answer after which an agent is asked for a sign of life.
BEAT_S: Final = 3.0

#: Seconds without an answer of any of its agents after which a host counts as silent. With the pause above, a host is
#: told of within 15 s of its last word.
SILENCE_S: Final = 12.0


class Heartbeat:
    """The hosts that have agents, and when each was heard last; times in seconds."""

    def __init__(self, silence_s: float = SILENCE_S) -> None:
        self._silence_s = silence_s
        self._devices: dict[str, set[str]] = {}
        self._heard_at: dict[str, float] = {}
        self._silent: set[str] = set()

    @property
    def silent(self) -> frozenset[str]:
        """Hosts that were told of as silent, and not heard since."""
        return frozenset(self._silent)

    def watch(self, host: str, device_id: str, at: float) -> bool:
        """An agent of the host is up and has answered; return whether the host was silent until now."""
        self._devices.setdefault(host, set()).add(device_id)
        return self.hear(host, at)

    def forget(self, host: str, device_id: str) -> None:
        """An agent is gone, or let go. A host without any is not watched; a silent one stays so until it is heard."""
        devices = self._devices.get(host, set())
        devices.discard(device_id)
        if not devices:
            self._devices.pop(host, None)
            self._heard_at.pop(host, None)

    def hear(self, host: str, at: float) -> bool:
        """An agent of the host has answered; return whether the host was silent until now."""
        if host not in self._devices:
            return False
        self._heard_at[host] = at
        was_silent = host in self._silent
        self._silent.discard(host)
        return was_silent

    def fallen_silent(self, at: float) -> list[str]:
        """Return the hosts that have just now been unheard for too long; each once until it is heard again."""
        fallen = [
            host
            for host, heard_at in self._heard_at.items()
            if host not in self._silent and at - heard_at >= self._silence_s
        ]
        self._silent.update(fallen)
        return fallen

    def begin_anew(self, at: float) -> None:
        """Count every silence from now on: it was ourselves who did not listen."""
        self._heard_at = dict.fromkeys(self._heard_at, at)
