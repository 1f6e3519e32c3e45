"""Recurrent streaming layers: GRU and LSTM."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from kws_train.networks.keras_backend import constants
from kws_train.networks.streaming import Shape, States, Streaming, Tensor, joined

__all__ = ["GRU", "LSTM", "Recurrent"]


class Recurrent(Streaming):
    """A recurrent layer over time, one band.

    Keras's layer runs over sequences; explicit equations run in steps, and over sequences too if
    the layer is quantisation-aware.
    """

    cell_type: type[keras.layers.RNN]
    gates: tuple[str, ...]
    n_states = 1

    def __init__(self, units: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.cell = self.cell_type(units, return_sequences=True, use_cudnn=False)
        self.dropout = keras.layers.Dropout(dropout)

    def build(self, shape: Shape) -> None:
        """Build the cell for (batch, time, 1, channels)."""
        self.cell.build((shape[0], shape[1], shape[3]))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Run over (batch, time, 1, channels)."""
        x = self.dropout(x, training=training)[:, :, 0, :]
        if not self.ranges:
            return ops.expand_dims(self.cell(x, training=training), 2)
        weights = self._weights()
        shapes = [(ops.shape(x)[0], self.units)] * self.n_states
        follow = partial(self._update, weights=weights)
        unroll = self.ranges.mode == "observe"
        return ops.expand_dims(_recur(follow, self._inputs(x, weights), shapes, unroll=unroll), 2)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape with `units` channels."""
        return (shape[0], shape[1], 1, self.units)

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the states."""
        return [(1, self.units)] * self.n_states

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Run the next frames one after another, unrolled."""
        states = self._bounded(states)
        weights = constants(self._weights)
        outputs = []
        for t in range(x.shape[1]):
            states = self._update(states, self._inputs(x[:, t, 0, :], weights), weights)
            outputs.append(ops.reshape(states[0], (1, 1, 1, self.units)))
        return joined(outputs), states

    def bound(self, h: Tensor) -> Tensor:
        """Return h; export replaces this method to fix the range of h in the quantised model."""
        return self.ranges.apply_unit("tanh", h) if self.ranges else h

    def _bounded(self, states: States) -> States:
        return [self.bound(states[0])]

    def _weights(self) -> list[Tensor]:
        """Return weights of the input and of h, and biases of the input, of all gates each."""
        raise NotImplementedError

    def _inputs(self, x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return the contribution of the input to each gate: (..., units)."""
        n = len(self.gates)
        gates = zip(self.gates, weights[:n], weights[2 * n : 3 * n], strict=True)
        return [self.quantized(f"{gate}_x", ops.matmul(x, w) + b) for gate, w, b in gates]

    def _update(
        self, states: States, inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> States:
        """Return the states after one time step, h first."""
        raise NotImplementedError


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), `reset_after` form.

    z = s(Wz x + Uz h + bz), r likewise, c = tanh(Wc x + bc + r * (Uc h + dc)), h' = c + z (h - c).
    """

    cell_type = keras.layers.GRU
    gates = ("z", "r", "c")
    points = ("z_x", "r_x", "c_x", "z_h", "r_h", "c_h", "z", "r", "reset", "c", "gap", "change")

    def _weights(self) -> list[Tensor]:
        """Return the weights and biases of the gates, and the recurrent bias of c.

        The input biases of z and r include their recurrent biases.
        """
        kernel, recurrent, bias = self.cell.weights
        (bz, br, bc), (dz, dr, dc) = (ops.split(row, 3) for row in (bias[0], bias[1]))
        weights = [*ops.split(kernel, 3, axis=1), *ops.split(recurrent, 3, axis=1)]
        return [*(self.quantized_kernel(weight) for weight in weights), bz + dz, br + dr, bc, dc]

    def _update(
        self, states: States, inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> States:
        (h,), (z_x, r_x, c_x), (uz, ur, uc), dc = states, inputs, weights[3:6], weights[9]
        z = self.sigmoid(self.quantized("z", z_x + self.quantized("z_h", ops.matmul(h, uz))))
        r = self.sigmoid(self.quantized("r", r_x + self.quantized("r_h", ops.matmul(h, ur))))
        past = self.quantized("reset", r * self.quantized("c_h", ops.matmul(h, uc) + dc))
        c = self.tanh(self.quantized("c", c_x + past))
        return [self.bound(c + self.quantized("change", z * self.quantized("gap", h - c)))]


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997).

    i = s(Wi x + Ui h + bi), f and o likewise, c' = f c + i tanh(Wc x + Uc h + bc), h' = o tanh(c').
    The states are h, which is within -1..1, and c, which is unbounded.
    """

    cell_type = keras.layers.LSTM
    gates = ("i", "f", "c", "o")
    n_states = 2
    points = (
        *(f"{gate}_x" for gate in gates),
        *(f"{gate}_h" for gate in gates),
        *gates,
        *("kept", "added", "cell"),
    )

    def bound_cell(self, c: Tensor) -> Tensor:
        """Return c; export replaces this method to use a range observed on examples."""
        return self.quantized("cell", c)

    def _bounded(self, states: States) -> States:
        return [self.bound(states[0]), self.bound_cell(states[1])]

    def _weights(self) -> list[Tensor]:
        kernel, recurrent, bias = self.cell.weights
        weights = [*ops.split(kernel, 4, axis=1), *ops.split(recurrent, 4, axis=1)]
        return [*(self.quantized_kernel(weight) for weight in weights), *ops.split(bias, 4)]

    def _update(
        self, states: States, inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> States:
        h, c = states
        i, f, new, o = (
            self.quantized(gate, sent + self.quantized(f"{gate}_h", ops.matmul(h, u)))
            for gate, sent, u in zip(self.gates, inputs, weights[4:8], strict=True)
        )
        kept = self.quantized("kept", self.sigmoid(f) * c)
        c = self.bound_cell(kept + self.quantized("added", self.sigmoid(i) * self.tanh(new)))
        return [self.bound(self.sigmoid(o) * self.tanh(c)), c]


def _recur(
    follow: Callable[[States, Sequence[Tensor]], States],
    inputs: Sequence[Tensor],
    shapes: Sequence[Shape],
    *,
    unroll: bool = False,
) -> Tensor:
    """Apply a function of states and inputs to every time step.

    Parameters
    ----------
    follow : function
    inputs : sequence of tensors [shape=(batch, time, ...)]
    shapes : sequence of shapes
        Of the states, which are zeros at first.
    unroll : bool
        Run a Python loop, in which `follow` receives values instead of traced tensors.

    Returns
    -------
    tensor [shape=(batch, time, ...)]
        The first state after each time step.
    """

    def body(states: States, now: Sequence[Tensor]) -> tuple[States, States]:
        states = follow(states, now)
        return states, states  # Keras wants outputs of the structure of states

    states = [ops.zeros(shape) for shape in shapes]
    if unroll:
        outputs = []
        for t in range(inputs[0].shape[1]):
            states = follow(states, [one[:, t] for one in inputs])
            outputs.append(states[0])
        return ops.stack(outputs, axis=1)
    _, outputs = ops.scan(body, states, [ops.swapaxes(one, 0, 1) for one in inputs])
    return ops.swapaxes(outputs[0], 0, 1)
