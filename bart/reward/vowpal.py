"""Vowpal Wabbit behind one face, by either of its Python packages: the only file that knows their classes.

vowpal_wabbit_next is what the extra `listeners` installs: weights are a live view, examples are refilled. vowpalwabbit
(9.11, the package of Vowpal Wabbit's own releases) does the same where the first is absent: files are read alike by
both and predictions agree to 1e-6; it learns more slowly, as it takes features one by one. Neither keeps the loss
function in a file, so arguments are passed at every load.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bart.errors import BundleError
from bart.types import Floats32, Ints


class Workspace(Protocol):
    """A model that learns. native: what the package itself calls a workspace.

    An example gives by letter the groups of its features, which have vowpal_wabbit_next's `truncate_to` and
    `push_many_features` (hashed indices, that of the namespace included, and float32 values).
    """

    native: Any

    def example(self) -> Any: ...
    def learn(self, example: Any, label: float, importance: float) -> None:
        """One gradient step. label: 1 or -1."""

    def predict(self, example: Any) -> float:
        """What the link makes of the example's score."""

    def weights(self) -> Floats32:
        """[2^bits], a copy or a live view: to be read."""

    def state(self) -> Floats32:
        """[2^bits, numbers]: weights and what learning keeps beside each; to be read."""

    def put(self, index: Ints, state: Floats32) -> None:
        """Writes the state [n, numbers] of the weights `index` [n]."""

    def written(self) -> AbstractContextManager[Floats32]:
        """The state as an array whose changes are the model's when the block ends."""

    def end_pass(self) -> None: ...
    def serialize(self) -> bytes: ...


class _Next:
    """By vowpal_wabbit_next."""

    def __init__(self, package: Any, arguments: Sequence[str], data: bytes | None) -> None:
        self._package, self._label = package, package.SimpleLabel
        options = {} if data is None else {"model_data": data}
        self.native = package.Workspace(list(arguments), **options)
        self._none = package.SimpleLabel(1.0, 0.0)

    def example(self) -> Any:
        return self._package.Example()

    def learn(self, example: Any, label: float, importance: float) -> None:
        example.set_label(self._label(label, importance))
        self.native.learn_one(example)

    def predict(self, example: Any) -> float:
        example.set_label(self._none)
        found: float = self.native.predict_one(example)
        return found

    def weights(self) -> Floats32:
        return self.state()[:, 0]

    def state(self) -> Floats32:
        view: Floats32 = self.native.weights()[:, 0, :]
        return view

    def put(self, index: Ints, state: Floats32) -> None:
        self.native.weights()[index, 0, :] = state

    @contextmanager
    def written(self) -> Iterator[Floats32]:
        yield self.state()

    def end_pass(self) -> None:
        self.native.end_pass()

    def serialize(self) -> bytes:
        data: bytes = self.native.serialize()
        return data


class _Features:
    def __init__(self) -> None:
        self.index: list[int] = []
        self.value: list[float] = []

    def truncate_to(self, size: int, /) -> None:
        del self.index[size:], self.value[size:]

    def push_many_features(self, index: Any, value: Any, /) -> None:
        self.index += index.tolist()
        self.value += value.tolist()


class _Own:
    """By vowpalwabbit, whose examples are made anew for each step and whose weights are read one by one."""

    def __init__(self, package: Any, arguments: Sequence[str], data: bytes | None) -> None:
        self._package = package
        with tempfile.TemporaryDirectory() as folder:
            given = list(arguments)
            if data is not None:
                file = Path(folder) / "model.vw"
                file.write_bytes(data)
                given += ["--initial_regressor", str(file)]
            self.native = package.Workspace(arg_list=given)

    def example(self) -> dict[str, _Features]:
        return _ByLetter()

    def learn(self, example: Any, label: float, importance: float) -> None:
        made = self._made(example)
        made.set_label_string(f"{label!r} {importance!r}")
        self.native.learn(made)
        self.native.finish_example(made)

    def predict(self, example: Any) -> float:
        made = self._made(example)
        found = float(self.native.predict(made))
        self.native.finish_example(made)
        return found

    def weights(self) -> Floats32:
        return self._column(0)

    def state(self) -> Floats32:
        return np.stack([self._column(k) for k in range(self.native.get_stride())], axis=1)

    def put(self, index: Ints, state: Floats32) -> None:
        for i, row in zip(index.tolist(), state.tolist(), strict=True):
            for k, value in enumerate(row):
                self.native.set_weight(i, k, value)

    @contextmanager
    def written(self) -> Iterator[Floats32]:
        before = self.state()
        state = before.copy()
        yield state
        changed = np.flatnonzero((state != before).any(axis=1))
        self.put(changed, state[changed])

    def end_pass(self) -> None:
        """Nothing: the rates of this project's models do not depend on the pass."""

    def serialize(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.vw"
            self.native.save(str(file))
            return file.read_bytes()

    def _column(self, k: int) -> Floats32:
        read, n = self.native.get_weight, self.native.num_weights()
        return np.fromiter((read(i, k) for i in range(n)), dtype=np.float32, count=n)

    def _made(self, example: Mapping[str, _Features]) -> Any:
        made = self._package.Example(self.native)
        for letter, features in example.items():
            if features.index:
                made.push_namespace(letter)
                for index, value in zip(features.index, features.value, strict=True):
                    made.push_hashed_feature(letter, index, value)
        return made


class _ByLetter(dict[str, _Features]):
    def __missing__(self, letter: str) -> _Features:
        return self.setdefault(letter, _Features())


PACKAGES: Mapping[str, Callable[[Any, Sequence[str], bytes | None], Workspace]] = {
    "vowpal_wabbit_next": _Next,
    "vowpalwabbit": _Own,
}


def open_workspace(arguments: Sequence[str], data: bytes | None = None, package: str | None = None) -> Workspace:
    """A new model, or the one that `serialize` gave. package: a name of `PACKAGES`, the first installed where None.

    Raises BundleError for data that the package cannot read, ImportError where no package is installed.
    """
    installed = [name for name in PACKAGES if importlib.util.find_spec(name) is not None]
    name = package or (installed or list(PACKAGES))[0]
    module = importlib.import_module(name)
    try:
        return PACKAGES[name](module, arguments, data)
    except RuntimeError as error:
        raise BundleError(f"Vowpal Wabbit cannot read the model: {error}") from None
