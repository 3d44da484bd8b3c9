"""P(reward | context, listener, explanation, card, position) by logistic regression in Vowpal Wabbit.

Arguments, features and files of Vowpal Wabbit, whose classes `bart.reward.vowpal` alone knows. What the library does
not guard is guarded here: the loss function is not kept in a saved model, so all arguments are stored beside it and
passed again; a truncated or altered file loads silently, so its sha256 is checked; NaN and inf would reach the weights,
so they are refused before.

Adaptive steps are taken on the library's weights in machine code (`bart.reward.steps`); predictions and coin betting go
through the library, one example object refilled for all examples, context and listener only where the page changes
(benchmarks/training.py prints what each way costs). A value of exactly 0 is not pushed, as the text parser does: steps
divide by the feature's own history, which would be 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import BundleError, SchemaMismatch
from bart.reward.feature_hash import CONSTANT_INDEX, feature_index, level_index, match_index, vector_index
from bart.reward.features import CONTEXT_NAMES, KNOWN_VALUE, Examples, FeatureSchema, context_code
from bart.reward.vowpal import Workspace, open_workspace
from bart.types import DEVICES, Bools, Floats, Floats32, Ints
from bart.types.caller import CALLER, caller_prior
from bart.types.levels import LEVELS, UNKNOWN

FORMAT = 1
PRIOR_EXAMPLES = 3000  # behind the prior: of 300 to 20,000 measured, the best after some hundreds of pages
LEARNING_RATE = 0.001
MODEL_FILE = "model.vw"
DESCRIPTION_FILE = "model.json"
CONTENT_FILE = "content.sha256"  # stands for the other two where the model gets its id, see `bart.bundle`


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """What a reward model is and how it learns.

    schema: its features. bits: log2 of the number of weights; collisions are harmless while few. learning_rate: of
    adaptive gradient steps, invariant to the importance weight; small ones keep the level and what the prior knows, see
    docs/reward_model.md. None for coin betting, which has none to choose (Orabona and Tommasi, "Training Deep Networks
    without Learning Rates", NIPS 2017). l2: ridge per example, 0 for none; of adaptive steps alone.
    """

    schema: FeatureSchema = field(default_factory=FeatureSchema)
    bits: int = 20
    learning_rate: float | None = LEARNING_RATE
    l2: float = 0.0

    def __post_init__(self) -> None:
        if not 4 <= self.bits <= 28:
            raise ValueError(f"bits is {self.bits}; expected 4 to 28")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate}; expected a positive number, or None")
        if not 0 <= self.l2 < float("inf"):
            raise ValueError(f"l2 is {self.l2}; expected 0 or more")
        if self.l2 and self.learning_rate is None:
            raise ValueError(f"l2 is {self.l2}; expected 0 where there is no learning_rate")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Vowpal Wabbit's command line. Scales are set by the schema, so features are not normalised again."""
        crosses = [word for cross in self.schema.crosses for word in ("--interactions", cross)]
        rate = self.learning_rate
        steps = ("--coin",) if rate is None else ("--learning_rate", repr(rate), "--adaptive", "--invariant")
        return (
            "--quiet",
            *("--loss_function", "logistic", "--link", "logistic"),
            *("--bit_precision", str(self.bits)),
            *steps,
            *(("--l2", repr(self.l2)) if self.l2 else ()),
            *crosses,
        )

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON can hold them."""
        return {**asdict(self), "schema": self.schema.as_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RewardConfig:
        """The configuration that `as_dict` described."""
        return cls(**{**fields, "schema": FeatureSchema.from_dict(fields["schema"])})


class RewardModel:
    """A model that learns from examples and predicts; `rules` are the explanations it has seen."""

    def __init__(self, config: RewardConfig | None = None) -> None:
        self.config = config or RewardConfig()
        self.rules: set[str] = set()
        self.n_learned = 0
        self._workspace = open_workspace(self.config.arguments)

    @classmethod
    def prior(
        cls, config: RewardConfig | None = None, intercept: float = -2.4, taste: float = 1.8, popularity: float = 0.6
    ) -> RewardModel:
        """What is believed before any page was shown: sigmoid(intercept + taste * cosine + popularity * popularity).

        A model to go on learning from: starting at zero it would first have to find again that listeners stream what is
        close to them. At order 1, which has no cosine, popularity alone. Search results follow their caller's order.
        Adaptive steps start from these weights and forget them; coin betting is taught them by `PRIOR_EXAMPLES`
        examples, which count like as many seen cards.
        """
        model = cls(config)
        schema = model.schema
        believed = {CONSTANT_INDEX: intercept, feature_index("g", "popularity"): popularity}
        if schema.order > 1:  # the feature is the cosine times the schema's scale
            believed[feature_index("m", "cosine")] = taste / schema.scale
        for name, index in zip(schema.levels, level_index(schema.levels, LEVELS), strict=True):
            if name in CALLER:
                believed.update(zip(index.tolist(), (caller_prior(name) / KNOWN_VALUE).tolist(), strict=False))
        if model.config.learning_rate is None:
            _teach(model._workspace, schema, intercept, taste if schema.order > 1 else 0.0, popularity)
        model._set_weights(believed)  # what was taught stays in the state beside them
        return model

    @property
    def schema(self) -> FeatureSchema:
        return self.config.schema

    @property
    def follows_level(self) -> bool:
        """Whether it can be shifted: of coin betting what is shifted would be worked out anew."""
        return self.config.learning_rate is not None

    def learn(self, examples: Examples, reward: Floats, weight: Floats | None = None) -> None:
        """Takes one gradient step an example, in their order.

        reward: [m] in [0, 1]; a fraction r counts as a reward of weight r and none of weight 1 - r. weight: [m]
        importance weights >= 0, None for all 1. Raises ValueError for other values and SchemaMismatch for examples of
        another schema; nothing is learned then.
        """
        self._check(examples)
        _check_range("reward", reward, len(examples), upper=1.0)
        if weight is not None:
            _check_range("weight", weight, len(examples), upper=float("inf"))
        weight = np.ones(len(examples)) if weight is None else weight
        rate = self.config.learning_rate
        if rate is None or self.config.l2:
            _learn_one_by_one(self._workspace, examples, reward, weight)
        else:
            from bart.reward.steps import take_steps  # numba loads only where something is learnt

            with self._workspace.written() as state:
                take_steps(state, rate, examples, reward, weight)
        self.rules.update(examples.rules)
        self.n_learned += len(examples)

    def predict(self, examples: Examples) -> Floats:
        """[m] probabilities of a reward, in Vowpal Wabbit's own float32 arithmetic."""
        self._check(examples)
        predict = self._workspace.predict
        example = self._workspace.example()
        return np.fromiter(
            (predict(example) for _ in _filled(example, examples)), dtype=np.float64, count=len(examples)
        )

    def end_pass(self) -> None:
        """Marks the end of one pass over the data, which lowers the learning rate of the next."""
        self._workspace.end_pass()

    def shift(self, logit: float) -> None:
        """Moves all predictions by so many logits: another level, the same order. Of adaptive steps alone."""
        if not self.follows_level:
            raise ValueError("coin betting works its weights out anew; expected a model of adaptive steps to shift")
        index = np.array([CONSTANT_INDEX % (1 << self.config.bits)])
        state = np.array(self._workspace.state()[index])
        state[:, 0] += np.float32(logit)
        self._workspace.put(index, state)

    def weights(self) -> Floats32:
        """[2^bits] weights, a copy."""
        # A ridge is kept as one factor over all weights, which is multiplied in when a model is written.
        arguments = self.config.arguments
        workspace = open_workspace(arguments, self._workspace.serialize()) if self.config.l2 else self._workspace
        return np.array(workspace.weights(), dtype=np.float32)

    def state(self) -> Floats32:
        """[2^bits, numbers], the weights and what learning keeps beside each, to be read; `put_state` writes.

        Coin betting: weight, sum of negative gradients, sum of their sizes, largest feature, gain, largest gradient.
        Adaptive steps: weight, sum of squared gradients, and others that are not used here.
        """
        return self._workspace.state()

    def put_state(self, index: Ints, state: Floats32) -> None:
        """Replaces the state [n, numbers] of the weights `index` [n]."""
        self._workspace.put(index, state)

    def _set_weights(self, believed: Mapping[int, float]) -> None:
        """Makes these the only weights that are not 0, by their hashes; what learning keeps beside them stays."""
        state = self._workspace.state()
        given = {index % len(state): value for index, value in believed.items()}
        index = np.union1d(np.flatnonzero(state[:, 0]), np.array(list(given), dtype=np.int64))
        new = np.array(state[index])
        new[:, 0] = [given.get(i, 0.0) for i in index.tolist()]
        self._workspace.put(index, new)

    def copy(self) -> RewardModel:
        """A model of its own with the same weights and learning state."""
        other = RewardModel.__new__(RewardModel)
        other.config, other.rules, other.n_learned = self.config, set(self.rules), self.n_learned
        other._workspace = open_workspace(self.config.arguments, self._workspace.serialize())
        return other

    def content_id(self) -> str:
        """64 hex digits that name weights, learning state and configuration, whatever was predicted in between."""
        return self._content_id(self._workspace.serialize())

    def _content_id(self, data: bytes) -> str:
        """Of the model as it is read from a file: what is not kept there belongs to nobody.

        The file itself cannot name it: Vowpal Wabbit keeps counters in it that predictions move.
        """
        config = {"config": self.config.as_dict(), "rules": sorted(self.rules), "n_learned": self.n_learned}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        used = 6 if self.config.learning_rate is None else 2  # what `state` has beside each weight
        digest.update(open_workspace(self.config.arguments, data).state()[:, :used].tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Writes model.vw (weights and learning state), model.json (all that loading takes) and the content id."""
        folder.mkdir(parents=True, exist_ok=True)
        data = self._workspace.serialize()
        (folder / MODEL_FILE).write_bytes(data)
        (folder / CONTENT_FILE).write_text(self._content_id(data) + "\n")
        description = {
            "format": FORMAT,
            "config": self.config.as_dict(),
            "arguments": list(self.config.arguments),
            "schema_fingerprint": self.schema.fingerprint,
            "rules": sorted(self.rules),
            "n_learned": self.n_learned,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RewardModel:
        """The model saved in `folder`, ready to learn on. Raises BundleError for a file that is missing or altered."""
        try:
            description = json.loads((folder / DESCRIPTION_FILE).read_text())
            data = (folder / MODEL_FILE).read_bytes()
        except (OSError, ValueError) as error:
            raise BundleError(f"no reward model in {folder}: {error}") from None
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise BundleError(f"{folder / DESCRIPTION_FILE} is not of format {FORMAT}")
        if hashlib.sha256(data).hexdigest() != description.get("sha256"):
            raise BundleError(f"{folder / MODEL_FILE} was altered: its sha256 is not the recorded one")
        try:
            config = RewardConfig.from_dict(description["config"])
            rules, n_learned = set(description["rules"]), int(description["n_learned"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{folder / DESCRIPTION_FILE} cannot be read: {error}") from None
        if config.schema.fingerprint != description.get("schema_fingerprint"):
            raise SchemaMismatch(f"{folder / DESCRIPTION_FILE}: the schema is not the one the model was trained with")
        if list(config.arguments) != description.get("arguments"):
            raise BundleError(f"{folder / DESCRIPTION_FILE}: the arguments do not follow from the configuration")
        model = cls.__new__(cls)
        model.config, model.rules, model.n_learned = config, rules, n_learned
        model._workspace = open_workspace(config.arguments, data)
        return model

    def _check(self, examples: Examples) -> None:
        if examples.schema != self.schema:
            found, expected = examples.schema.fingerprint, self.schema.fingerprint
            raise SchemaMismatch(f"examples have feature schema {found}; the model expects {expected}")
        for name in ("listener", "item_vector", "match", "popularity"):
            value = getattr(examples, name)
            if not np.isfinite(value).all():
                raise ValueError(f"{name}{list(map(int, np.argwhere(~np.isfinite(value))[0]))} is not finite")


def prior_intercept(base_rate: float, taste: float = 1.8, popularity: float = 0.6) -> float:
    """Intercept of a prior that promises `base_rate` in (0, 1) of a card such as pages show: of middling popularity, at
    a cosine of .75 with the listener (the mean of the demonstration's first pages)."""
    if not 0 < base_rate < 1:
        raise ValueError(f"base_rate is {base_rate}; expected a number in (0, 1)")
    return float(np.log(base_rate / (1.0 - base_rate)) - 0.75 * taste - 0.5 * popularity)


def text_line(examples: Examples, i: int, label: str = "") -> str:
    """Example i in Vowpal Wabbit's text format, by number instead of name: for its own tools and for comparison."""

    def part(letter: str, features: Iterator[str]) -> str:
        return f"|{letter} " + " ".join(features)

    def named(letter: str, index: Any) -> Iterator[str]:
        base = int(vector_index(letter, 1)[0])
        return (str((int(k) - base) % (1 << 32)) for k in index)

    def dense(values: Any) -> Iterator[str]:
        names = [*map(str, range(d)), "cosine"]
        return (f"{name}:{x!r}" for name, x in zip(names, values.tolist(), strict=False) if x != 0.0)

    def valued(names: Iterator[str]) -> Iterator[str]:
        return (f"{name}:{KNOWN_VALUE!r}" for name in names)

    page, d = int(examples.page[i]), examples.schema.dimension
    fact = list(named("g", examples.fact[i]))
    fact[3] += f":{float(examples.popularity[i])!r}"
    parts = [
        part("c", named("c", examples.context[page])),
        part("u", dense(examples.listener[page])),
        part("v", dense(examples.item_vector[i])),
        part("g", iter(fact if examples.popularity[i] else fact[:3])),
        part("m", dense(examples.match[i])),
        part("e", named("e", examples.explanation[i : i + 1])),
        part("p", named("p", examples.position[i])),
    ]
    if examples.schema.ids:
        parts.append(part("i", valued(named("i", examples.identity[i]))))
    if examples.schema.levels:
        known = examples.level[i] != UNKNOWN
        index = level_index(examples.schema.levels, LEVELS)[np.arange(len(known)), examples.level[i]]
        parts.append(part("h", valued(named("h", index[known]))))
    return " ".join([label, *parts]) if label else " ".join(parts)


def _teach(workspace: Workspace, schema: FeatureSchema, intercept: float, taste: float, popularity: float) -> None:
    """Shows the prior to a model: random listeners and items, each with both outcomes by their believed shares.

    Shelf, position and facts but popularity are left out: of them nothing is believed. The examples are a constant, the
    same in every process, and so is the prior.
    """
    rng, n, d = np.random.default_rng(0), PRIOR_EXAMPLES, schema.dimension
    u, other = (_unit(rng.standard_normal((n, d))) for _ in range(2))
    cosine, fame = rng.uniform(-0.3, 1.0, n), rng.random(n)  # candidates are near the taste more often than not
    across = _unit(other - (other * u).sum(axis=1, keepdims=True) * u) if d > 1 else u
    v = cosine[:, None] * u + np.sqrt(1.0 - cosine**2)[:, None] * across
    share = 1.0 / (1.0 + np.exp(-(intercept + taste * cosine + popularity * fame)))
    code = context_code(rng.integers(0, 24, n), rng.integers(0, 7, n), rng.integers(0, len(DEVICES) + 1, n))
    context: Any = np.array([feature_index("c", name) for name in CONTEXT_NAMES], dtype=np.uint64)[code]
    listener, item = (schema.scale * u).astype(np.float32), (schema.scale * v).astype(np.float32)
    match = np.column_stack([listener * item, (listener * item).sum(axis=1) / schema.scale]).astype(np.float32)
    fact = np.array([feature_index("g", "popularity")], dtype=np.uint64)
    index: dict[str, Any] = {"u": vector_index("u", d), "v": vector_index("v", d), "m": match_index(d), "g": fact}
    value: dict[str, Any] = {"u": listener, "v": item, "m": match, "g": fame[:, None].astype(np.float32)}
    one: Any = np.ones(3, dtype=np.float32)
    for i in range(n):
        example = workspace.example()
        example["c"].push_many_features(context[i], one)
        for letter in "uvgm" if schema.order > 1 else "uvg":
            example[letter].push_many_features(index[letter], value[letter][i])
        outcomes = ((1.0, float(share[i])), (-1.0, 1.0 - float(share[i])))
        for sign, importance in outcomes if i % 2 else reversed(outcomes):
            workspace.learn(example, sign, importance)


def _unit(vector: Floats) -> Floats:
    out: Floats = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    return out


def _learn_one_by_one(workspace: Workspace, examples: Examples, reward: Floats, weight: Floats) -> None:
    """By Vowpal Wabbit's own steps."""
    example = workspace.example()
    rewards, weights = reward.tolist(), weight.tolist()
    for i in _filled(example, examples):
        positive, negative = rewards[i] * weights[i], (1.0 - rewards[i]) * weights[i]
        steps = ((1.0, positive), (-1.0, negative))
        for sign, importance in steps if i % 2 else reversed(steps):  # else the later sign would win every fraction
            if importance > 0.0:
                workspace.learn(example, sign, importance)


def _filled(example: Any, examples: Examples) -> Iterator[int]:
    """Fills one example object with each example in turn and yields its number."""
    d = examples.schema.dimension
    group = {letter: example[letter] for letter in examples.schema.namespaces}
    context, listener, item_vector, fact, explanation, position = (group[letter] for letter in "cuvgep")
    match, history, identity = (group.get(letter) for letter in "mhi")
    index = {"u": vector_index("u", d), "v": vector_index("v", d), "m": match_index(d)}
    one = np.ones(4, dtype=np.float32)
    one_1, one_2, one_3 = one[:1], one[:2], one[:3]
    fact_value = np.concatenate([np.ones((len(examples), 3), np.float32), examples.popularity[:, None]], axis=1)
    has_zero = (examples.item_vector == 0).any(axis=1) | (examples.popularity == 0)
    if match is not None:
        has_zero |= (examples.match == 0).any(axis=1)
    sparse, pages = has_zero.tolist(), examples.page.tolist()
    explanation_index = examples.explanation[:, None]
    level, known, ones = _levels(examples)
    one_id = np.full(examples.identity.shape[1], KNOWN_VALUE, dtype=np.float32)
    last = -1
    for i, page in enumerate(pages):
        if page != last:
            context.truncate_to(0)
            context.push_many_features(examples.context[page], one_3)
            listener.truncate_to(0)
            _push_nonzero(listener, index["u"], examples.listener[page])
            last = page
        for part in (item_vector, fact, explanation, position):
            part.truncate_to(0)
        if match is not None:
            match.truncate_to(0)
        if sparse[i]:
            _push_nonzero(item_vector, index["v"], examples.item_vector[i])
            _push_nonzero(fact, examples.fact[i], fact_value[i])
            if match is not None:
                _push_nonzero(match, index["m"], examples.match[i])
        else:
            item_vector.push_many_features(index["v"], examples.item_vector[i])
            fact.push_many_features(examples.fact[i], fact_value[i])
            if match is not None:
                match.push_many_features(index["m"], examples.match[i])
        explanation.push_many_features(explanation_index[i], one_1)
        position.push_many_features(examples.position[i], one_2)
        if identity is not None:
            identity.truncate_to(0)
            identity.push_many_features(examples.identity[i], one_id)
        if history is not None:
            history.truncate_to(0)
            _push_known(history, level[i], None if known is None else known[i], ones)
        yield i


def _levels(examples: Examples) -> tuple[Any, Bools | None, Floats32]:
    """Indices [m, levels], where a level is known (None: all are), and as many values."""
    names = examples.schema.levels
    index = level_index(names, LEVELS)[np.arange(len(names)), examples.level]
    known = examples.level != UNKNOWN
    return index, None if known.all() else known, np.full(len(names), KNOWN_VALUE, dtype=np.float32)


def _push_known(part: Any, index: Any, known: Bools | None, one: Floats32) -> None:
    if known is not None:
        index = index[known]
    if len(index):
        part.push_many_features(index, one[: len(index)])


def _push_nonzero(part: Any, index: Any, value: Floats32) -> None:
    keep = value != 0
    if keep.all():
        part.push_many_features(index, value)
    elif keep.any():
        part.push_many_features(index[keep], value[keep])


def _check_range(name: str, value: Floats, n: int, upper: float) -> None:
    if value.shape != (n,):
        raise ValueError(f"{name} has shape {value.shape}; expected ({n},), one an example")
    bad = np.flatnonzero(~((value >= 0) & (value <= upper) & np.isfinite(value)))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {value[bad[0]]}; expected a number in [0, {upper:g}]")
