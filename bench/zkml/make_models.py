#!/usr/bin/env python3
"""Writes the models of the comparison as ONNX files with one input each (random weights, fixed seeds).

usage: make_models.py OUT [NAME ...]

Needs numpy and onnx. Every model has a random stream of its own, so a model is the same whichever others are written.
The weights are random: the models are for cost, not for accuracy.
"""

import json
import pathlib
import sys
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Model:
    """Collects nodes and weights; every method returns the name of its result."""

    def __init__(self, name):
        self.name = name
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.nodes, self.weights, self.shapes = [], [], {}
        self.count = 0

    def fresh(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def constant(self, values, dtype=np.float32):
        name = self.fresh("w")
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def normal(self, *shape, fan):
        return self.constant(self.rng.standard_normal(shape) * np.sqrt(1.4 / fan))

    def node(self, op, *inputs, **attributes):
        name = self.fresh(op.lower())
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def dense(self, x, size_in, size_out):
        w = self.normal(size_in, size_out, fan=size_in)
        return self.node("Gemm", x, w, self.constant(self.rng.standard_normal(size_out) * 0.05))

    def conv(self, x, size_in, size_out, kernel, pad):
        w = self.normal(size_out, size_in, kernel, kernel, fan=size_in * kernel * kernel)
        b = self.constant(self.rng.standard_normal(size_out) * 0.05)
        return self.node(
            "Conv", x, w, b, kernel_shape=[kernel] * 2, strides=[1, 1], pads=[pad] * 4, dilations=[1, 1]
        )

    def pool(self, x):
        return self.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0])

    def layer_norm(self, x, size):
        mean = self.node("ReduceMean", x, axes=[-1], keepdims=1)
        centred = self.node("Sub", x, mean)
        square = self.node("Mul", centred, centred)
        variance = self.node("ReduceMean", square, axes=[-1], keepdims=1)
        root = self.node("Sqrt", self.node("Add", variance, self.constant([1e-5])))
        scaled = self.node("Mul", self.node("Div", centred, root), self.constant(np.ones(size)))
        return self.node("Add", scaled, self.constant(np.zeros(size)))

    def gelu(self, x):
        inner = self.node("Erf", self.node("Div", x, self.constant([np.sqrt(2.0)])))
        product = self.node("Mul", x, self.node("Add", inner, self.constant([1.0])))
        return self.node("Mul", product, self.constant([0.5]))

    def save(self, folder, inputs, output, shape, sample, macs):
        """`inputs`: (name, element type, shape)."""
        self.nodes.append(helper.make_node("Identity", [output], ["output"]))
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(*entry) for entry in inputs],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, folder / f"{self.name}.onnx")
        parameters = sum(int(np.prod(weight.dims)) for weight in self.weights)
        (folder / f"{self.name}.input.json").write_text(json.dumps({name: value.tolist() for name, value in sample.items()}))
        (folder / f"{self.name}.meta.json").write_text(json.dumps({"parameters": parameters, "macs": macs}))
        print(f"{self.name}: {parameters} parameters, {macs} multiplications")


def mlp(name, sizes):
    def build(folder):
        model, x = Model(name), "input"
        for layer, (size_in, size_out) in enumerate(zip(sizes, sizes[1:])):
            x = model.dense(x, size_in, size_out)
            if layer < len(sizes) - 2:
                x = model.node("Relu", x)
        sample = {"input": model.rng.uniform(-1, 1, (1, sizes[0])).astype(np.float32)}
        macs = sum(a * b for a, b in zip(sizes, sizes[1:]))
        model.save(folder, [("input", TensorProto.FLOAT, [1, sizes[0]])], x, [1, sizes[-1]], sample, macs)

    return build


def cnn(folder):
    """32 x 32 images with three channels: two convolutions, three dense layers."""
    model, x = Model("cnn264k"), "input"
    x = model.pool(model.node("Relu", model.conv(x, 3, 16, 5, 0)))
    x = model.pool(model.node("Relu", model.conv(x, 16, 32, 5, 0)))
    x = model.node("Reshape", x, model.constant([1, 800], np.int64))
    for size_in, size_out in [(800, 268), (268, 128)]:
        x = model.node("Relu", model.dense(x, size_in, size_out))
    x = model.dense(x, 128, 10)
    sample = {"input": model.rng.uniform(0, 1, (1, 3, 32, 32)).astype(np.float32)}
    macs = 28 * 28 * 16 * 75 + 10 * 10 * 32 * 400 + 800 * 268 + 268 * 128 + 1280
    model.save(folder, [("input", TensorProto.FLOAT, [1, 3, 32, 32])], x, [1, 10], sample, macs)


def lenet(folder):
    """28 x 28 images: two convolutions with pooling, three dense layers. ezkl refuses convolutions without strides."""
    model, x = Model("lenet"), "input"
    x = model.pool(model.node("Relu", model.conv(x, 1, 6, 5, 0)))
    x = model.pool(model.node("Relu", model.conv(x, 6, 16, 5, 0)))
    x = model.node("Reshape", x, model.constant([1, 256], np.int64))
    for size_in, size_out in [(256, 120), (120, 84)]:
        x = model.node("Relu", model.dense(x, size_in, size_out))
    x = model.dense(x, 84, 10)
    sample = {"input": model.rng.uniform(0, 1, (1, 1, 28, 28)).astype(np.float32)}
    macs = 24 * 24 * 6 * 25 + 8 * 8 * 16 * 150 + 256 * 120 + 120 * 84 + 840
    model.save(folder, [("input", TensorProto.FLOAT, [1, 1, 28, 28])], x, [1, 10], sample, macs)


def block(folder):
    """One pre-norm transformer block on 16 positions of width 64: four heads, ReLU, 256 hidden."""
    model, (sequence, width, heads) = Model("tblock"), (16, 64, 4)
    head = width // heads
    split = model.constant([1, sequence, heads, head], np.int64)
    join = model.constant([1, sequence, width], np.int64)
    normed, parts = model.layer_norm("input", width), []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        part = model.node("MatMul", normed, model.normal(width, width, fan=2 * width))
        parts.append(model.node("Transpose", model.node("Reshape", part, split), perm=perm))
    query, key, value = parts
    scores = model.node("Mul", model.node("MatMul", query, key), model.constant([1 / np.sqrt(head)]))
    mixed = model.node("MatMul", model.node("Softmax", scores, axis=-1), value)
    mixed = model.node("Reshape", model.node("Transpose", mixed, perm=[0, 2, 1, 3]), join)
    x = model.node("Add", "input", model.node("MatMul", mixed, model.normal(width, width, fan=2 * width)))
    hidden = model.node("MatMul", model.layer_norm(x, width), model.normal(width, 256, fan=width))
    hidden = model.node("Relu", model.node("Add", hidden, model.constant(model.rng.standard_normal(256) * 0.05)))
    out = model.node("MatMul", hidden, model.normal(256, width, fan=256))
    x = model.node("Add", x, model.node("Add", out, model.constant(model.rng.standard_normal(width) * 0.05)))
    sample = {"input": (model.rng.standard_normal((1, sequence, width)) * 0.7).astype(np.float32)}
    macs = sequence * 12 * width * width + 2 * sequence * sequence * width
    shape = [1, sequence, width]
    model.save(folder, [("input", TensorProto.FLOAT, shape)], x, shape, sample, macs)


def transformer(name, layers, width, heads, vocabulary, sequence, head_matrix=True):
    """Decoder with learned positions, causal attention, exact GELU, and an output matrix of its own or none."""

    def build(folder):
        model = Model(name)
        head = width // heads
        table = model.constant(model.rng.standard_normal((vocabulary, width)) * 0.5)
        positions = model.constant(model.rng.standard_normal((1, sequence, width)) * 0.1)
        x = model.node("Add", model.node("Gather", table, "input", axis=0), positions)
        split = model.constant([1, sequence, heads, head], np.int64)
        join = model.constant([1, sequence, width], np.int64)
        scale = model.constant([1 / np.sqrt(head)])
        mask = model.constant(np.triu(np.full((1, 1, sequence, sequence), -30.0), 1))
        macs = 0
        for _ in range(layers):
            normed = model.layer_norm(x, width)
            parts = []
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
                part = model.node("MatMul", normed, model.normal(width, width, fan=2 * width))
                parts.append(model.node("Transpose", model.node("Reshape", part, split), perm=perm))
            query, key, value = parts
            scores = model.node("Add", model.node("Mul", model.node("MatMul", query, key), scale), mask)
            mixed = model.node("MatMul", model.node("Softmax", scores, axis=-1), value)
            mixed = model.node("Reshape", model.node("Transpose", mixed, perm=[0, 2, 1, 3]), join)
            x = model.node("Add", x, model.node("MatMul", mixed, model.normal(width, width, fan=2 * width)))
            normed = model.layer_norm(x, width)
            hidden = model.node("MatMul", normed, model.normal(width, 4 * width, fan=width))
            hidden = model.gelu(model.node("Add", hidden, model.constant(np.zeros(4 * width))))
            out = model.node("MatMul", hidden, model.normal(4 * width, width, fan=8 * width))
            x = model.node("Add", x, model.node("Add", out, model.constant(np.zeros(width))))
            macs += sequence * 12 * width * width + 2 * sequence * sequence * width
        x = model.layer_norm(x, width)
        if head_matrix:
            x = model.node("MatMul", x, model.normal(width, vocabulary, fan=width))
            macs += sequence * width * vocabulary
        sample = {"input": model.rng.integers(0, vocabulary, (1, sequence))}
        inputs = [("input", TensorProto.INT64, [1, sequence])]
        size_out = vocabulary if head_matrix else width
        model.save(folder, inputs, x, [1, sequence, size_out], sample, macs)

    return build


MODELS = {
    "mlp17k": mlp("mlp17k", [64, 128, 64, 10]),
    "mlp200k": mlp("mlp200k", [784, 224, 112, 10]),
    "lenet": lenet,
    "tblock": block,
    "mlp1m": mlp("mlp1m", [784, 800, 400, 128, 10]),
    "dense4m": mlp("dense4m", [784, 1400, 1400, 700, 10]),
    "cnn264k": cnn,
    "nanogpt": transformer("nanogpt", 4, 64, 4, 65, 64),
    # GPT-2's 124M parameters. It uses the embedding's table a second time for its output; here the output is what goes in there.
    "gpt2": transformer("gpt2", 12, 768, 12, 50257, 16, head_matrix=False),
}

if __name__ == "__main__":
    out, names = pathlib.Path(sys.argv[1]), sys.argv[2:] or [name for name in MODELS if name != "gpt2"]
    for wanted in names:
        MODELS[wanted](out)
