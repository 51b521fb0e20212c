"""Where results are kept: durable, one transaction a result.

``with open_store(url) as store`` is the way in; :class:`orchestrator.store.repository.Store` is what it gives.
"""

from orchestrator.store.opening import open_store

__all__ = ["open_store"]
