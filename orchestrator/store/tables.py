"""The tables. Only :mod:`orchestrator.store.repository` and the migrations know of them.

Portable types throughout: text, integers, doubles, bytes. Times are UTC. JSON is canonical text by
:mod:`workers.codec`, so that equal values are equal text in every database.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

if TYPE_CHECKING:
    from sqlalchemy import Dialect

#: Every constraint has a name that is the same in every database, so that a later step can name it.
METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime.datetime]):
    """A time with its zone, kept as UTC without one: not every database keeps zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Return UTC without a zone; raises ValueError for a time that has none, for it could be any."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(datetime.timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Return UTC, with its zone."""
        return value and value.replace(tzinfo=datetime.timezone.utc)


RUNS: Final = Table(
    "runs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("finished_at", UtcDateTime),
    Column("state", String, nullable=False),
    Column("config_text", Text, nullable=False),
    Column("config_path", String, nullable=False),
    # JSON list of text.
    Column("overrides", Text, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("muster_version", String, nullable=False),
    # No foreign key: a run may be taken out of the store before those that repeat it.
    Column("rerun_of", String),
    # The file that a run of another store was taken in from, and when; NULL for this store's own.
    Column("imported_from", String),
    Column("imported_at", UtcDateTime),
    # Name of the schedule that began it, or NULL. No foreign key: a schedule may be removed before its runs.
    Column("schedule", String, index=True),
)

#: Configs whose runs begin by themselves.
SCHEDULES: Final = Table(
    "schedules",
    METADATA,
    Column("name", String, primary_key=True),
    Column("added_at", UtcDateTime, nullable=False),
    Column("config_text", Text, nullable=False),
    Column("config_path", String, nullable=False),
    # JSON list of text.
    Column("overrides", Text, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("is_paused", Boolean, nullable=False),
    Column("decided_until", UtcDateTime, nullable=False),
)

#: Each time of a schedule, once, and what came of it.
FIRINGS: Final = Table(
    "firings",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("schedule", String, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("begins_at", UtcDateTime, nullable=False),
    Column("cause", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("reason", Text),
    Column("run_id", String),
    Column("began_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("outcome", String),
    # JSON list of text.
    Column("told", Text, nullable=False),
    UniqueConstraint("schedule", "due_at"),
)

#: One row for each different environment, under the sha256 of its JSON: most attempts share one.
ENVIRONMENTS: Final = Table(
    "environments",
    METADATA,
    Column("hash", String, primary_key=True),
    Column("json", Text, nullable=False),
)

CASES: Final = Table(
    "cases",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("key", String, nullable=False),
    Column("device_id", String, nullable=False),
    Column("device", Text, nullable=False),
    Column("workload", Text, nullable=False),
    Column("sampling", Text, nullable=False),
    Column("method_version", Integer, nullable=False),
    # NULL while the case has not ended.
    Column("verdict", String),
    Column("reason", Text),
    # Which of several fresh processes for one workload; and in what company, or NULL.
    Column("process", Integer, nullable=False, server_default="1"),
    Column("company", String),
    # The other devices of a case that holds several, as JSON, or NULL.
    Column("peers", Text),
    UniqueConstraint("run_id", "key"),
    UniqueConstraint("run_id", "position"),
    Index(None, "device_id", "workload"),
)

ATTEMPTS: Final = Table(
    "attempts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("case_id", ForeignKey("cases.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("verdict", String, nullable=False),
    Column("reason", Text),
    Column("stopped_by", String),
    Column("peak_flops", Double),
    Column("peak_reason", Text),
    Column("phases", Text, nullable=False),
    Column("ending", Text, nullable=False),
    # Seconds since the epoch on the clock of the device's host, exactly as it was reported.
    Column("started_at", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("environment_hash", ForeignKey("environments.hash"), nullable=False),
    # The batch that was measured, where the case's workload looks for the largest that fits.
    Column("batch_size", Integer),
    # What speaks against the figure, as JSON.
    Column("doubts", Text, nullable=False, server_default="[]"),
    # What the agent saw meanwhile, as JSON that zlib has compressed; NULL where nobody looked.
    Column("telemetry", LargeBinary),
    Column("copy_bytes_per_s", Double),
    Column("copy_reason", Text),
    UniqueConstraint("case_id", "number"),
)

SAMPLES: Final = Table(
    "samples",
    METADATA,
    Column("attempt_id", ForeignKey("attempts.id"), primary_key=True),
    # 'warmup' or 'measured'.
    Column("kind", String, primary_key=True),
    Column("count", Integer, nullable=False),
    # Milliseconds in the order they were taken, each 8 bytes: IEEE 754 binary64, little-endian.
    Column("ms", LargeBinary, nullable=False),
)

#: Results whose attempt had been given up or tried again before they came. Whole and apart, so that no question about
#: attempts and samples can take one for a figure.
LATE_RESULTS: Final = Table(
    "late_results",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("case_id", ForeignKey("cases.id"), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    # The result as JSON, samples included.
    Column("result", Text, nullable=False),
)

#: Devices and hosts that are put aside; a made-up lab's never keep a real one from its work.
QUARANTINES: Final = Table(
    "quarantines",
    METADATA,
    Column("target", String, primary_key=True),
    Column("simulated", Boolean, primary_key=True),
    Column("since", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("run_id", String, nullable=False),
)

#: Runs that others are compared with, by names that people gave them.
BASELINES: Final = Table(
    "baselines",
    METADATA,
    Column("name", String, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("set_at", UtcDateTime, nullable=False),
)

#: Where each run that goes on is, as its head said last; of a head that was killed a row stays, and counts for nothing.
LIVE: Final = Table(
    "live",
    METADATA,
    Column("run_id", String, primary_key=True),
    # JSON.
    Column("state", Text, nullable=False),
)

#: How far apart figures of one case in fresh processes lie on a device, as measured; the newest one counts.
NOISE_FLOORS: Final = Table(
    "noise_floors",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("device_id", String, nullable=False),
    # A GPU's UUID, or NULL: another card in the same slot has another floor.
    Column("device_uuid", String),
    Column("workload", Text, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("measured_at", UtcDateTime, nullable=False),
    # No foreign key: the floor holds also when its run has been taken out of the store.
    Column("run_id", String, nullable=False),
    Column("processes", Integer, nullable=False),
    # Standard deviations between and within processes, as shares of the mean.
    Column("between_sd", Double, nullable=False),
    Column("within_sd", Double, nullable=False),
    Index(None, "device_id", "workload"),
)
