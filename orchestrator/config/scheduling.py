"""When runs start by themselves, who hears of them, and how long they are kept."""

from __future__ import annotations

import datetime
import enum
import re
import zoneinfo
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.config.kinds import Keys, Line, Positive, Seconds, Swept, problem, text_schema

#: ``22:00-06:00``, and the weekdays on which it begins: ``08:00-18:00 mon-fri``.
QUIET_FORM: Final = re.compile(
    r"(?P<from>\d{2}:\d{2})-(?P<to>\d{2}:\d{2})(?: (?P<days>[a-z]{3}(?:-[a-z]{3})?(?:,[a-z]{3}(?:-[a-z]{3})?)*))?"
)
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_NOON: Final = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone.utc)


class Overlap(str, enum.Enum):
    """What becomes of a time that comes while the schedule's last run still goes on."""

    SKIP = "skip"
    QUEUE = "queue"


class CatchUp(str, enum.Enum):
    """What becomes of times that passed while no scheduler was at work."""

    NONE = "none"
    ONE = "one"


class Occasion(str, enum.Enum):
    """What of a run somebody is told."""

    REGRESSION = "regression"
    FAILURE = "failure"
    RECOVERY = "recovery"
    ALWAYS = "always"


class MailSecurity(str, enum.Enum):
    """How the way to a mail server is encrypted."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


def _cron(text: str) -> str:
    if len(text.split()) not in (5, 6):
        raise problem(f"{text!r} is no cron line: expected minute, hour, day, month, weekday, such as 0 3 * * *")
    try:
        next(CronSim(text, _NOON))
    except CronSimError as error:
        raise problem(f"{text!r} is no cron line: {str(error)[:1].lower()}{str(error)[1:]}") from None
    return text


def _zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise problem(f"there is no time zone {name!r}: expected an IANA name, such as Europe/Berlin or UTC") from None
    return name


def _quiet(text: str) -> str:
    found = QUIET_FORM.fullmatch(text)
    times = () if found is None else (found["from"], found["to"])
    days = () if found is None else re.findall("[a-z]{3}", found["days"] or "")
    is_sound = all(_is_time(time) for time in times) and all(day in DAYS for day in days)
    if not times or not is_sound or times[0] == times[1]:
        raise problem(f"{text!r} is no quiet window: expected 22:00-06:00, or 08:00-18:00 mon-fri")
    return text


def _is_time(text: str) -> bool:
    hour, minute = map(int, text.split(":"))
    return hour < 24 and minute < 60


def _day(text: object) -> str:
    try:
        # YAML makes a date of what looks like one.
        return datetime.date.fromisoformat(str(text)).isoformat()
    except ValueError:
        raise problem(f"{text!r} is no date: expected 2026-12-31") from None


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise problem(f"{text!r} is no webhook: expected https://host/path")
    if parts.username or parts.password:
        raise problem("a webhook's URL holds no password: keep the whole URL elsewhere, with url_env or url_file")
    return text


Cron: TypeAlias = Annotated[Line, AfterValidator(_cron), text_schema("five cron fields, such as 0 3 * * *")]
Zone: TypeAlias = Annotated[Line, AfterValidator(_zone), text_schema("a time zone, such as Europe/Berlin")]
Quiet: TypeAlias = Annotated[Line, AfterValidator(_quiet), text_schema("a window, such as 08:00-18:00 mon-fri")]
Day: TypeAlias = Annotated[str, BeforeValidator(_day), text_schema("a date, such as 2026-12-31")]
WebhookUrl: TypeAlias = Annotated[Line, AfterValidator(_url), text_schema("a URL, such as https://host/path")]


class ScheduleConfig(Keys):
    """When runs start by themselves."""

    cron: Cron = Field(
        description=(
            "Five cron fields: minute, hour, day, month, weekday; `0 3 * * *` is 3 every night. Of six the first is"
            " seconds."
        )
    )
    timezone: Zone = Field("UTC", description="Time zone of `cron` and `quiet`, by its IANA name: Europe/Berlin.")
    jitter_s: Seconds | None = Field(
        None,
        alias="jitter",
        description="Start up to this much later, by chance, so that labs do not all start at once.",
    )
    quiet: Swept[Quiet] | None = Field(
        None, description="Windows in which no run begins; times in them are left out: 08:00-18:00 mon-fri."
    )
    when_idle: bool = Field(
        False,
        description=(
            "Wait until no other run, of this store or another muster, is at work and no host is busy; an hour at most."
        ),
    )
    overlap: Overlap = Field(
        Overlap.SKIP, description="A time that comes while the last run still goes on: skip it, or queue one behind."
    )
    catch_up: CatchUp = Field(
        CatchUp.ONE, description="Times that passed while no scheduler was at work: none of them, or one for all."
    )
    ends: Day | None = Field(None, description="The last day on which a run begins, in the schedule's time zone.")
    keep_runs: Positive | None = Field(
        None, description="Newest runs of this schedule to keep; older ones are removed, but for baselines."
    )
    baseline: Line | None = Field(
        None, description="Baseline that each run is compared with; without it the schedule's last run that was fine."
    )


class WebhookConfig(Keys):
    """A URL that is told, as JSON."""

    url: WebhookUrl | None = Field(None, description="Where to; or url_env, or url_file.")
    url_env: Line | None = Field(None, description="Environment variable that holds the URL.")
    url_file: Line | None = Field(None, description="File that holds the URL.")
    secret_env: Line | None = Field(None, description="Environment variable that holds the secret to sign with.")
    secret_file: Line | None = Field(None, description="File that holds the secret to sign with.")
    timeout_s: Seconds = Field(10.0, alias="timeout", description="How long one try may take.")

    @model_validator(mode="after")
    def _check(self) -> WebhookConfig:
        if sum(given is not None for given in (self.url, self.url_env, self.url_file)) != 1:
            raise problem("a webhook needs one of url, url_env and url_file")
        if self.secret_env is not None and self.secret_file is not None:
            raise problem("secret_env and secret_file exclude each other")
        return self


class EmailConfig(Keys):
    """People who are told by e-mail."""

    to: Swept[Line] = Field(description="Addresses.")
    sender: Line = Field(alias="from", description="Address that it comes from.")
    host: Line = Field(description="The mail server.")
    port: Positive | None = Field(None, description="Its port; 587, 465 with tls, 25 with none.")
    security: MailSecurity = Field(MailSecurity.STARTTLS, description="starttls, tls, or none.")
    user: Line | None = Field(None, description="Name to log in with; without it nobody logs in.")
    password_env: Line | None = Field(None, description="Environment variable that holds the password.")
    password_file: Line | None = Field(None, description="File that holds the password.")
    timeout_s: Seconds = Field(30.0, alias="timeout", description="How long one try may take.")

    @model_validator(mode="after")
    def _check(self) -> EmailConfig:
        given = sum(each is not None for each in (self.password_env, self.password_file))
        if given > 1 or (self.user is not None) != (given == 1):
            raise problem("user and one of password_env and password_file belong together")
        if self.user is not None and self.security is MailSecurity.NONE:
            raise problem("a password is never sent without encryption: security starttls or tls")
        return self


class NotifyConfig(Keys):
    """Who is told how a scheduled run ended."""

    on: Swept[Occasion] = Field(
        (Occasion.REGRESSION, Occasion.FAILURE, Occasion.RECOVERY),
        description=(
            "regression: slower than the baseline; failure: a case without a figure, or no run; recovery: the first run"
            " without either after one with; always: every run."
        ),
    )
    command: Swept[Line] | None = Field(
        None,
        description="Program and arguments, run without a shell; the notice is JSON on its standard input.",
    )
    webhook: WebhookConfig | None = Field(None, description="A URL that is told, as JSON.")
    email: EmailConfig | None = Field(None, description="People who are told by e-mail.")
    attempts: Positive = Field(4, description="How often each of them is tried, with longer pauses each time.")

    @model_validator(mode="after")
    def _check(self) -> NotifyConfig:
        if self.command is None and self.webhook is None and self.email is None:
            raise problem("it says nobody to tell: give command, webhook or email")
        return self


class RetentionConfig(Keys):
    """Which old runs `muster prune` removes from the store."""

    keep_runs: Positive | None = Field(None, description="Newest runs to keep; all if not given.")
    keep_for_s: Seconds | None = Field(None, alias="keep_for", description="Remove runs older than this: 90d.")

    @model_validator(mode="after")
    def _check(self) -> RetentionConfig:
        if self.keep_runs is None and self.keep_for_s is None:
            raise problem("it says neither keep_runs nor keep_for")
        return self
