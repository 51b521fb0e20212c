"""The kinds of values that a config's keys take, and the marks and errors that go with them.

Each kind checks itself and says in the JSON Schema what it expects.
"""

from __future__ import annotations

import enum
import pkgutil
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

import workers
from orchestrator.config.quantities import DURATION_FORMS, SHARE_FORMS, format_duration, parse_duration, parse_share
from orchestrator.config.selectors import (
    HOST_NAME_FORMS,
    MAX_HOSTS,
    SELECTOR_FORMS,
    DeviceSelector,
    count_hosts,
    parse_selector,
)
from workers import models, ops
from workers.ops.base import UnknownOperationError
from workers.orders import PORTS_IN_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

T = TypeVar("T")

#: Marks a key in the JSON Schema as one that muster knows and cannot do yet; its value says what is missing.
NOT_YET: Final = "x-not-supported-yet"
#: Beside it: values of that form are supported all the same.
EXCEPT: Final = "x-except"
#: In the JSON Schema: what is expected, in words, where type and bounds do not tell.
EXPECTED: Final = "x-expected"

PORT_FORMS: Final = f"a range of at least {PORTS_IN_BLOCK} ports between 1024 and 65535, such as 26000-26999"

STORE_FORMS: Final = "the store's URL, such as sqlite:///muster.db"

BATCH_SIZE_FORMS: Final = "a whole number of at least 1, or max"

THREADS_FORMS: Final = "a whole number of at least 1, or all"

#: The largest number that every part of muster, and every database, can hold.
_MOST: Final = 2**31 - 1

#: Kinds of pydantic errors that are ours: ``expected`` completes "expected …", ``problem`` stands alone.
EXPECTED_ERROR: Final = "muster_expected"
CHOICE_ERROR: Final = "muster_choice"
PROBLEM_ERROR: Final = "muster_problem"
NOT_YET_ERROR: Final = "muster_not_yet"


class Across(str, enum.Enum):
    """The devices that take part in an operation of several: all of a kind."""

    HOST = "host"
    HOSTS = "hosts"


class Largest(str, enum.Enum):
    """In place of a batch size: the largest that fits."""

    MAX = "max"


class Cores(str, enum.Enum):
    """In place of a number of threads: as many as the device has cores."""

    ALL = "all"


W = TypeVar("W", Largest, Cores)


def not_yet(feature: str, *, supported: str | None = None) -> dict[str, Any]:
    """Return the mark of a key that is not built yet; values that match ``supported``, and its default, are."""
    return {NOT_YET: feature} | ({EXCEPT: supported} if supported else {})


def expected(text: str) -> PydanticCustomError:
    """Return the error of a value that is not what ``text`` says."""
    return PydanticCustomError(EXPECTED_ERROR, "{expected}", {"expected": text})


def choice(names: tuple[str, ...]) -> PydanticCustomError:
    """Return the error of a value that is none of ``names``."""
    return PydanticCustomError(CHOICE_ERROR, "one of {names}", {"names": ", ".join(names), "choices": list(names)})


def problem(text: str) -> PydanticCustomError:
    """Return an error whose text stands alone."""
    return PydanticCustomError(PROBLEM_ERROR, "{text}", {"text": text})


class SwitchSchema:
    """In the JSON Schema: the words of a switch, and the truths that YAML makes of two of them."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": ["auto", "on", "off", True, False], EXPECTED: "auto, on or off"}


class _OneOrMany:
    """In the JSON Schema: a list may be written as its only entry."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        node = handler(core_schema)
        return {"anyOf": [node["items"], node]}


def _host_address(value: str) -> str:
    if re.search(r"[{}\s]", value.replace("{name}", "")):
        raise expected("an address without spaces; of names in braces only {name} is known")
    return value


def _store_url(value: str) -> str:
    if not re.match(r"(sqlite:///.|(?!sqlite:)[a-z]+(\+[a-z0-9]+)?://[^/])", value):
        raise expected(STORE_FORMS)
    if re.search(r"://[^/?#]*:[^/?#]*@|[?&]password=", value):
        raise problem("it has a password in it, and a config is kept with every run: use ~/.pgpass or PGPASSWORD")
    return value


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _parsed(parse: Callable[[Any], T], value: object) -> T:
    """Return ``parse(value)``; its ValueError says what was expected."""
    try:
        return parse(value)
    except ValueError as error:
        raise expected(str(error)) from error


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise expected(DURATION_FORMS)
    return _parsed(parse_duration, value)


def _port_range(value: object) -> tuple[int, int]:
    """Return first and last port of ``26000-26999``."""
    found = re.fullmatch(r"([0-9]{4,5})-([0-9]{4,5})", value) if isinstance(value, str) else None
    if found is None:
        raise expected(PORT_FORMS)
    first, last = int(found[1]), int(found[2])
    if not 1024 <= first <= last - PORTS_IN_BLOCK + 1 <= 65_536 - PORTS_IN_BLOCK:
        raise expected(PORT_FORMS)
    return first, last


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise expected(SHARE_FORMS)
    return _parsed(parse_share, value)


def _selector(value: object) -> DeviceSelector:
    if isinstance(value, DeviceSelector):
        return value
    if not isinstance(value, str):
        raise expected(f"a device: {SELECTOR_FORMS}; one with a comma needs quotes")
    return _parsed(parse_selector, value)


def _host_name(value: object) -> str:
    if not isinstance(value, str):
        raise expected(HOST_NAME_FORMS)
    if _parsed(count_hosts, value) > MAX_HOSTS:
        raise expected(f"at most {MAX_HOSTS:,} hosts")
    return value


def framework_names() -> tuple[str, ...]:
    """Return the frameworks that there are, by their files' names; imports none of them."""
    folders = [f"{folder}/frameworks" for folder in workers.__path__]
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folders) if module.name != "base"))


def _number_or(word: W, forms: str) -> Callable[[object], int | W]:
    """Return what takes a number or the word; bounds are those of :data:`Positive`."""

    def parse(value: object) -> int | W:
        if value is word or value == word.value:
            return word
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise expected(forms)
        if value > _MOST:
            raise expected(f"a number of at most {_MOST:,}")
        return value

    return parse


def _number_or_word(word: Largest | Cores, forms: str) -> WithJsonSchema:
    """Return what the JSON Schema says of a number or the word."""
    bounds = {"minimum": 1, "maximum": _MOST, "pattern": f"^{word.value}$"}
    return WithJsonSchema({"type": ["integer", "string"], **bounds, EXPECTED: forms})


def _plain(value: int | Largest | Cores) -> int | str:
    return value if isinstance(value, int) else value.value


def _model(value: object) -> str:
    if not isinstance(value, str) or value not in models.names():
        raise choice(models.names())
    return value


def _operation(value: object) -> str:
    if not isinstance(value, str) or value not in ops.kinds():
        raise choice(ops.kinds())
    return value


def _problem(value: object) -> str:
    """Return the name of a set of problems, or of one operation."""
    if not isinstance(value, str) or not (value in ops.set_names() or ops.is_operation(value)):
        raise choice((*ops.set_names(), "the name of an operation, such as gemm/m1760-n128-k1760-nn"))
    if ops.is_operation(value):
        try:
            ops.get(value)
        except UnknownOperationError as error:
            raise problem(str(error)) from None
    return value


def _framework(value: object) -> str:
    if not isinstance(value, str) or value not in framework_names():
        raise choice(framework_names())
    return value


def text_schema(expected: str) -> WithJsonSchema:
    """Return what the JSON Schema says of a kind of text."""
    return WithJsonSchema({"type": "string", "minLength": 1, EXPECTED: expected})


#: A list, or its only entry as it is.
Swept: TypeAlias = Annotated[tuple[T, ...], Field(min_length=1), BeforeValidator(_listed), _OneOrMany()]
Seconds: TypeAlias = Annotated[
    float, PlainValidator(_duration), PlainSerializer(format_duration), text_schema(DURATION_FORMS)
]
Share: TypeAlias = Annotated[
    float, PlainValidator(_share), WithJsonSchema({"type": ["string", "number"], EXPECTED: SHARE_FORMS})
]
PortRange: TypeAlias = Annotated[
    tuple[int, int],
    PlainValidator(_port_range),
    PlainSerializer(lambda ports: f"{ports[0]}-{ports[1]}"),
    text_schema(PORT_FORMS),
]
Port: TypeAlias = Annotated[StrictInt, Field(ge=1, le=65_535)]
Selector: TypeAlias = Annotated[
    DeviceSelector,
    PlainValidator(_selector),
    PlainSerializer(str),
    text_schema(f"a device: {SELECTOR_FORMS}"),
]
HostName: TypeAlias = Annotated[str, PlainValidator(_host_name), text_schema(HOST_NAME_FORMS)]
#: No enumeration in the JSON Schema: a new model or framework is one new file, and nothing else changes.
ModelName: TypeAlias = Annotated[str, PlainValidator(_model), text_schema("the name of a model, such as alexnet")]
OperationName: TypeAlias = Annotated[str, PlainValidator(_operation), text_schema("an operation, such as gemm")]
ProblemName: TypeAlias = Annotated[
    str,
    PlainValidator(_problem),
    text_schema("a set of problems, such as deepbench-small, or an operation's whole name"),
]
LayerName: TypeAlias = Annotated[str, Field(min_length=1), text_schema("the name of a layer, or all")]
FrameworkName: TypeAlias = Annotated[str, PlainValidator(_framework), text_schema("a framework, such as tensorflow")]
Whole: TypeAlias = Annotated[StrictInt, Field(ge=0, le=2**53)]
Positive: TypeAlias = Annotated[StrictInt, Field(ge=1, le=_MOST)]
BatchSize: TypeAlias = Annotated[
    int | Largest,
    PlainValidator(_number_or(Largest.MAX, BATCH_SIZE_FORMS)),
    PlainSerializer(_plain),
    _number_or_word(Largest.MAX, BATCH_SIZE_FORMS),
]
Threads: TypeAlias = Annotated[
    int | Cores,
    PlainValidator(_number_or(Cores.ALL, THREADS_FORMS)),
    PlainSerializer(_plain),
    _number_or_word(Cores.ALL, THREADS_FORMS),
]
#: One line of text.
Line: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$"), text_schema("one line of text")
]
HostAddress: TypeAlias = Annotated[Line, AfterValidator(_host_address)]
StoreUrl: TypeAlias = Annotated[Line, AfterValidator(_store_url), text_schema(STORE_FORMS)]


def is_built_only(info: ValidationInfo) -> bool:
    """True where keys that are not built yet are to be refused."""
    return bool(info.context and info.context.get("built_only"))


class Keys(BaseModel):
    """A mapping of the config: its keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_by_alias=True)

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_what_is_not_built(cls, value: object, info: ValidationInfo) -> object:
        """Raise for a key that was given and is marked :func:`not_yet`, where the context asks for it."""
        field = cls.model_fields[info.field_name or ""]
        extra = field.json_schema_extra
        if not is_built_only(info) or not isinstance(extra, dict) or NOT_YET not in extra:
            return value
        supported = extra.get(EXCEPT)
        is_supported = isinstance(value, str) and isinstance(supported, str) and re.match(supported, value)
        if value == field.get_default() or is_supported:
            return value
        raise PydanticCustomError(NOT_YET_ERROR, "{feature}", {"feature": str(extra[NOT_YET])})
