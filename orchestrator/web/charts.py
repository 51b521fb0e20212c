"""Pictures for pages, drawn by the same code as `muster plot`, one at a time, and kept for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

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
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()

    def svg(self, key: Hashable, theme: Theme, draw: Callable[[], Figure]) -> bytes:
        """Return the picture of that key on such a page; ``draw`` is called where it is not there yet.

        Raises what ``draw`` does: :class:`orchestrator.errors.UsageError` where there is nothing to draw.
        """
        from orchestrator.report.plots.style import drawn_for, written

        name = (key, theme)
        with self._lock:
            if name not in self._kept:
                with drawn_for(theme):
                    self._kept[name] = written(draw(), "svg")
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
            return self._kept[name]
