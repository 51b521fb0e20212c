"""What is right and wrong with hosts, one finding a check. Pure.

How a host is reached, its clock and its environment are found on the way to it, by the cluster; the rest is read from
its report.
"""

from orchestrator.diagnosis.changes import Change, changes, is_fresh
from orchestrator.diagnosis.comparison import compare
from orchestrator.diagnosis.findings import CHECKS, Finding, Gap, Level, arranged, clock_finding, gaps, worst
from orchestrator.diagnosis.host import diagnose
from orchestrator.diagnosis.software import Software

__all__ = [
    "CHECKS",
    "Change",
    "Finding",
    "Gap",
    "Level",
    "Software",
    "arranged",
    "changes",
    "clock_finding",
    "compare",
    "diagnose",
    "gaps",
    "is_fresh",
    "worst",
]
