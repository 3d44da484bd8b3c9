"""The encoder that serves: features of listeners to vectors, in numpy; its file and its checksum.

    h = selu(W1 x + b1);  z = T (W2 h + S x + b)

x: scaled features, zero where not known, and one sign a group. T turns the latent vector so that the product of two
vectors is the product of what they decode to: near vectors expect the same listening.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import BundleError, DataError
from bart.tensors import from_bytes, to_bytes
from bart.types import Floats32
from recommender.users.features import GROUP_NAMES, UserFeatures
from recommender.users.scaling import Scaling

FILE, CONFIG = "users.safetensors", "users.json"
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # of SELU (Klambauer and others 2017)


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Shape and training of an encoder; defaults were chosen on development seeds (docs/user_representations.md).

    dimension: of the vectors. hidden: width of the layer before. epochs, batch, rate, decay: of AdamW, the rate falls
    to zero along a cosine. masked: share of groups hidden from a row in training; strangers: share of rows that keep
    nothing but traits and picks. noise: deviation added to features. items: tracks drawn a row and step for the decoder
    of later tracks. weights: of the losses: features, later means, later tracks.
    """

    dimension: int = 120
    hidden: int = 256
    epochs: int = 24
    batch: int = 256
    rate: float = 2e-3
    decay: float = 0.1
    masked: float = 0.3
    strangers: float = 0.1
    noise: float = 0.1
    items: int = 16
    feature_weight: float = 0.3
    mean_weight: float = 1.0
    item_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("dimension", "hidden", "epochs", "batch", "items"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("masked", "strangers"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share in [0, 1)")


@dataclass(frozen=True, slots=True, eq=False)
class UserEncoder:
    """weight: w1 [hidden, inputs], b1, w2 [d, hidden], skip [d, inputs], b2 [d], the turn folded in.

    countries, genres: those that its features tell apart. seed: of its training.
    """

    scaling: Scaling
    weight: Mapping[str, Floats32]
    countries: tuple[str, ...]
    genres: tuple[str, ...]
    config: EncoderConfig
    seed: int

    @property
    def dimension(self) -> int:
        return len(self.weight["b2"])

    def encode(self, value: Floats32) -> Floats32:
        """[n, d] vectors of features [n, width], NaN where not known; zero where nothing is.

        Their length says how far a listener is from the usual one; likeness is the cosine.
        """
        w = self.weight
        if value.ndim != 2 or value.shape[1] != self.scaling.width:
            raise ValueError(f"features have shape {value.shape}; expected (listeners, {self.scaling.width})")
        x = self.scaling.inputs(value)
        h = x @ w["w1"].T + w["b1"]
        h = SCALE * np.where(h > 0, h, ALPHA * np.expm1(np.minimum(h, 0)))
        z = h @ w["w2"].T + x @ w["skip"].T + w["b2"]
        known = x[:, self.scaling.width :].any(axis=1, keepdims=True)
        out: Floats32 = np.where(known, z, 0).astype(np.float32)
        return out

    @property
    def version(self) -> str:
        """16 hex digits that differ for encoders that differ."""
        return hashlib.sha256(self._bytes() + self._told().encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Writes users.safetensors and users.json into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(self._bytes())
        (folder / CONFIG).write_text(self._told(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> UserEncoder | None:
        """Reads what `save` wrote; None where a batch has no encoder. Raises BundleError for a damaged file."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            data = file.read_bytes()
            told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            arrays = {name: array.astype(np.float32) for name, array in from_bytes(data).items()}
            if hashlib.sha256(data).hexdigest() != told["sha256"]:
                raise DataError(f"its checksum is not that of {CONFIG}")
            slices = {name: slice(*told["slices"][name]) for name in GROUP_NAMES}
            scaling = Scaling(arrays.pop("mean"), arrays.pop("factor"), slices)
            config = EncoderConfig(**told["config"])
            return cls(scaling, arrays, tuple(told["countries"]), tuple(told["genres"]), config, int(told["seed"]))
        except (OSError, KeyError, TypeError, ValueError, DataError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from None

    def fitting(self, features: UserFeatures) -> UserEncoder:
        """This encoder, if it reads such features. Raises BundleError where their groups are of other widths."""
        if dict(features.slices) != dict(self.scaling.slices):
            raise BundleError(f"{FILE} is of other features than this batch and this code have")
        return self

    def _bytes(self) -> bytes:
        return to_bytes({**self.weight, "mean": self.scaling.mean, "factor": self.scaling.factor})

    def _told(self) -> str:
        told: dict[str, Any] = {
            "config": asdict(self.config),
            "countries": list(self.countries),
            "genres": list(self.genres),
            "seed": self.seed,
            "sha256": hashlib.sha256(self._bytes()).hexdigest(),
            "slices": {name: [of.start, of.stop] for name, of in self.scaling.slices.items()},
        }
        return json.dumps(told, indent=1, sort_keys=True) + "\n"
