"""TensorFlow: sums over several devices, each in a process of its own, by ``tf.distribute``'s collectives.

NCCL's between GPUs, TensorFlow's own ring over gRPC between CPUs. TensorFlow's server for the others of the ring
listens on every address of the host and asks nobody who he is: see ``docs/explanation/security.md``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from workers.frameworks.base import TYPES, UnsupportedError
from workers.models.initial import operation_values
from workers.ops.collective import AllReduce
from workers.protocol import Compiler, DeviceKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.models.network import Model
    from workers.ops.base import Operation
    from workers.protocol import Device, Ring, Workload


def require_collective(work: Model | Operation, workload: Workload) -> AllReduce:
    """Return the sum that is asked for; raises :class:`UnsupportedError` for anything else, and with a compiler."""
    if not isinstance(work, AllReduce):
        raise UnsupportedError(f"{work.name} is measured on one device at a time")
    if workload.compiler is not Compiler.NONE:
        raise UnsupportedError("a sum over devices is no work for a compiler")
    return work


def joined(device: Device, ring: Ring) -> Any:
    """Return the ring as TensorFlow's strategy, once every process of it is there. Call it before anything else.

    Raises whatever TensorFlow raises, for instance where the port is taken.
    """
    import tensorflow as tf

    # The way to the others never leads through a proxy, whatever the host's variables say: gRPC heeds them.
    os.environ["no_grpc_proxy"] = ",".join(address.rpartition(":")[0] for address in ring.addresses)  # noqa: SIM112  # its name
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(ring.addresses)}),
        task_type="worker",
        task_id=ring.rank,
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver, communication_options=_options(device))


def sum_of_ranks(
    operation: AllReduce, workload: Workload, device: Device, ring: Ring, strategy: Any
) -> Callable[[], list[Any]]:
    """Return what sums once over all devices; rank ``r`` gives the operation's numbers ``r + 1`` times."""
    import tensorflow as tf

    (numbers,) = operation_values(operation)
    # Not a constant: TensorFlow would fold what it knows, and hold it once more in the graph.
    given = tf.Variable(tf.cast(numbers * (ring.rank + 1), TYPES[workload.precision]), trainable=False)
    options = _options(device)

    def in_replica() -> Any:
        # The sum goes where what is given lies, which a variable does not tell.
        own = tf.identity(given)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own, options=options)

    return lambda: [strategy.run(in_replica)]


def _options(device: Device) -> Any:
    import tensorflow as tf

    kinds = tf.distribute.experimental.CommunicationImplementation
    return tf.distribute.experimental.CommunicationOptions(
        implementation=kinds.NCCL if device.kind is DeviceKind.GPU else kinds.RING
    )
