"""The lab's hosts and devices."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from orchestrator.web.context import Here
from orchestrator.web.labstate import hosts_of, lab_of
from orchestrator.web.pages.render import page

router = APIRouter(include_in_schema=False)


@router.get("/lab")
def lab(request: Request, here: Here, simulated: bool = False) -> Response:
    """Each host with its devices: last seen, last verdict, put aside or not, and who holds it now."""
    with here.source.opened() as store:
        devices = lab_of(store, simulated=simulated)
    return page(request, here, "lab.html", hosts=hosts_of(devices), total=len(devices), simulated=simulated)
