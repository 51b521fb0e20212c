"""TensorFlow 2: any model as one compiled function a pass, its weights and input held as variables on the device.

Importing this module imports no TensorFlow: the functions that need it do, in the measuring child alone.

A ``tf.function`` and the session of the seed's script run the same kernels: both end in the same partitioned graph
(seen with ``RunMetadata.partition_graphs``; ``benchmarks/fidelity.py`` compares the times). What a step is to compute
is what the function returns: a graph that only groups operations (``tf.group``) is emptied by TensorFlow's dependency
optimiser, for a control edge to an operation without effects can be cut.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from workers.frameworks.base import (
    TYPES,
    UnsupportedError,
    WrongDeviceError,
    as_written,
    fact,
    laid_out,
    operands,
    require_cores,
    require_cpu_for_onednn,
    require_tf32,
    threads_of,
    variable_fact,
    verdict_by_words,
)
from workers.frameworks.tensorflow.collective import joined, require_collective, sum_of_ranks
from workers.frameworks.tensorflow.layers import network_output
from workers.frameworks.tensorflow.operations import operation_outputs
from workers.models.initial import initial_values
from workers.models.layers import Conv
from workers.models.network import Model
from workers.protocol import (
    Compiler,
    DeviceKind,
    Environment,
    Fact,
    Fetch,
    OneDnn,
    Pass,
    Precision,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from workers.ops.base import Operation
    from workers.protocol import Device, Ring, Workload

#: TensorFlow looks at it when it is imported.
_ONEDNN_VARIABLE: Final = "TF_ENABLE_ONEDNN_OPTS"

#: Names of exception classes, so that nothing need be imported to tell them apart.
_OOM_CLASSES: Final = frozenset({"ResourceExhaustedError"})
_UNSUPPORTED_CLASSES: Final = frozenset({"UnimplementedError"})
#: TensorFlow, CUDA and XLA also report a full memory as InternalError, UnknownError or RuntimeError.
#: Its kernels for CPUs hand on oneDNN's status, where 1 is dnnl_out_of_memory (oneapi/dnnl/dnnl_common_types.h).
_OOM_MARKS: Final = (
    "OOM when",
    "out of memory",
    "OUT_OF_MEMORY",
    "failed to allocate",
    "bad_alloc",
    "received an exception:Status: 1,",
    "received an exception:Status:1,",
)
#: ... and a missing kernel as InvalidArgumentError or NotFoundError.
_UNSUPPORTED_MARKS: Final = (
    "No OpKernel was registered",
    "is not in the list of allowed values",
    "no supported kernel",
    "could not satisfy device specification",
    "could not satisfy explicit device specification",
    "only supports NHWC",
    "not supported on CPU",
    "unsupported operation",
)

#: Where in TensorFlow's own making an error arose; of no use to people.
_INNER_NAMES: Final = re.compile(r"\{\{function_node [^}]*\}\}\s*| *\[Op:\w+\].*")


def available() -> str | None:
    """Return why TensorFlow cannot be used here, with the command that mends it, or ``None``."""
    if importlib.util.find_spec("tensorflow") is not None:
        return None
    return (
        "TensorFlow is not installed; type: pip install 'muster-bench[cpu]', "
        "or pip install 'muster-bench[gpu]' on a host with NVIDIA GPUs"
    )


def prepare(device: Device, workload: Workload) -> None:
    """Import TensorFlow and set what holds for the whole process: oneDNN, threads, placement.

    Raises RuntimeError if TensorFlow was started before with other threads, and :class:`UnsupportedError`.
    """
    require_cpu_for_onednn(device, workload)
    if workload.onednn is not None:
        os.environ[_ONEDNN_VARIABLE] = "1" if workload.onednn is OneDnn.ON else "0"
    # Keras, which comes with TensorFlow, imports it where it is there: a second of every child's start, and a list of
    # all fonts in the home of whoever measures. It can do without.
    sys.modules.setdefault("matplotlib", None)  # type: ignore[arg-type]
    import tensorflow as tf

    threads = threads_of(device, workload)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # As many again: what TensorFlow takes by itself, and the seed's script with it.
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if device.kind is DeviceKind.CPU:
        tf.config.set_visible_devices([], "GPU")
    # An operation that the device cannot do is an error, never moved to another device.
    tf.config.set_soft_device_placement(False)


def build(work: Model | Operation, workload: Workload, device: Device) -> TensorflowStep:
    """Return the compiled pass, which has run once, on ``device`` and nowhere else.

    Forward is the network to its last tensor; forward-backward the gradients of ``tf.nn.l2_loss`` of that tensor with
    respect to all weights and biases, as in TensorFlow r0.11's alexnet_benchmark. Raises :class:`UnsupportedError`,
    :class:`WrongDeviceError`, and whatever TensorFlow raises (see :func:`verdict_of`).
    """
    import tensorflow as tf

    _require_threads(device, workload)
    placement = _placement(device)
    _set_tf32(device, workload)
    _require_onednn(workload)
    if isinstance(work, Model):
        _require_gradients(work, workload, device)
    with _errors_in_plain_words(), tf.device(placement):
        function = tf.function(
            _network_pass(work, workload) if isinstance(work, Model) else _operation_pass(work, workload),
            autograph=False,
            jit_compile=True if workload.compiler is Compiler.XLA else None,
        )
        run = function.get_concrete_function()
    step = TensorflowStep(
        run=run,
        placement=placement,
        fetch=workload.fetch,
        environment=_environment(device),
        written=functools.partial(as_written, work, workload),
    )
    step()
    step.require_placement()
    return step


def build_collective(work: Model | Operation, workload: Workload, device: Device, ring: Ring) -> TensorflowStep:
    """Return this device's part in a sum over several, which has run once; each call is one step of all of them.

    Waits for the others' processes. Raises as :func:`build`; ``UnavailableError`` and its like once another has gone.
    """
    operation = require_collective(work, workload)
    import tensorflow as tf

    with _errors_in_plain_words():
        # TensorFlow has to know of the ring before it looks at any device.
        strategy = joined(device, ring)
    _require_threads(device, workload)
    placement = _placement(device)
    _set_tf32(device, workload)
    _require_onednn(workload)
    with _errors_in_plain_words(), tf.device(placement):
        function = tf.function(sum_of_ranks(operation, workload, device, ring, strategy), autograph=False)
        run = function.get_concrete_function()
    step = TensorflowStep(
        run=run,
        placement=placement,
        fetch=workload.fetch,
        environment=_environment(device).merged(_ring_facts(device, ring)),
        written=functools.partial(as_written, work, workload),
        finish=_finish_own,
    )
    step()
    step.require_placement()
    return step


def product(rows: int, workload: Workload, device: Device) -> Callable[[], None]:
    """Return what multiplies two square matrices of so many rows once."""
    import tensorflow as tf

    with tf.device(_placement(device)):
        factor = tf.Variable(tf.cast(tf.random.stateless_normal((rows, rows), seed=(1, 2)), TYPES[workload.precision]))
        multiply = tf.function(lambda: tf.matmul(factor, factor), autograph=False).get_concrete_function()
    return functools.partial(_finished, multiply)


def update(count: int, device: Device) -> Callable[[], None]:
    """Return what adds one to each of ``count / 4`` numbers, in place."""
    import tensorflow as tf

    with tf.device(_placement(device)):
        numbers = tf.Variable(tf.zeros(count // 4))
        one = tf.constant(1.0)
        add = tf.function(lambda: numbers.assign_add(tf.broadcast_to(one, numbers.shape)), autograph=False)
    return functools.partial(_finished, add.get_concrete_function())


def verdict_of(error: Exception) -> Verdict:
    """Return what an exception from building or running a step means: ``oom``, ``unsupported`` or ``crashed``."""
    return verdict_by_words(
        error,
        oom_classes=_OOM_CLASSES,
        oom_words=_OOM_MARKS,
        unsupported_classes=_UNSUPPORTED_CLASSES,
        unsupported_words=_UNSUPPORTED_MARKS,
    )


class TensorflowStep:
    """One compiled pass; what its last call gave is kept until the next one has ended, as a session's caller would."""

    def __init__(
        self,
        *,
        run: Callable[[], Sequence[Any]],
        placement: str,
        fetch: Fetch,
        environment: Environment,
        written: Callable[[Sequence[Any]], Sequence[Any]],
        finish: Callable[[Sequence[Any]], None] | None = None,
    ) -> None:
        import tensorflow as tf

        self._tf = tf
        self._finish = finish or _finish_all
        self._run = run
        self._placement = placement
        self._fetch = fetch
        self._environment = environment
        self._written = written
        self._tensors: Sequence[Any] = ()
        self._fetched: tuple[npt.NDArray[Any], ...] = ()

    @property
    def environment(self) -> Environment:
        """What really is in use."""
        return self._environment

    def __call__(self) -> None:
        """Run the pass once; return when the device has finished and, for ``fetch: host``, all outputs are copied."""
        with _errors_in_plain_words():
            with self._tf.device(self._placement):
                tensors = self._run()
            # GPUs work on while Python goes on.
            self._finish(tensors)
            if self._fetch is Fetch.HOST:
                self._fetched = _on_host(tensors)
        self._tensors = tensors

    def outputs(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Return what the last call gave, as float32: the last tensor, or the gradients in the parameters' order."""
        import numpy as np

        return tuple(array.astype(np.float32) for array in self._written(_on_host(self._tensors)))

    def require_placement(self) -> None:
        """Raise :class:`WrongDeviceError` unless every output of the last call lies on the step's device."""
        wanted = self._tf.DeviceSpec.from_string(self._placement)
        for tensor in self._tensors:
            found = self._tf.DeviceSpec.from_string(tensor.backing_device)
            if (found.device_type, found.device_index) != (wanted.device_type, wanted.device_index):
                raise WrongDeviceError(f"asked for {self._placement}, TensorFlow ran on {tensor.backing_device}")


# --- what a step is made of -----------------------------------------------------------------------------------


def _network_pass(model: Model, workload: Workload) -> Callable[[], list[Any]]:
    return functools.partial(_run_pass, model, workload, *_variables(model, workload))


def _operation_pass(operation: Operation, workload: Workload) -> Callable[[], list[Any]]:
    """Return what runs an operation once; what it is given are variables, as a network's input is."""
    import tensorflow as tf

    kind = tf.as_dtype(TYPES[workload.precision])

    given = [tf.Variable(tf.cast(array, kind)) for array in operands(operation, workload.layout)]
    return functools.partial(operation_outputs, operation, workload, given)


def _variables(model: Model, workload: Workload) -> tuple[Any, list[Any]]:
    """Return the input and all parameters as variables, so that nothing can be computed ahead of a step."""
    import tensorflow as tf

    values = initial_values(model, workload.batch_size, workload.precision)
    images = laid_out(values.images, workload.layout)
    kind = tf.as_dtype(TYPES[workload.precision])
    return (
        tf.Variable(tf.cast(images, kind), trainable=False),
        [tf.Variable(tf.cast(parameter, kind)) for parameter in values.parameters],
    )


def _run_pass(model: Model, workload: Workload, images: Any, parameters: list[Any]) -> list[Any]:
    """Return everything that the pass is to compute; what is not returned would not be computed."""
    import tensorflow as tf

    if workload.pass_ is Pass.FORWARD:
        return [network_output(model, workload.layout, images, parameters)]
    sources = [*parameters, images] if model.wants_input_gradient else parameters
    with tf.GradientTape() as tape:
        tape.watch(sources)
        loss = tf.nn.l2_loss(network_output(model, workload.layout, images, parameters))
    gradients: list[Any] = tape.gradient(loss, sources)
    return gradients


def _on_host(tensors: Sequence[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Copy from a GPU; on a CPU give the same memory another name, as ``session.run`` does."""
    import numpy as np

    return tuple(np.asarray(tensor) for tensor in tensors)


def _finish_all(tensors: Sequence[Any]) -> None:
    """Return when every device has finished. On a CPU the call itself waits, and this takes less than 0.1 ms."""
    import tensorflow as tf

    tf.test.experimental.sync_devices()


def _finish_own(tensors: Sequence[Any]) -> None:
    """Return when a GPU has the first number of what it gives: in a ring TensorFlow cannot be asked for all devices."""
    for tensor in tensors:
        if "GPU" in tensor.backing_device:
            _on_host([tensor[:1]])


def _finished(run: Callable[[], Any]) -> None:
    """Run once; return when the device has finished."""
    import tensorflow as tf

    run()
    tf.test.experimental.sync_devices()


@contextlib.contextmanager
def _errors_in_plain_words() -> Iterator[None]:
    """Let TensorFlow's errors through with the one line that says what happened; a missing kernel as our own error."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        plain = _plain_words(error.message)
        if verdict_of(error) is Verdict.UNSUPPORTED:
            raise UnsupportedError(plain) from error
        raise type(error)(error.node_def, error.op, plain) from error


def _plain_words(message: str) -> str:
    """Return the line that stands above ``[[{{node ...}}]]``, or the first, without the names of inner functions."""
    lines = [line.strip() for line in _INNER_NAMES.sub("", message).splitlines() if line.strip()]
    at_node = next((number for number, line in enumerate(lines) if line.startswith("[[{{node")), 0)
    return lines[max(at_node - 1, 0)] if lines else "TensorFlow gives no reason"


# --- where it runs --------------------------------------------------------------------------------------------


def _set_tf32(device: Device, workload: Workload) -> None:
    """Let a GPU round the factors of float32 products where that is asked for, and nowhere else.

    By default TensorFlow lets GPUs since Ampere do so, and `float32` would not be what it says.
    """
    import tensorflow as tf

    if workload.precision is Precision.TF32:
        require_tf32(device, _capability)
    tf.config.experimental.enable_tensor_float_32_execution(workload.precision is Precision.TF32)


def _capability() -> tuple[int, ...] | None:
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    found: tuple[int, ...] | None = details.get("compute_capability")
    return found


def _require_onednn(workload: Workload) -> None:
    found = _onednn()
    if workload.onednn is not None and found.value is not (workload.onednn is OneDnn.ON):
        said = found.reason or ("its kernels are in use" if found.value else "this TensorFlow has none of its kernels")
        raise UnsupportedError(f"oneDNN cannot be turned {workload.onednn.value}: {said}")


def _require_gradients(model: Model, workload: Workload, device: Device) -> None:
    """Raise for gradients that only oneDNN and XLA have on a CPU; TensorFlow's own kernels end in a riddle there."""
    is_bare = device.kind is DeviceKind.CPU and workload.compiler is Compiler.NONE
    if not is_bare or workload.pass_ is Pass.FORWARD:
        return
    grouped = [
        each.layer.name for each in model.every_layer() if isinstance(each.layer, Conv) and each.layer.groups > 1
    ]
    if grouped and (workload.precision is Precision.FLOAT16 or not _onednn().value):
        missing = "in float16" if workload.precision is Precision.FLOAT16 else "without oneDNN"
        raise UnsupportedError(
            f"layer {grouped[0]}: TensorFlow has no gradient of convolutions in groups {missing} on a CPU"
        )


def _require_threads(device: Device, workload: Workload) -> None:
    import tensorflow as tf

    require_cores(device)
    found = tf.config.threading.get_intra_op_parallelism_threads()
    if found != (wanted := threads_of(device, workload)):
        raise WrongDeviceError(f"{device.id} is to have {wanted} threads, TensorFlow has {found}")


def _placement(device: Device) -> str:
    """Return TensorFlow's name of the device; the child has hidden every other GPU."""
    import tensorflow as tf

    if device.kind is DeviceKind.CPU:
        return "/device:CPU:0"
    visible = tf.config.list_logical_devices("GPU")
    if len(visible) != 1:
        raise WrongDeviceError(f"{device.id}: TensorFlow must see this GPU alone, it sees {len(visible)}")
    return "/device:GPU:0"


def _environment(device: Device) -> Environment:
    import tensorflow as tf

    built = tf.sysconfig.get_build_info()
    logical = tf.config.list_logical_devices(device.kind.name)[0]
    no_cuda = None if built.get("is_cuda_build") else "this TensorFlow is built for CPUs only"
    facts = {
        "framework.name": Fact(value="tensorflow"),
        "framework.version": Fact(value=tf.__version__),
        "framework.device": Fact(value=logical.name),
        "framework.intra_op_threads": Fact(value=tf.config.threading.get_intra_op_parallelism_threads()),
        "framework.inter_op_threads": Fact(value=tf.config.threading.get_inter_op_parallelism_threads()),
        "framework.onednn": _onednn(),
        "framework.xla_flags": variable_fact("XLA_FLAGS"),
        # With auto-jit in here, `compiler: none` would not be what it says.
        "framework.tf_xla_flags": variable_fact("TF_XLA_FLAGS"),
        "framework.tf32": Fact(value=tf.config.experimental.tensor_float_32_execution_enabled()),
        "framework.cuda": fact(built.get("cuda_version"), no_cuda),
        "framework.cudnn": fact(built.get("cudnn_version"), no_cuda),
    }
    return Environment(facts=tuple(sorted(facts.items())))


def _ring_facts(device: Device, ring: Ring) -> Environment:
    facts = {
        "collective.implementation": Fact(value="NCCL" if device.kind is DeviceKind.GPU else "ring over gRPC"),
        "collective.ranks": Fact(value=len(ring.addresses)),
    }
    return Environment(facts=tuple(sorted(facts.items())))


def _onednn() -> Fact:
    """Whether oneDNN's kernels are in use: TensorFlow decides by build, processor and TF_ENABLE_ONEDNN_OPTS."""
    try:
        # No public name tells of it; its own tests ask here.
        from tensorflow.python.util import _pywrap_util_port
    except ImportError:
        return Fact(value=None, reason="this TensorFlow does not tell")
    return Fact(value=bool(_pywrap_util_port.IsMklEnabled()))
