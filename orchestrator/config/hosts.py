"""The part of the grammar that says where the machines are and how they are reached."""

from __future__ import annotations

import enum
from collections import Counter
from typing import Final

from pydantic import Field, StrictBool, field_validator, model_validator

from orchestrator.config.kinds import (
    HostAddress,
    HostName,
    Keys,
    Line,
    Port,
    PortRange,
    Selector,
    Swept,
    problem,
)
from orchestrator.config.measurement import MeasureConfig
from orchestrator.config.selectors import DeviceSelector, expand_hosts
from workers.orders import PORTS_IN_BLOCK


class ClusterMode(str, enum.Enum):
    """Where the Ray cluster comes from: this machine, hosts over SSH, or one that is there already."""

    LOCAL = "local"
    SSH = "ssh"
    ADDRESS = "address"


#: Keys of `cluster` that have a meaning in one mode only.
KEYS_OF_MODES: Final = {
    "head_address": ClusterMode.SSH,
    "tls": ClusterMode.SSH,
    "ports": ClusterMode.SSH,
    "wheelhouse": ClusterMode.SSH,
    "address": ClusterMode.ADDRESS,
    "token_file": ClusterMode.ADDRESS,
}


class ClusterConfig(Keys):
    """Where the Ray cluster comes from."""

    mode: ClusterMode = Field(
        ClusterMode.LOCAL,
        description="local: a cluster on this machine; ssh: started on the hosts; address: one that is there already.",
    )
    head_address: Line | None = Field(
        None,
        description=(
            "Mode ssh: the name or IP address under which the hosts reach this machine; without it the one that the"
            " first host over SSH sees."
        ),
    )
    address: Line | None = Field(
        None,
        description=(
            "Mode address: where the cluster's control service is, ray-head.example:6379; auto: the cluster that this"
            " machine belongs to."
        ),
    )
    token_file: Line | None = Field(
        None,
        description="Mode address: the file with the cluster's authentication token, if it has one.",
    )
    tls: StrictBool = Field(
        False, description="Mode ssh: encrypt what Ray sends, with certificates made for the cluster alone."
    )
    ports: PortRange = Field(
        (26_000, 26_999),
        description=(
            f"Mode ssh: TCP ports for Ray on the head and on each host: 26000-26999; a cluster takes {PORTS_IN_BLOCK}."
            " A firewall has to leave them open between the machines of the lab."
        ),
        json_schema_extra={"default": "26000-26999"},  # as it is written
    )
    wheelhouse: Line | None = Field(
        None,
        description=(
            "Mode ssh: folder with the wheels for hosts with `install: true`; without it they are downloaded once"
            " by the head's pip."
        ),
    )

    @model_validator(mode="after")
    def _check_mode(self) -> ClusterConfig:
        if self.mode is ClusterMode.ADDRESS and self.address is None:
            raise problem("mode address needs `address`: ray-head.example:6379, or auto on a machine of the cluster")
        for key, mode in KEYS_OF_MODES.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.mode is not mode:
                raise problem(f"`{key}` is for mode {mode.value}, and the mode is {self.mode.value}")
        return self


class HostDefaults(Keys):
    """How hosts are reached, where a host does not say otherwise."""

    user: Line | None = Field(
        None, description="User to log in as; what your SSH configuration says, or your own name, if not given."
    )
    port: Port | None = Field(
        None, description="TCP port of the SSH server; what your SSH configuration says, or 22, if not given."
    )
    python: Line | None = Field(
        None,
        description=(
            "Python interpreter on the host that has Ray and TensorFlow: ~/muster/bin/python. With `install`, the one"
            " that the environment is made from."
        ),
    )
    install: StrictBool = Field(
        False,
        description=(
            "Make an environment with Ray and TensorFlow below the user's home, from wheels that the head brings; no"
            " root and no network needed."
        ),
    )
    insecure_host_keys: StrictBool = Field(
        False,
        description="Connect to hosts whose SSH key is not known. Anybody on the way can then read and change all.",
    )


class HostConfig(Keys):
    """One host, or a range of them, and the devices to be measured there."""

    name: HostName = Field(description="The host's own name in every table; a range such as gpu[01-04] names many.")
    address: HostAddress | None = Field(
        None,
        description=(
            "Where the host is reached, if not under its name; {name} stands for it: {name}.lab.example. With mode ssh,"
            " localhost with neither user nor port is this machine itself."
        ),
    )
    devices: Swept[Selector] = Field(
        description=(
            "What to measure there: cpu (all cores), cpu:0-7,9, cpu:numa0, gpu:all (at least one must be there),"
            " gpu:any (none is fine), gpu:0, gpu:0-3, gpu:GPU-1a2b (a UUID's beginning)."
        )
    )
    measure: MeasureConfig | None = Field(
        None, description="Keys of `measure` that are different on this host; the others stay."
    )
    user: Line | None = Field(None, description="As in `defaults`, for this host.")
    port: Port | None = Field(None, description="As in `defaults`, for this host.")
    python: Line | None = Field(None, description="As in `defaults`, for this host.")
    install: StrictBool | None = Field(None, description="As in `defaults`, for this host.")
    insecure_host_keys: StrictBool | None = Field(None, description="As in `defaults`, for this host.")

    @field_validator("devices")
    @classmethod
    def _check_devices(cls, devices: tuple[DeviceSelector, ...]) -> tuple[DeviceSelector, ...]:
        for text, count in Counter(selector.text for selector in devices).items():
            if count > 1:
                raise problem(f"device {text!r} is named {count} times")
        return devices

    def beside(self, mode: ClusterMode) -> tuple[tuple[str, object], ...]:
        """Return the keys, and their values, that were given and mean nothing in ``mode``."""
        if mode is ClusterMode.SSH:
            return ()
        keys = [*HostDefaults.model_fields, *(["address"] if mode is ClusterMode.LOCAL else [])]
        return tuple((key, getattr(self, key)) for key in keys if getattr(self, key) is not None)

    def connection(self, defaults: HostDefaults) -> HostDefaults:
        """Return ``defaults`` with what this host says otherwise."""
        own = {key: getattr(self, key) for key in HostDefaults.model_fields if getattr(self, key) is not None}
        return defaults.model_copy(update=own)

    def expanded(self) -> tuple[HostConfig, ...]:
        """Return one host for each name of the range, with ``{name}`` in its address filled in."""
        return tuple(
            self.model_copy(
                update={"name": name, "address": self.address and self.address.replace("{name}", name)},
            )
            for name in expand_hosts(self.name)
        )
