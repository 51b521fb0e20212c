"""Pictures for pages, drawn by the same code as `muster plot`, one at a time, and kept for a while."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from orchestrator.web.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from matplotlib.figure import Figure

    from orchestrator.report.plots.style import Theme

#: Pictures that are kept; one has some 50 KiB.
_MOST_KEPT: Final = 64

#: A picture is no page: its style lies within it. It may load nothing, and no script of its runs.
PICTURE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


class Charts:
    """Draws SVG; matplotlib's settings belong to the whole process, so one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Recent[bytes] = Recent(_MOST_KEPT)

    def svg(self, key: Hashable, theme: Theme, draw: Callable[[], Figure]) -> bytes:
        """Return the picture of that key on such a page; ``draw`` is called where it is not there yet.

        Raises what ``draw`` does: :class:`orchestrator.errors.UsageError` where there is nothing to draw.
        """
        from orchestrator.report.plots.style import drawn_for, written

        with self._lock:
            found = self._kept.get((key, theme))
            if found is None:
                with drawn_for(theme):
                    found = written(draw(), "svg")
                self._kept.put((key, theme), found)
            return found
