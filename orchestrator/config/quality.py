"""The part of the grammar that says from when on a figure is doubtful."""

from __future__ import annotations

from pydantic import Field

from orchestrator.config.kinds import Keys, Share


class QualityConfig(Keys):
    """What a figure's evidence may show before its verdict says that it is doubtful; null for no limit."""

    max_dispersion: Share | None = Field(
        0.1, description="Spread of the counted steps: their robust standard deviation over their median: 10%."
    )
    max_drift: Share | None = Field(
        0.05, description="How much slower or faster the last counted steps may be than the first, by their trend: 5%."
    )
    max_warmup: Share | None = Field(
        0.1, description="How much slower the first counted steps may be than the others: 10%. Above, warm up longer."
    )
    max_clock_drop: Share | None = Field(
        0.1, description="How far the device's clock may fall below the highest of the measurement: 10%."
    )
    max_clock_change: Share | None = Field(
        0.05, description="How far the device's clock may be from that of the case's other processes: 5%."
    )
    max_steal: Share | None = Field(
        0.05, description="Share of the cores' time that the hypervisor may give to other machines: 5%."
    )
    max_others: Share | None = Field(
        0.1, description="Share of the case's cores that other processes may use while it is measured: 10%."
    )
