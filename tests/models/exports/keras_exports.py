"""Makes keras-*.onnx and keras-*.npz beside it, which tests/models/test_exports.py reads: TensorFlow is no part of CI.

Two small classifiers of Keras, taught for a few steps on noise so that no weight is what it began as, exported in the
two ways that docs/bring-a-model.md shows, each with 16 inputs and what Keras itself says of them. In an environment of
its own, seen with Python 3.11, tensorflow-cpu 2.21.0, keras 3 and tf2onnx 1.17.0:

    pip install tensorflow-cpu==2.21.0 tf2onnx==1.17.0
    python keras_exports.py
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers

HERE = Path(__file__).parent
SHAPE, CLASSES = (16, 16, 3), 3


def plain() -> keras.Model:
    """As most tutorials end: average over the map, dropout, one dense layer with its softmax inside."""
    x = entry = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(12, 3, padding="same", activation="relu")(x)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(entry, layers.Dense(CLASSES, activation="softmax")(x))


def pointwise() -> keras.Model:
    """As MobileNet of keras.applications ends: the last layer is a convolution of 1x1, then a softmax."""
    x = entry = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Reshape((CLASSES,))(layers.Conv2D(CLASSES, 1, padding="same")(x))
    return keras.Model(entry, layers.Activation("softmax")(x))


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (64, *SHAPE)).astype(np.float32)
    y = rng.integers(0, CLASSES, 64)
    for make, nchw in ((plain, None), (pointwise, ["x"])):
        keras.utils.set_random_seed(1)
        model = make()
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=3, verbose=0)
        signature = [tf.TensorSpec((None, *SHAPE), tf.float32, name="x")]
        function = tf.function(lambda x, model=model: model(x, training=False), input_signature=signature)
        path = HERE / f"keras-{make.__name__}.onnx"
        tf2onnx.convert.from_function(
            function, input_signature=signature, opset=17, inputs_as_nchw=nchw, output_path=str(path)
        )
        said = model.predict(x[:16], verbose=0)
        np.savez_compressed(path.with_suffix(".npz"), x=x[:16].astype(np.uint8), probabilities=said)


if __name__ == "__main__":
    main()
