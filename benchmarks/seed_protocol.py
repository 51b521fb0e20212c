"""The seed's protocol, restated plainly: AlexNet in graph mode, timed as TensorFlow r0.11's alexnet_benchmark timed it.

A floor to hold muster against, so it shares no code with it. A `tf.compat.v1` session; `session.run` of the last pool,
or of the gradients, so that what comes out is fetched to the host; 10 warm-up steps; every step timed alone.

    python benchmarks/seed_protocol.py --pass forward --batch-size 128 --steps 100

prints one JSON object: {"pass": ..., "batch_size": ..., "ms": [one for each counted step]}.

Not as in 2016: the clock is monotonic (theirs was time.time), and each pass has a process of its own (theirs ran
forward, then both, in one).
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import tensorflow as tf

WARMUP_STEPS = 10
IMAGE_SIZE = 224

v1 = tf.compat.v1


def convolution(images: Any, parameters: list[Any], name: str, size: int, filters: int, stride: int) -> Any:
    with tf.name_scope(name):
        shape = [size, size, int(images.shape[-1]), filters]
        kernel = v1.Variable(v1.truncated_normal(shape, dtype=tf.float32, stddev=1e-1), name="weights")
        biases = v1.Variable(tf.constant(0.0, shape=[filters], dtype=tf.float32), trainable=True, name="biases")
        parameters += [kernel, biases]
        product = v1.nn.conv2d(images, kernel, [1, stride, stride, 1], padding="SAME")
        return tf.nn.relu(tf.nn.bias_add(product, biases))


def pool(images: Any, name: str) -> Any:
    return v1.nn.max_pool(images, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="VALID", name=name)


def inference(images: Any) -> tuple[Any, list[Any]]:
    parameters: list[Any] = []
    net = pool(convolution(images, parameters, "conv1", 11, 64, 4), "pool1")
    net = pool(convolution(net, parameters, "conv2", 5, 192, 1), "pool2")
    net = convolution(net, parameters, "conv3", 3, 384, 1)
    net = convolution(net, parameters, "conv4", 3, 256, 1)
    net = convolution(net, parameters, "conv5", 3, 256, 1)
    return pool(net, "pool5"), parameters


def time_steps(session: Any, target: Any, steps: int) -> list[float]:
    ms = []
    for step in range(WARMUP_STEPS + steps):
        start = time.perf_counter()
        _ = session.run(target)
        if step >= WARMUP_STEPS:
            ms.append((time.perf_counter() - start) * 1e3)
    return ms


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pass", dest="pass_", choices=["forward", "forward_backward"], required=True)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0, help="intra-op and inter-op; 0: TensorFlow's own choice")
    given = parser.parse_args()
    with tf.Graph().as_default():
        shape = [given.batch_size, IMAGE_SIZE, IMAGE_SIZE, 3]
        images = v1.Variable(v1.random_normal(shape, dtype=tf.float32, stddev=1e-1))
        target, parameters = inference(images)
        if given.pass_ == "forward_backward":
            target = tf.gradients(tf.nn.l2_loss(target), parameters)
        config = v1.ConfigProto(intra_op_parallelism_threads=given.threads, inter_op_parallelism_threads=given.threads)
        config.gpu_options.allocator_type = "BFC"
        with v1.Session(config=config) as session:
            session.run(v1.global_variables_initializer())
            ms = time_steps(session, target, given.steps)
    print(json.dumps({"pass": given.pass_, "batch_size": given.batch_size, "ms": ms}))


if __name__ == "__main__":
    main()
