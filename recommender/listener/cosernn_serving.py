"""A trained CoSeRNN as matrices, stepped in numpy; equal to the network over the full sequence to 1e-5.

A state holds what hidden state and last session add to the gates instead of the hidden state itself, so that a visit
costs no product with the recurrent matrix: that one is paid once a session, in `advance`. With the linear input layer
the whole input folds into one matrix, and a context is a few of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bart.tensors import from_bytes, to_bytes
from bart.types import Context, Floats, Floats32, Ints
from recommender.listener.memories import memories
from recommender.listener.model import (
    HEADER,
    Session,
    context_codes,
    gap_since,
    last_ended_s,
    save_config,
    session_columns,
    write_header,
)
from recommender.sessions.features import age_bucket, feature_slices, log_gap, log_gap_of, log_tracks, vector_scale
from recommender.sessions.table import N_DEVICES, SessionColumns

_Codes: TypeAlias = "tuple[Ints | slice, Ints | slice, Ints | slice]"  # weekday, hour, device


class CoSeRNNListener:
    """The serving form of a CoSeRNN. `CoSeRNNListener.of(network)` takes it from torch; loading needs no torch.

    weight: the network's parameters by name. A state is [s] float32: header, gates [pathways, 4 hidden], cell
    [pathways, hidden], then each memory.
    """

    name = "cosernn"

    def __init__(self, config: Mapping[str, Any], weight: Mapping[str, Floats32]) -> None:
        if "current_source" in config["features"]:
            raise ValueError("a model that reads the current source cannot serve: it is unknown before the session")
        self.config = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
        self.weight = {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in weight.items()}
        self.dimension, self.hidden = int(config["dimension"]), int(config["hidden"])
        self._width = int(config["width"])
        self.pathways, self.sources = tuple(config["pathways"]), tuple(config["sources"])
        self._memories = memories(tuple(config["memory"]))
        self._linear = config["input"] == "linear"
        self._place()
        self._fold()

    @classmethod
    def of(cls, network: Any) -> CoSeRNNListener:
        """From a `recommender.listener.cosernn.CoSeRNN`."""
        weight = {name: value.detach().float().cpu().numpy() for name, value in network.state_dict().items()}
        return cls(asdict(network.config), weight)

    def save(self, directory: Path) -> None:
        save_config(directory, {"name": self.name, **self.config})
        (directory / "weights.safetensors").write_bytes(to_bytes(self.weight))

    @classmethod
    def load(cls, directory: Path, config: Mapping[str, Any]) -> CoSeRNNListener:
        weight = from_bytes((directory / "weights.safetensors").read_bytes())
        return cls({key: value for key, value in config.items() if key != "name"}, weight)

    def initial(self, account_age_d: Floats) -> Floats32:
        b, p = len(account_age_d), len(self.pathways)
        state = np.zeros((b, self.state_size), dtype=np.float32)
        start = self.weight["initial.weight"][age_bucket(account_age_d)].reshape(b, 2, p, self.hidden)
        nothing = np.zeros((b, p, self.dimension), dtype=np.float32)
        zero = np.zeros(b, dtype=np.int64)
        self._commit(state, start[:, 0], start[:, 1], nothing, np.zeros(b, dtype=np.float32), zero)
        return state

    def predict(self, state: Floats32, context: Context, at: datetime | None = None) -> Floats32:
        from recommender.listener.cosernn_kernel import vector

        if state.shape != (self.state_size,):  # machine code checks no bounds
            raise ValueError(f"state has shape {state.shape}; expected ({self.state_size},)")
        weekday, hour, device = context_codes(context, at)
        ended_s = last_ended_s(state)
        gap_s = None if ended_s is None else max((at or context.at).timestamp() - ended_s, 0)
        codes = (slice(weekday, weekday + 1), slice(hour, hour + 1), slice(device, device + 1))  # views of one row
        hidden, _ = self._step(state[None], codes, np.array([log_gap_of(gap_s)], dtype=np.float32))
        out: Floats32 = vector(
            hidden.reshape(-1),
            *self._layers,
            state,
            self._memory_at[hour, device],
            self.dimension,
        )
        return out

    def advance(self, state: Floats32, session: Session) -> Floats32:
        after: Floats32 = self.advance_many(state[None], session_columns(session, self.sources))[0]
        return after

    def advance_many(self, state: Floats32, session: SessionColumns) -> Floats32:
        codes = (session.weekday, session.hour, session.device)
        hidden, cell = self._step(state, codes, log_gap(gap_since(state, session.started_s)))
        out = np.empty_like(state)
        count = state[:, 2].astype(np.int64)
        last = np.stack([getattr(session, name) for name in self.pathways], axis=1)  # [b, pathways, d]
        self._commit(out, hidden, cell, last, log_tracks(session.n_tracks), session.source)
        for memory, where in zip(self._memories, self._memory, strict=True):
            out[:, where] = memory.advance(state[:, where], count, session)
        write_header(out, session.ended_s, count + 1)
        return out

    def _step(self, state: Floats32, codes: _Codes, gap: Floats32) -> tuple[Floats32, Floats32]:
        """Hidden and cell state [b, pathways, hidden] of a session in that context."""
        b, p, h = len(state), len(self.pathways), self.hidden
        weekday, hour, device = codes
        context = self._weekday[weekday] + self._hour[hour] + self._device[device] + gap[:, None] * self._gap
        gates = state[:, self._gates].reshape(b, p, 4 * h)
        if self._linear:
            gates = gates + context[:, None]
        else:
            first = state[:, self._first].reshape(b, p, -1) + context[:, None]  # before the first ReLU
            second = np.maximum(_product(np.maximum(first, 0), self._second) + self._second_bias, 0)
            gates = gates + _product(second, self._to_gates) + self._gates_bias
        gates = np.tanh(gates)  # sigmoid(x) = (1 + tanh(x / 2)) / 2; the halves are folded into the weights
        enter, forget, leave = (0.5 + 0.5 * gates[..., i * h : (i + 1) * h] for i in (0, 1, 3))
        cell = forget * state[:, self._cell].reshape(b, p, h) + enter * gates[..., 2 * h : 3 * h]
        return leave * np.tanh(cell), cell

    def _commit(
        self, out: Floats32, hidden: Floats32, cell: Floats32, last: Floats32, tracks: Floats32, source: Ints
    ) -> None:
        """Writes into states [b, s] what the next step needs of this one."""
        b = len(out)
        carried = _product(last, self._last) + (tracks[:, None] * self._tracks + self._source[source])[:, None]
        recurrent = _product(hidden, self._recurrent)
        if self._linear:
            recurrent = recurrent + carried
        else:
            out[:, self._first] = carried.reshape(b, -1)
        out[:, self._gates] = recurrent.reshape(b, -1)
        out[:, self._cell] = cell.reshape(b, -1)

    def _place(self) -> None:
        """Where each part stands in a state."""
        p, start = len(self.pathways), HEADER
        sizes = [p * 4 * self.hidden, p * self.hidden, 0 if self._linear else p * self._width]
        sizes += [memory.size(self.dimension) for memory in self._memories]
        slices = []
        for size in sizes:
            slices.append(slice(start, start + size))
            start += size
        self._gates, self._cell, self._first, *self._memory = slices
        self.state_size = start
        pairs = list(zip(self._memories, self._memory, strict=True))
        self._memory_at = np.array(  # [hours, devices, memories]
            [
                [
                    [at.start + memory.place(self.dimension, hour, device) for memory, at in pairs]
                    for device in range(N_DEVICES)
                ]
                for hour in range(24)
            ],
            dtype=np.int64,
        )

    def _fold(self) -> None:
        """Matrices as the steps use them, inputs first."""
        w = self.weight
        scale = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], dtype=np.float32), self.hidden)  # gates i, f, g, o
        self._recurrent = np.ascontiguousarray(w["lstm.weight_hh_l0"].T * scale)  # [hidden, 4 hidden]
        to_gates = w["lstm.weight_ih_l0"].T * scale  # [width, 4 hidden]
        gates_bias = (w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"]) * scale
        if self._linear:
            table = (w["input.weight"].T.astype(np.float64) @ to_gates).astype(np.float32)  # [features, 4 hidden]
            bias = w["input.bias"] @ to_gates + gates_bias
        else:
            table, bias = w["input.0.weight"].T, w["input.0.bias"]
            self._second, self._second_bias = np.ascontiguousarray(w["input.2.weight"].T), w["input.2.bias"]
            self._to_gates, self._gates_bias = np.ascontiguousarray(to_gates), gates_bias
        where = feature_slices(tuple(self.config["features"]), self.dimension, len(self.sources))

        def rows(name: str, n: int) -> Floats32:
            zero = np.zeros((n, table.shape[1]), dtype=np.float32)  # a feature that the model does not read
            return np.ascontiguousarray(table[where[name]]) if name in where else zero

        self._weekday, self._hour = rows("weekday", 7) + bias, rows("hour", 24)
        self._device, self._last = rows("device", N_DEVICES), rows("last", self.dimension)
        if self.config.get("scaled", False):  # models saved before the setting existed read unit vectors
            self._last = self._last * np.float32(vector_scale(self.dimension))
        self._tracks, self._gap = rows("tracks", 1), rows("gap", 1)
        self._source = rows("source", len(self.sources))
        head = np.concatenate([w["offset.weight"], w["attention.weight"]])
        self._layers = (
            *(np.ascontiguousarray(w["combine.0.weight"].T), w["combine.0.bias"]),
            *(np.ascontiguousarray(w["combine.2.weight"].T), w["combine.2.bias"]),
            *(np.ascontiguousarray(head.T), np.concatenate([w["offset.bias"], w["attention.bias"]])),
        )


def _product(x: Floats32, matrix: Floats32) -> Floats32:
    """x [b, p, m] times matrix [m, n] as one product; numpy's own would make b small ones."""
    b, p, m = x.shape
    return (x.reshape(b * p, m) @ matrix).reshape(b, p, -1)
