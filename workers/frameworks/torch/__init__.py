"""PyTorch: any model run operation by operation, as PyTorch is used; its weights and input are on the device before.

Importing this module imports no PyTorch: the functions that need it do, in the measuring child alone.

Images are NCHW to PyTorch always; ``layout: NHWC`` is its ``channels_last`` order of the same in memory.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any, Final, NoReturn

from workers.frameworks.base import (
    TYPES,
    UnsupportedError,
    WrongDeviceError,
    fact,
    in_channels_last,
    laid_out,
    mask_of,
    require_cores,
    require_cpu_for_onednn,
    require_tf32,
    threads_of,
    variable_fact,
    verdict_by_words,
)
from workers.frameworks.torch.layers import network_output
from workers.frameworks.torch.operations import operation_outputs
from workers.models.initial import initial_values, operation_values
from workers.models.network import Model
from workers.protocol import Compiler, DeviceKind, Environment, Fact, Fetch, Layout, OneDnn, Pass, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from workers.models.layers import Dropout
    from workers.ops.base import Operation, Tensor
    from workers.protocol import Device, Ring, Verdict, Workload

_OOM_WORDS: Final = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
_UNSUPPORTED_WORDS: Final = ("not implemented for", "no kernel image is available", "is not supported", "unsupported")


def available() -> str | None:
    """Return why PyTorch cannot be used here, with the command that mends it, or ``None``."""
    if importlib.util.find_spec("torch") is not None:
        return None
    return "PyTorch is not installed; type: pip install 'muster-bench[torch]'"


def prepare(device: Device, workload: Workload) -> None:
    """Import PyTorch and set what holds for the whole process: threads, oneDNN.

    Raises RuntimeError if PyTorch was used before with other threads, and :class:`UnsupportedError`.
    """
    import torch

    threads = threads_of(device, workload)
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != threads:
        torch.set_num_interop_threads(threads)
    require_cpu_for_onednn(device, workload)
    if workload.onednn is not None:
        torch.backends.mkldnn.set_flags(workload.onednn is OneDnn.ON)


def build(work: Model | Operation, workload: Workload, device: Device) -> TorchStep:
    """Return the pass, which has run once, on ``device`` and nowhere else.

    Forward is the network to its last tensor, without what autograd would keep; forward-backward the gradients of half
    the last tensor's sum of squares with respect to all weights and biases. Raises :class:`UnsupportedError`,
    :class:`WrongDeviceError`, and whatever PyTorch raises (see :func:`verdict_of`).
    """
    import torch

    require_cores(device)
    if torch.get_num_threads() != (wanted := threads_of(device, workload)):
        raise WrongDeviceError(f"{device.id} is to have {wanted} threads, PyTorch has {torch.get_num_threads()}")
    if workload.compiler is not Compiler.NONE:
        raise UnsupportedError(f"PyTorch has no compiler {workload.compiler.value}")
    _require_onednn(workload)
    place = _place(device)
    _set_tf32(device, workload)
    # What fits a layer best is tried out once; TensorFlow does the same without being asked.
    torch.backends.cudnn.benchmark = True
    run = _Network(work, workload, place).run if isinstance(work, Model) else _operation_pass(work, workload, place)
    step = TorchStep(run, work, workload, place, _environment(place))
    step()
    step.require_placement()
    return step


def build_collective(work: Model | Operation, workload: Workload, device: Device, ring: Ring) -> NoReturn:
    """Raise :class:`UnsupportedError`: operations of several devices are TensorFlow's here."""
    raise UnsupportedError(f"{work.name} over several devices is measured with TensorFlow, not with PyTorch")


def product(rows: int, workload: Workload, device: Device) -> Callable[[], None]:
    """Return what multiplies two square matrices of so many rows once."""
    import torch

    place, kind = _place(device), getattr(torch, TYPES[workload.precision])
    factor = torch.randn((rows, rows), generator=torch.Generator().manual_seed(1)).to(place, kind)

    def multiply() -> None:
        with torch.inference_mode():
            torch.matmul(factor, factor)
        _synchronise(place)

    return multiply


def update(count: int, device: Device) -> Callable[[], None]:
    """Return what adds one to each of ``count / 4`` numbers, in place."""
    import torch

    place = _place(device)
    numbers = torch.zeros(count // 4, device=place)

    def add() -> None:
        with torch.inference_mode():
            numbers.add_(1.0)
        _synchronise(place)

    return add


def verdict_of(error: Exception) -> Verdict:
    """Return what an exception from building or running a step means: ``oom``, ``unsupported`` or ``crashed``."""
    return verdict_by_words(
        error,
        oom_classes=frozenset({"OutOfMemoryError"}),
        oom_words=_OOM_WORDS,
        unsupported_classes=frozenset({"NotImplementedError"}),
        unsupported_words=_UNSUPPORTED_WORDS,
    )


class TorchStep:
    """One pass; what its last call gave is kept until the next one has ended."""

    def __init__(
        self,
        run: Callable[[], list[Any]],
        work: Model | Operation,
        workload: Workload,
        place: Any,
        environment: Environment,
    ) -> None:
        self._run = run
        self._place = place
        self._written = functools.partial(_written, work, workload)
        self._fetch = workload.fetch
        self._environment = environment
        self._tensors: Sequence[Any] = ()
        self._fetched: Sequence[Any] = ()

    @property
    def environment(self) -> Environment:
        """What really is in use."""
        return self._environment

    def __call__(self) -> None:
        """Run the pass once; return when the device has finished and, for ``fetch: host``, all outputs are copied."""
        tensors = self._run()
        _synchronise(self._place)
        if self._fetch is Fetch.HOST:
            self._fetched = [tensor.cpu() for tensor in tensors]
        self._tensors = tensors

    def outputs(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Return what the last call gave, as float32: the last tensor, or the gradients in the parameters' order."""
        import numpy as np

        arrays = [tensor.detach().float().cpu().numpy() for tensor in self._tensors]
        return tuple(np.ascontiguousarray(array) for array in self._written(arrays))

    def require_placement(self) -> None:
        """Raise :class:`WrongDeviceError` unless every output of the last call lies on the step's device."""
        for tensor in self._tensors:
            if tensor.device != self._place:
                raise WrongDeviceError(f"asked for {self._place}, PyTorch ran on {tensor.device}")


class _Network:
    """A model with its input and parameters on the device."""

    def __init__(self, model: Model, workload: Workload, place: Any) -> None:
        import torch

        self._model = model
        self._layout = workload.layout
        kind = getattr(torch, TYPES[workload.precision])
        values = initial_values(model, workload.batch_size, workload.precision)

        def tensor(array: Any) -> Any:
            made = torch.from_numpy(array).to(place, kind)
            return made.contiguous(memory_format=_memory_format(workload.layout)) if made.dim() == 4 else made

        self._is_forward = workload.pass_ is Pass.FORWARD
        self._images = tensor(laid_out(values.images, Layout.NCHW)).requires_grad_(model.wants_input_gradient)
        self._parameters = [tensor(_as_torch(array)).requires_grad_() for array in values.parameters]
        self._masks: dict[str, Any] = {}

    def run(self) -> list[Any]:
        """Run the pass once; return the last tensor, or the gradients."""
        import torch

        if self._is_forward:
            with torch.inference_mode():
                return [self._last_tensor()]
        # The gradient of half a sum of squares is the tensor itself.
        last = self._last_tensor()
        sources = [*self._parameters, self._images] if self._model.wants_input_gradient else self._parameters
        return list(torch.autograd.grad(last, sources, grad_outputs=last.detach()))

    def mask(self, layer: Dropout, tensor: Any) -> Any:
        """Return a dropout's mask, which is made once."""
        import torch

        if layer.name not in self._masks:
            mask = mask_of(layer, tuple(tensor.shape), Layout.NCHW)
            self._masks[layer.name] = torch.from_numpy(mask).to(tensor.device, tensor.dtype)
        return self._masks[layer.name]

    def _last_tensor(self) -> Any:
        return network_output(self._model, self._images, self._parameters, self.mask)


# --- what a step is made of -----------------------------------------------------------------------------------


def _operation_pass(operation: Operation, workload: Workload, place: Any) -> Callable[[], list[Any]]:
    """Return what runs an operation once, with what it is given on the device."""
    import torch

    kind = getattr(torch, TYPES[workload.precision])

    def placed(tensor: Tensor, array: npt.NDArray[np.float32]) -> Any:
        if array.ndim != 4:
            return torch.from_numpy(array).to(place, kind)
        turned = _as_torch(array) if tensor.name == "filters" else laid_out(array, Layout.NCHW)
        return torch.from_numpy(turned).to(place, kind).contiguous(memory_format=_memory_format(workload.layout))

    given = [placed(*pair) for pair in zip(operation.tensors, operation_values(operation), strict=True)]
    return functools.partial(operation_outputs, operation, workload, given)


def _written(work: Model | Operation, workload: Workload, arrays: Sequence[Any]) -> list[Any]:
    """Return a step's outputs in the order of dimensions in which models and operations are written."""
    if not isinstance(work, Model):
        is_filters = workload.pass_ is Pass.BACKWARD_WEIGHTS
        return [_as_written(array) if is_filters else in_channels_last(array) for array in arrays]
    if workload.pass_ is Pass.FORWARD:
        return [in_channels_last(array) for array in arrays]
    if not work.wants_input_gradient:
        return [_as_written(array) for array in arrays]
    return [*(_as_written(array) for array in arrays[:-1]), in_channels_last(arrays[-1])]


def _memory_format(layout: Layout) -> Any:
    import torch

    return torch.channels_last if layout is Layout.NHWC else torch.contiguous_format


def _as_torch(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a parameter in PyTorch's order: filters before channels before the kernel, units before inputs."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _as_written(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a parameter's gradient in the order in which models have it."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


# --- where it runs --------------------------------------------------------------------------------------------


def _place(device: Device) -> Any:
    """Return PyTorch's name of the device; the child has hidden every other GPU."""
    import torch

    if device.kind is DeviceKind.CPU:
        return torch.device("cpu")
    if torch.cuda.device_count() != 1:
        raise WrongDeviceError(f"{device.id}: PyTorch must see this GPU alone, it sees {torch.cuda.device_count()}")
    return torch.device("cuda:0")


def _synchronise(place: Any) -> None:
    import torch

    if place.type == "cuda":
        torch.cuda.synchronize()


def _set_tf32(device: Device, workload: Workload) -> None:
    """Let a GPU round the factors of float32 products where that is asked for; by default convolutions would."""
    import torch

    asked = workload.precision is Precision.TF32
    if asked:
        require_tf32(device, lambda: torch.cuda.get_device_capability(0))
    torch.backends.cuda.matmul.allow_tf32 = asked
    torch.backends.cudnn.allow_tf32 = asked


def _require_onednn(workload: Workload) -> None:
    import torch

    if workload.onednn is OneDnn.ON and not torch.backends.mkldnn.is_available():
        raise UnsupportedError("oneDNN cannot be turned on: this PyTorch has none of its kernels")


def _environment(place: Any) -> Environment:
    import torch

    no_cuda = None if torch.version.cuda else "this PyTorch is built for CPUs only"
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    facts = {
        "framework.name": Fact(value="torch"),
        "framework.version": Fact(value=torch.__version__),
        "framework.device": Fact(value=str(place)),
        "framework.intra_op_threads": Fact(value=torch.get_num_threads()),
        "framework.inter_op_threads": Fact(value=torch.get_num_interop_threads()),
        "framework.onednn": Fact(value=bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)),
        "framework.xla_flags": variable_fact("XLA_FLAGS"),
        "framework.tf32": Fact(value=bool(torch.backends.cudnn.allow_tf32)),
        "framework.cuda": fact(torch.version.cuda, no_cuda),
        "framework.cudnn": fact(None if cudnn is None else str(cudnn), no_cuda),
    }
    return Environment(facts=tuple(sorted(facts.items())))
