"""Each framework's own plain script: AlexNet r0.11, a matrix product, a convolution, written as its users write them.

A floor to hold muster against, so it shares no code with it.

    python benchmarks/plain.py --framework torch --work alexnet --pass forward --batch-size 32 --steps 20 --threads 2

prints one JSON object: {"ms": [one for each counted step]}. TensorFlow runs a `tf.function`, PyTorch eagerly, JAX under
`jit`. Works: alexnet; gemm (1760 x 128 x 1760); conv (28 x 28 x 192, 16 images, 32 filters of 5 x 5).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

WARMUP_STEPS = 10
#: Filters, kernel, stride of AlexNet's convolutions, and whether a pool follows.
CONVOLUTIONS = ((64, 11, 4, True), (192, 5, 1, True), (384, 3, 1, False), (256, 3, 1, False), (256, 3, 1, True))


def timed(step: Callable[[], object], steps: int) -> list[float]:
    ms, result = [], None
    for number in range(WARMUP_STEPS + steps):
        start = time.perf_counter()
        # As in a script of anybody's: the last result is there until the next one is.
        result = step()
        if number >= WARMUP_STEPS:
            ms.append((time.perf_counter() - start) * 1e3)
    del result
    return ms


def normal(*shape: int, sd: float = 0.1) -> Any:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32) * np.float32(sd)


def kernels() -> list[Any]:
    channels, found = 3, []
    for filters, size, *_ in CONVOLUTIONS:
        found += [normal(size, size, channels, filters), np.zeros(filters, np.float32)]
        channels = filters
    return found


def tensorflow_step(work: str, pass_: str, batch_size: int, threads: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if work == "gemm":
        a, b = tf.Variable(normal(1760, 1760)), tf.Variable(normal(1760, 128))
        return tf.function(lambda: tf.matmul(a, b))
    if work == "conv":
        images, filters = tf.Variable(normal(16, 28, 28, 192)), tf.Variable(normal(5, 5, 192, 32))
        return tf.function(lambda: tf.nn.conv2d(images, filters, 1, [[0, 0], [2, 2], [2, 2], [0, 0]]))
    batch = tf.Variable(normal(batch_size, 224, 224, 3), trainable=False)
    parameters = [tf.Variable(array) for array in kernels()]

    def forward() -> Any:
        net = tf.convert_to_tensor(batch)
        for number, (_, _, stride, is_pooled) in enumerate(CONVOLUTIONS):
            kernel, bias = parameters[2 * number : 2 * number + 2]
            net = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(net, kernel, stride, "SAME"), bias))
            net = tf.nn.max_pool2d(net, 3, 2, "VALID") if is_pooled else net
        return net

    def both() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.nn.l2_loss(forward())
        return tape.gradient(loss, parameters)

    return tf.function(forward if pass_ == "forward" else both)


def torch_step(work: str, pass_: str, batch_size: int, threads: int) -> Any:
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(threads)

    def tensor(array: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).contiguous(
            memory_format=torch.channels_last if array.ndim == 4 else torch.contiguous_format
        )

    if work == "gemm":
        a, b = tensor(normal(1760, 1760)), tensor(normal(1760, 128))
        return torch.inference_mode()(lambda: a @ b)
    if work == "conv":
        images, filters = tensor(normal(16, 192, 28, 28)), tensor(normal(32, 192, 5, 5))
        return torch.inference_mode()(lambda: functional.conv2d(images, filters, padding=2))
    batch = tensor(normal(batch_size, 3, 224, 224))
    arrays = [array.transpose(3, 2, 0, 1) if array.ndim == 4 else array for array in kernels()]
    parameters = [tensor(array).requires_grad_() for array in arrays]

    def forward() -> Any:
        net = batch
        for number, (_, size, stride, is_pooled) in enumerate(CONVOLUTIONS):
            kernel, bias = parameters[2 * number : 2 * number + 2]
            if stride == 4:  # SAME, as TensorFlow pads it
                net = functional.relu(functional.conv2d(functional.pad(net, (3, 4, 3, 4)), kernel, bias, stride))
            else:
                net = functional.relu(functional.conv2d(net, kernel, bias, stride, padding=size // 2))
            net = functional.max_pool2d(net, 3, 2) if is_pooled else net
        return net

    def both() -> Any:
        return torch.autograd.grad((forward() ** 2).sum() / 2, parameters)

    return torch.inference_mode()(forward) if pass_ == "forward" else both


def jax_step(work: str, pass_: str, batch_size: int, threads: int) -> Any:
    os.environ["NPROC"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    from jax import lax
    from jax import numpy as jnp

    if work == "gemm":
        multiply, a, b = jax.jit(jnp.matmul), jnp.asarray(normal(1760, 1760)), jnp.asarray(normal(1760, 128))
        return lambda: jax.block_until_ready(multiply(a, b))

    def convolve(images: Any, filters: Any, stride: int = 1, padding: Any = "SAME") -> Any:
        return lax.conv_general_dilated(
            images, filters, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    if work == "conv":
        images, filters = jnp.asarray(normal(16, 28, 28, 192)), jnp.asarray(normal(5, 5, 192, 32))
        run = jax.jit(lambda one, other: convolve(one, other, padding=[(2, 2), (2, 2)]))
        return lambda: jax.block_until_ready(run(images, filters))
    batch, parameters = jnp.asarray(normal(batch_size, 224, 224, 3)), [jnp.asarray(array) for array in kernels()]

    def forward(parameters: list[Any], net: Any) -> Any:
        for number, (_, _, stride, is_pooled) in enumerate(CONVOLUTIONS):
            kernel, bias = parameters[2 * number : 2 * number + 2]
            net = jax.nn.relu(convolve(net, kernel, stride) + bias)
            if is_pooled:
                net = lax.reduce_window(net, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        return net

    def loss(parameters: list[Any], net: Any) -> Any:
        return (forward(parameters, net) ** 2).sum() / 2

    run = jax.jit(forward if pass_ == "forward" else jax.grad(loss))
    return lambda: jax.block_until_ready(run(parameters, batch))


STEPS = {"tensorflow": tensorflow_step, "torch": torch_step, "jax": jax_step}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--framework", choices=STEPS, required=True)
    parser.add_argument("--work", choices=["alexnet", "gemm", "conv"], required=True)
    parser.add_argument("--pass", dest="pass_", choices=["forward", "forward_backward"], default="forward")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    step = STEPS[given.framework](given.work, given.pass_, given.batch_size, given.threads)
    print(json.dumps({"ms": timed(step, given.steps)}))


if __name__ == "__main__":
    main()
