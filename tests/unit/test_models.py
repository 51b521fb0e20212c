from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from workers import models
from workers.models.initial import dropout_mask, initial_values
from workers.models.joins import Add, Concat
from workers.models.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Padding,
)
from workers.models.network import Model
from workers.protocol import Pass

if TYPE_CHECKING:
    from pathlib import Path

    from workers.models.layers import Shape


def a_model(*layers: Layer, input_shape: Shape = (8, 8, 3)) -> Model:
    return Model(
        name="tiny",
        description="A tiny one.",
        source="tests",
        input_shape=input_shape,
        layers=layers,
        weight_sd=0.1,
        input_sd=0.1,
    )


ONE = (Conv(name="one", filters=4, kernel=1),)
HALVED = (Conv(name="halved", filters=4, kernel=1, stride=2),)

# Multiply-adds of each convolution for one image: output height x width x filters x (kernel area x channels in).
CONV1 = 56 * 56 * 64 * (11 * 11 * 3)  # SAME, stride 4: 224 / 4 = 56
CONV2 = 27 * 27 * 192 * (5 * 5 * 64)  # pool 3/2 VALID: (56 - 3) // 2 + 1 = 27
CONV3 = 13 * 13 * 384 * (3 * 3 * 192)  # pool 3/2 VALID: (27 - 3) // 2 + 1 = 13
CONV4 = 13 * 13 * 256 * (3 * 3 * 384)
CONV5 = 13 * 13 * 256 * (3 * 3 * 256)
CONVOLUTIONS = CONV1 + CONV2 + CONV3 + CONV4 + CONV5

CONVOLUTION_PARAMETERS = (
    (11 * 11 * 3 * 64 + 64)
    + (5 * 5 * 64 * 192 + 192)
    + (3 * 3 * 192 * 384 + 384)
    + (3 * 3 * 384 * 256 + 256)
    + (3 * 3 * 256 * 256 + 256)
)


def test_alexnet_has_the_shapes_of_the_script() -> None:
    assert models.get("alexnet").shapes() == (
        (56, 56, 64),
        (27, 27, 64),
        (27, 27, 192),
        (13, 13, 192),
        (13, 13, 384),
        (13, 13, 256),
        (13, 13, 256),
        (6, 6, 256),
    )


def test_alexnet_multiply_adds_by_hand() -> None:
    assert models.get("alexnet").multiply_adds == CONVOLUTIONS == 658_145_280


def test_alexnet_parameters_by_hand() -> None:
    assert models.get("alexnet").parameters == CONVOLUTION_PARAMETERS == 2_469_696


def test_alexnet_flop_at_the_seed_s_batch() -> None:
    alexnet = models.get("alexnet")
    assert alexnet.flop(128, Pass.FORWARD) == 2 * 128 * CONVOLUTIONS == 168_485_191_680
    assert alexnet.flop(128, Pass.FORWARD_BACKWARD) == 2 * 128 * (3 * CONVOLUTIONS - CONV1) == 486_804_553_728


def test_alexnet_layers_each_by_hand() -> None:
    counted = [placed.multiply_adds for placed in models.get("alexnet").placed()]
    assert counted == [CONV1, 0, CONV2, 0, CONV3, CONV4, CONV5, 0]


def test_alexnet_owt_has_a_relu_after_every_layer() -> None:
    layers = models.get("alexnet-owt").layers
    assert all(layer.relu and layer.bias for layer in layers if isinstance(layer, Conv | Dense))


# Multiply-adds of one image, those of the first layer, and parameters. By hand from convnet-benchmarks' scripts at
# b458aab; e-lab/Torch7-profiling gives 1.43 G operations for the same alexnet-owt. alexnet-tfcnn by hand from
# tf_cnn_benchmarks' model file. The paper says 60 million parameters for AlexNet; the abstract of Eyeriss (ISSCC 2016)
# 666 million multiply-adds in its convolutions. Simonyan and Zisserman (2014, table 2) give 133 million parameters for
# VGG's model A. torchvision's page of ResNet-50, which has version 1.5, says 25557032 parameters and 4.09 GFLOPS.
COUNTS = [
    ("alexnet", 658_145_280, 72_855_552, 2_469_696),
    ("alexnet-owt", 714_188_480, 70_276_800, 61_100_840),
    ("alexnet-tfcnn", 838_792_896, 70_276_800, 61_842_345),
    ("alexnet-2012", 724_406_816, 105_415_200, 60_965_224),
    ("googlenet-v1", 1_582_671_872, 118_013_952, 6_998_552),
    ("resnet-50", 4_089_184_256, 118_013_952, 25_557_032),
    ("overfeat", 2_801_403_904, 109_283_328, 145_920_872),
    ("vgg-a", 7_609_090_048, 86_704_128, 132_863_336),
]


@pytest.mark.parametrize(("name", "multiply_adds", "of_the_first", "parameters"), COUNTS)
def test_networks_count_as_their_scripts_say(name: str, multiply_adds: int, of_the_first: int, parameters: int) -> None:
    model = models.get(name)
    assert model.multiply_adds == multiply_adds
    assert model.placed()[0].multiply_adds == of_the_first
    assert model.parameters == parameters
    assert model.flop(1, Pass.FORWARD_BACKWARD) == 2 * (3 * multiply_adds - of_the_first)


# GFLOP of a forward pass at batch 128 of convnet-benchmarks' layer-wise table, by hand: 2 x 128 x output side squared x
# maps out x kernel side squared x maps in.
LAYERS = [
    ("convnet-l1", 118, 124.217),
    ("convnet-l2", 56, 532.710),
    ("convnet-l3", 24, 195.689),
    ("convnet-l4", 10, 20.552),
    ("convnet-l5", 11, 41.108),
]


@pytest.mark.parametrize(("name", "side", "gflop"), LAYERS)
def test_the_layer_wise_table_s_layers(name: str, side: int, gflop: float) -> None:
    model = models.get(name)
    assert model.shapes()[-1][:2] == (side, side)
    assert model.flop(128, Pass.FORWARD) / 1e9 == pytest.approx(gflop, abs=5e-4)
    # "Backward" there is with respect to input and weights.
    assert model.flop(128, Pass.FORWARD_BACKWARD) == 3 * model.flop(128, Pass.FORWARD)


def test_every_network_s_counts_are_held_against_its_source() -> None:
    assert sorted(name for name, *_ in (*COUNTS, *LAYERS)) == list(models.names())


def test_a_layer_by_itself_has_the_input_that_it_has_in_its_network() -> None:
    layer = models.get("alexnet/conv2")
    assert (layer.name, layer.input_shape, layer.shapes()) == ("alexnet/conv2", (27, 27, 64), ((27, 27, 192),))
    assert layer.multiply_adds == CONV2
    assert layer.flop(1, Pass.FORWARD_BACKWARD) == 3 * 2 * CONV2


def test_a_layer_at_the_image_is_spared_the_image_s_gradient() -> None:
    assert models.get("alexnet/conv1").flop(1, Pass.FORWARD_BACKWARD) == 2 * 2 * CONV1
    paths = ((Conv(name="a", filters=2, kernel=1), Conv(name="b", filters=2, kernel=1)), ())
    model = a_model(Concat(name="both", paths=paths), Conv(name="c", filters=1, kernel=1))
    wants = {name: model.layer_alone(name).wants_input_gradient for name in ("a", "b", "both", "c")}
    assert wants == {"a": False, "b": True, "both": False, "c": True}


def test_a_layer_inside_a_module_is_named_by_its_own_name() -> None:
    assert models.get("googlenet-v1/inception3a/3x3").input_shape == (28, 28, 96)
    assert models.get("googlenet-v1/inception3a").multiply_adds == 128_049_152


def test_all_layers_are_those_that_do_something() -> None:
    assert models.get("alexnet-2012").layers_with_work() == (
        "conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "conv3", "conv4", "conv5", "pool5",
        "affine1", "dropout1", "affine2", "dropout2", "affine3",
    )  # fmt: skip
    resnet = models.get("resnet-50").layers_with_work()
    assert "stage1_1/conv1" in resnet
    assert "stage1_1" not in resnet


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alexnet/conv9", r"alexnet has no layer 'conv9', it has conv1, .*; did you mean 'conv"),
        ("alexnt/conv1", "no model is called 'alexnt'"),
        ("alexnet/", "alexnet has no layer ''"),
    ],
)
def test_a_layer_that_is_not_there_is_told_with_those_that_are(name: str, message: str) -> None:
    with pytest.raises(models.UnknownModelError, match=message):
        models.get(name)


def test_the_least_that_a_step_moves_by_hand() -> None:
    layers = (Conv(name="c", filters=2, kernel=3, bias=False), MaxPool(name="p", kernel=2, stride=2))
    model = a_model(*layers)  # 8 x 8 x 3
    numbers = 5 * (8 * 8 * 3) + 3 * 3 * 3 * 2 + 5 * (8 * 8 * 2) + 5 * (8 * 8 * 2) + 5 * (4 * 4 * 2)
    assert model.bytes(5, Pass.FORWARD, 4) == 4 * numbers
    assert model.bytes(5, Pass.FORWARD_BACKWARD, 2) == 3 * 2 * numbers
    joined = a_model(Add(name="j", paths=((Conv(name="k", filters=3, kernel=1, bias=False),), ())))
    # The convolution, then two ends read and one sum written.
    assert joined.bytes(1, Pass.FORWARD, 4) == 4 * ((192 + 9 + 192) + (2 * 192 + 192))


def test_the_paper_s_convolutions_and_the_layers_after_them() -> None:
    placed = {each.layer.name: each for each in models.get("alexnet-2012").placed()}
    assert sum(each.multiply_adds for each in placed.values() if isinstance(each.layer, Conv)) == 665_784_864
    assert placed["conv1"].output_shape == (55, 55, 96)
    # 5 x 5 x 48 in the paper: each filter sees one of two groups.
    assert placed["conv2"].parameters[0].shape == (5, 5, 48, 256)
    # Of the paper's layer sizes in neurons: 186624, 64896, 64896, 43264.
    assert [math.prod(placed[f"conv{number}"].output_shape) for number in (2, 3, 4, 5)] == [
        186_624,
        64_896,
        64_896,
        43_264,
    ]


def test_googlenet_s_modules_have_the_channels_of_its_table() -> None:
    placed = {each.layer.name: each.output_shape for each in models.get("googlenet-v1").placed()}
    modules = {name: shape for name, shape in placed.items() if name.startswith("inception")}
    assert [shape[2] for shape in modules.values()] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert [shape[0] for shape in modules.values()] == [28, 28, 14, 14, 14, 14, 14, 7, 7]


def test_resnet_s_stages_have_the_images_of_its_table() -> None:
    shapes = [each.output_shape for each in models.get("resnet-50").placed() if isinstance(each.layer, Add)]
    assert list(dict.fromkeys(shapes)) == [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]
    assert len(shapes) == 3 + 4 + 6 + 3


def test_version_1_5_halves_the_image_in_a_block_s_3x3() -> None:
    strides = {
        each.layer.name: each.layer.stride
        for each in models.get("resnet-50").every_layer()
        if isinstance(each.layer, Conv) and each.layer.name.startswith("stage2_1")
    }
    assert strides == {"stage2_1/conv1": 1, "stage2_1/conv2": 2, "stage2_1/conv3": 1, "stage2_1/shortcut": 2}


def test_layers_made_of_layers_stand_below_these_and_count_them() -> None:
    paths = ((Conv(name="a", filters=2, kernel=1),), (Conv(name="b", filters=3, kernel=3),))
    model = a_model(Concat(name="both", paths=paths), Conv(name="c", filters=1, kernel=1))
    assert [each.layer.name for each in model.every_layer()] == ["a", "b", "both", "c"]
    a, b, c = 64 * 2 * 3, 64 * 3 * 27, 64 * 5
    assert model.placed()[0].multiply_adds == a + b
    assert model.placed()[0].output_shape == (8, 8, 5)
    # Both paths begin at the image: neither convolution's input needs a gradient, the next one's does.
    assert model.flop(1, Pass.FORWARD_BACKWARD) == 2 * (3 * (a + b + c) - (a + b))


def test_a_path_without_weights_leaves_the_next_layer_s_gradient_needed() -> None:
    paths: tuple[tuple[Layer, ...], ...] = ((), (Conv(name="a", filters=3, kernel=1),))
    model = a_model(Add(name="sum", paths=paths), Conv(name="b", filters=1, kernel=1))
    a, b = 64 * 9, 64 * 3
    assert model.flop(1, Pass.FORWARD_BACKWARD) == 2 * (3 * (a + b) - a)


def test_a_dropout_s_mask_is_always_the_same_and_its_own() -> None:
    mask = dropout_mask(Dropout(name="a", rate=0.25), (400, 500))
    assert np.array_equal(mask, dropout_mask(Dropout(name="a", rate=0.25), (400, 500)))
    assert not np.array_equal(mask, dropout_mask(Dropout(name="b", rate=0.25), (400, 500)))
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.75)}
    # What is left makes up for what is gone.
    assert mask.mean() == pytest.approx(1, abs=0.01)


def test_overfeat_and_vgg_have_the_shapes_of_their_scripts() -> None:
    assert [shape[0] for shape in models.get("overfeat").shapes()][:8] == [56, 28, 24, 12, 12, 12, 12, 6]
    assert models.get("overfeat").shapes()[8] == (36864,)
    assert [shape for shape in models.get("vgg-a").shapes() if len(shape) == 3][-1] == (7, 7, 512)
    assert models.get("vgg-a").shapes()[-4:] == ((25088,), (4096,), (4096,), (1000,))


def test_names_are_those_that_get_knows() -> None:
    assert {"alexnet", "alexnet-owt"} <= set(models.names())
    assert list(models.names()) == sorted(models.names())
    assert all(models.get(name).name == name for name in models.names())


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(models.UnknownModelError) as caught:
        models.get("alexnt")
    there = ", ".join(models.names())
    assert str(caught.value) == f"no model is called 'alexnt', there are {there}; did you mean 'alexnet'?"


def test_an_unknown_model_like_no_other_gets_no_guess() -> None:
    with pytest.raises(models.UnknownModelError, match=rf"there are {', '.join(models.names())}$"):
        models.get("zzz")


def test_listing_models_loads_nothing_heavy() -> None:
    check = "import sys; from workers import models; models.get('alexnet').multiply_adds; "
    check += "print([name for name in ('numpy', 'tensorflow', 'ray') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"


NEW_FILE = """
from workers.models.layers import Conv
from workers.models.network import Model
VARIANTS = (Model(name="{name}", description="", source="", input_shape=(4, 4, 3), weight_sd=1.0, input_sd=1.0,
                  layers=(Conv(name="c", filters=1, kernel=1),)),)
"""


def listed_with_a_new_file(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    folder.joinpath("newcomer.py").write_text(NEW_FILE.format(name=name))
    look = (
        f"from workers import models; models.__path__.append({str(folder)!r}); print(models.get({name!r}).parameters)"
    )
    return subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)


def test_a_new_model_is_one_file(tmp_path: Path) -> None:
    assert listed_with_a_new_file(tmp_path, "newcomer").stdout == "4\n"


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    assert (
        "two models are called 'alexnet'; the second in newcomer.py"
        in listed_with_a_new_file(tmp_path, "alexnet").stderr
    )


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding", "expected"),
    [
        (224, 11, 4, Padding.SAME, 56),
        (227, 11, 4, Padding.VALID, 55),
        (5, 2, 2, Padding.SAME, 3),
        (5, 2, 2, Padding.VALID, 2),
        (3, 3, 1, Padding.VALID, 1),
        (2, 5, 1, Padding.SAME, 2),
    ],
)
def test_a_window_s_places(side: int, kernel: int, stride: int, padding: Padding, expected: int) -> None:
    layer = Conv(name="c", filters=4, kernel=kernel, stride=stride, padding=padding)
    assert layer.output_shape((side, side, 3)) == (expected, expected, 4)


def test_without_a_bias_there_are_weights_alone() -> None:
    model = a_model(Conv(name="c", filters=4, kernel=3, bias=False), Flatten(name="f"))
    assert [parameter.name for parameter in model.placed()[0].parameters] == ["c/weights"]
    assert model.parameters == 3 * 3 * 3 * 4


def test_the_image_s_gradient_is_not_counted_whatever_the_first_layer() -> None:
    # A pool first: the convolution is still the first layer with weights. 4x4 places x 2 filters x (9 x 3).
    model = a_model(MaxPool(name="p", kernel=2, stride=2), Conv(name="c", filters=2, kernel=3))
    conv = 4 * 4 * 2 * 27
    assert model.flop(5, Pass.FORWARD_BACKWARD) == 2 * 5 * (3 * conv - conv)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Conv(name="c", filters=1, kernel=9, padding=Padding.VALID),), "c: a 9x9 kernel with VALID padding"),
        ((MaxPool(name="p", kernel=9, stride=1),), "p: a 9x9 kernel with VALID padding does not fit 8x8"),
        ((Dense(name="d", units=2),), "d: expected one row of numbers.*put a Flatten before it"),
        ((Flatten(name="f"), Conv(name="c", filters=1, kernel=1)), "c: expected an image"),
        ((Flatten(name="f"), MaxPool(name="p", kernel=1, stride=1)), "p: expected an image"),
        ((Flatten(name="f"), Flatten(name="g")), "g: expected an image"),
        ((Flatten(name="a"), Dense(name="a", units=1)), "two layers are called a"),
        ((MaxPool(name="p", kernel=2, stride=2),), "no layer has weights"),
        ((), "no layer has weights"),
        ((Conv(name="c", filters=4, kernel=1, groups=2),), "c: 3 channels cannot be split into 2 groups"),
        ((Flatten(name="f"), AveragePool(name="p", kernel=1)), "p: expected an image"),
        ((Flatten(name="f"), BatchNorm(name="b")), "b: expected an image"),
        ((Flatten(name="f"), LocalResponseNorm(name="n")), "n: expected an image"),
        (
            (Concat(name="j", paths=(ONE, HALVED)),),
            "j: its paths end in images of different sizes: 8 x 8 x 4, 4 x",
        ),
        ((Add(name="j", paths=(ONE, ())),), "j: its paths end in different shapes: 8 x 8 x 4, 8 x 8 x 3"),
        ((Concat(name="one", paths=(ONE, ())),), "two layers are called one"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: tuple[Layer, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"model tiny: {message}"):
        a_model(*layers)


@pytest.mark.parametrize("shape", [(), (0, 8, 3), (8, 8, -1)])
def test_an_empty_input_is_refused(shape: Shape) -> None:
    with pytest.raises(ValueError, match="model tiny: its input cannot have the shape"):
        a_model(Conv(name="c", filters=1, kernel=1), input_shape=shape)


def test_a_join_needs_two_paths_and_a_dropout_a_share() -> None:
    with pytest.raises(ValueError, match="j: it needs two paths at least, not 1"):
        Add(name="j", paths=(ONE,))
    with pytest.raises(ValueError, match="d: rate must be at least 0 and less than 1, not 1"):
        Dropout(name="d", rate=1)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="c: stride must be at least 1, not 0"):
        Conv(name="c", filters=1, kernel=1, stride=0)
    with pytest.raises(ValueError, match="p: kernel must be at least 1, not 0"):
        MaxPool(name="p", kernel=0, stride=1)
    with pytest.raises(ValueError, match="c: 4 filters cannot be split into 3 groups"):
        Conv(name="c", filters=4, kernel=1, groups=3)
    with pytest.raises(ValueError, match="d: units must be at least 1, not -4"):
        Dense(name="d", units=-4)


def test_initial_weights_are_truncated_normal_and_biases_zero() -> None:
    model = a_model(Conv(name="c", filters=64, kernel=11), Flatten(name="f"), Dense(name="d", units=64))
    values = initial_values(model, batch_size=64)
    kernel, biases, weights, _ = values.parameters
    for tensor in (kernel, weights):
        assert np.abs(tensor).max() <= 0.2
        # Standard deviation of a normal cut at two: 0.8796 of the whole one's.
        assert tensor.std() == pytest.approx(0.08796, rel=0.02)
        assert tensor.mean() == pytest.approx(0, abs=0.002)
    assert not biases.any()


def test_initial_images_are_normal() -> None:
    images = initial_values(a_model(Conv(name="c", filters=1, kernel=1), input_shape=(64, 64, 3)), batch_size=4).images
    assert images.shape == (4, 64, 64, 3)
    assert images.dtype == np.float32
    assert images.std() == pytest.approx(0.1, rel=0.02)
    assert np.abs(images).max() > 0.3


def test_initial_values_are_the_same_every_time() -> None:
    model = a_model(Conv(name="c", filters=2, kernel=3))
    first, second = initial_values(model, 2), initial_values(model, 2)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.parameters[0], second.parameters[0])
