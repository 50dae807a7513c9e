#!/usr/bin/env python3
"""Exports one Keras model and writes what TensorFlow makes of it. It runs in an environment of its own (requirements-tensorflow.txt).

    keras_export.py MODEL keras|tf2onnx|tflite SIZE BATCH OPSET model.onnx reference.npz

The reference holds a batch of images [n, size, size, 3] and labels, the cross-entropy of the model in inference mode by tf.GradientTape in float64, and of
every weight its value and its gradient.
"""
import os
import sys

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", KERAS_BACKEND="tensorflow")
import keras
import numpy as np
import tensorflow as tf
from keras import applications, layers

CLASSES = 10


def plain(shape):
    """Every layer that small Keras classifiers are made of, without BatchNormalization: all of its weights can be compared."""
    return keras.Sequential([
        keras.Input(shape), layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Conv2D(24, 3, strides=2, padding="same", activation="elu"),
        layers.DepthwiseConv2D(3, padding="same", activation="swish"), layers.SeparableConv2D(32, 3, activation="tanh"), layers.AveragePooling2D(2, 1, padding="same"), layers.PReLU(shared_axes=[1, 2]),
        layers.Flatten(), layers.Dropout(0.5), layers.Dense(24, activation="selu"), layers.Dense(CLASSES, activation="softmax"),
    ])


def residual(shape):
    """A small residual network with BatchNormalization, global pooling and scores without a softmax."""
    x = first = keras.Input(shape)
    x = layers.Rescaling(2.0, offset=-1.0)(x)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for width, stride in ((16, 1), (32, 2)):
        y = layers.LeakyReLU()(layers.BatchNormalization()(layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)))
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([y, x if stride == 1 else layers.Conv2D(width, 1, strides=2)(x)]))
    return keras.Model(first, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def application(name, **keywords):
    return lambda shape: getattr(applications, name)(input_shape=shape, weights=None, classes=CLASSES, **keywords)


MODELS = {
    "plain": plain, "residual": residual, "MobileNet": application("MobileNet", alpha=0.25), "MobileNetV2": application("MobileNetV2", alpha=0.35),
    "MobileNetV3Small": application("MobileNetV3Small"), "ResNet50V2": application("ResNet50V2"), "DenseNet121": application("DenseNet121"),
    "EfficientNetB0": application("EfficientNetB0"), "Xception": application("Xception"), "NASNetMobile": application("NASNetMobile"),
    "ConvNeXtTiny": application("ConvNeXtTiny"),
}


def randomize(model):
    """No two tensors are equal, and none is trivial: exporters merge or drop those."""
    random = np.random.default_rng(7)
    for v in model.weights:
        if "seed" in v.name:
            continue
        old = v.numpy()
        if v.name in ("moving_variance", "gamma"):
            v.assign(random.uniform(0.5, 1.5, old.shape))
        elif old.ndim <= 1 or v.name == "alpha":
            v.assign(random.normal(0, 0.1, old.shape))


def export(model, how, opset, path):
    spec = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name="images")]
    if how == "keras":
        model(np.zeros((1, *model.inputs[0].shape[1:]), np.float32))  # it exports no model that was never called
        model.export(path, format="onnx", opset_version=opset, verbose=False)
        return
    import tf2onnx

    if how == "tf2onnx":
        tf2onnx.convert.from_function(tf.function(lambda x: model(x, training=False), input_signature=spec), input_signature=spec, opset=opset, output_path=path)
    else:
        lite = path + ".tflite"
        with open(lite, "wb") as f:
            f.write(tf.lite.TFLiteConverter.from_keras_model(model).convert())
        tf2onnx.convert.from_tflite(lite, opset=opset, output_path=path)


def main():
    name, how, size, batch, opset, path, reference = sys.argv[1:]
    shape = (int(size), int(size), 3)
    keras.utils.set_random_seed(7)
    model = MODELS[name](shape)
    randomize(model)
    export(model, how, int(opset), path)
    keras.config.set_dtype_policy("float64")
    twin = MODELS[name](shape)
    twin.set_weights(model.get_weights())
    random = np.random.default_rng(3)
    images, labels = random.random((int(batch), *shape), np.float32), random.integers(0, CLASSES, int(batch))
    from_logits = getattr(twin.layers[-1], "activation", None) is not keras.activations.softmax
    with tf.GradientTape() as tape:
        scores = twin(images.astype(np.float64), training=False)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=from_logits))
    variables = twin.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    out = {"images": images, "labels": labels, "loss": loss.numpy()}
    for v, g in zip(variables, gradients):
        out["value:" + v.path], out["gradient:" + v.path] = v.numpy(), tf.convert_to_tensor(g).numpy()
    np.savez(reference, **out)


if __name__ == "__main__":
    main()
