"""How fast would a model be on this box? From small models with random weights, really run, and its own tables.

A token costs the same few times whatever the model says: so much per token, so much per layer (its small operations,
and the threads that wait for each other), so much per word of the vocabulary, and so much per byte of its tables. The
last depends on how they are packed and on how wide they are, so that a probe of each kind is run: about `PROBE_BYTES`
of random weights, more than the caches keep, packed as the model is and as wide as it is, up to where width stops to
matter. A prompt costs so much per weight and token, and attention so much per pair of tokens. To all that comes what
the engine costs: its own work between two tokens, and that of whoever reads them on the same cores. One probe is
therefore run alone and then served by an engine's process.

What is assumed: that tables of one kind cost alike in all layers, that a layer's small operations are those of a Llama,
that of a mixture of experts only those in use are read, and that nothing else computes on the box.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance.core.machine import Pace, Read
from appliance.store.gguf import QUANTS
from appliance.store.shape import Shape

PROBE_BYTES = 96 << 20
WIDEST = 2048
"""Wider tables than this are read at the speed of memory."""
NARROWEST = 256
WORDS = 65_536
FEW_WORDS = 512
PROMPT = 128
LONG_PROMPT = 1536
UNKNOWN = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A model with random weights, to be run with a prompt of so many tokens. Its `key` is where its pace is kept."""

    key: str
    shape: Shape
    prompt: int = PROMPT
    served: bool = False  # by an engine's process too, so that its own cost is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Burden:
    """What a model makes the box do: see `core.machine.Weight`."""

    reads: tuple[Read, ...]
    layers: int
    width: int
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Expected of one request on an idle box, at the beginning of an answer."""

    tokens_per_second: float
    prompt_tokens_per_second: float  # in a prompt of 512 tokens
    first_token: Mapping[int, float]  # tokens of a prompt -> seconds


def probes(burdens: Iterable[Burden], *, size: int = PROBE_BYTES) -> tuple[Probe, ...]:
    """The probes that these models have to be compared with."""
    found = {probe.key: probe for probe in _SMALL}
    for burden in burdens:
        for read in burden.reads:
            if (one := kind_of(read, burden.width)) is not None:
                found.setdefault(key_of(*one), _wide(*one, size))
    return tuple(found.values())


def kind_of(read: Read, width: int) -> tuple[str, int] | None:
    """Which probe says how fast this is read; None for the norms, which are part of a layer's cost."""
    if read.quant == "F32":
        return None
    quant = read.quant if read.quant in QUANTS else nearest(read)
    grain = max(64, QUANTS[quant].weights)
    rounded = -(-max(width, NARROWEST) // grain) * grain
    return quant, min(rounded, WIDEST)


def nearest(read: Read) -> str:
    """The way of packing we know that has about as many bits for a weight."""
    bits = read.bytes / read.weights if read.weights else UNKNOWN
    return min((name for name in QUANTS if name != "F32"), key=lambda name: abs(_bytes_per_weight(name) - bits))


def _bytes_per_weight(quant: str) -> float:
    return QUANTS[quant].size / QUANTS[quant].weights


def key_of(quant: str, width: int) -> str:
    return f"{quant}/{width}"


def _shape(name: str, quant: str, width: int, inner: int, layers: int, words: int = FEW_WORDS) -> Shape:
    heads = max(1, width // 64)
    return Shape(
        name=name,
        quant=quant,
        architecture="llama",
        layers=layers,
        width=width,
        heads=heads,
        heads_kv=heads // 4 if heads % 4 == 0 else heads // 3 if heads % 3 == 0 else heads,
        inner=inner,
        vocabulary=words,
        tied=True,
        context=4096,
        head=64,
    )


def _wide(quant: str, width: int, size: int) -> Probe:
    one = _shape(key_of(quant, width), quant, width, 4 * width, 1)
    block = one.bytes - _shape("", quant, width, 4 * width, 0).bytes
    layers = max(2, -(-size // block))
    return Probe(key=one.name, shape=_shape(one.name, quant, width, 4 * width, layers))


_SMALL = (
    Probe(key="few layers", shape=_shape("few layers", "Q8_0", 64, 64, 8), prompt=16),
    Probe(key="many layers", shape=_shape("many layers", "Q8_0", 64, 64, 40), prompt=16),
    Probe(key="many words", shape=_shape("many words", "Q8_0", 64, 64, 8, WORDS), prompt=16),
    Probe(key="attention", shape=_shape("attention", "Q8_0", 512, 64, 4), prompt=LONG_PROMPT),
    Probe(key="engine", shape=_shape("engine", "Q8_0", 1024, 4096, 4), prompt=16, served=True),
)


# ------------------------------------------------------------------------------------------------ what it comes to


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Seconds, for everything a token costs. `reading` and `computing` by the key of the probe."""

    engine: float
    token: float
    layer: float
    word: float
    reading: Mapping[str, float]  # of a byte, writing an answer
    computing: Mapping[str, float]  # of a weight and a token, reading a prompt
    others: float  # the largest share of the box that other programs had meanwhile
    attention: float  # of a pair of tokens, and a number of the width, and a layer


def rates(paces: Mapping[str, Pace], *, size: int = PROBE_BYTES) -> Rates:
    """What the probes' paces say. Raises `KeyError` if one of the small ones is missing."""
    few, many, words, long, engine = (paces[probe.key] for probe in _SMALL)
    layer = max(0.0, (many.seconds_per_token - few.seconds_per_token) / (_layers(1) - _layers(0)))
    token = max(0.0, few.seconds_per_token - layer * _layers(0))
    word = max(0.0, (words.seconds_per_token - few.seconds_per_token) / (WORDS - FEW_WORDS))
    reading, computing = {}, {}
    for key, pace in paces.items():
        quant, _, width = key.partition("/")
        if width:
            shape = _wide(quant, int(width), size).shape
            own = pace.seconds_per_token - token - layer * shape.layers
            reading[key] = max(0.0, own) / shape.bytes
            computing[key] = 1 / pace.prompt_tokens_per_second / _computed(shape.parameters, shape.layers)
    return Rates(
        engine=max(0.0, (engine.served or 0.0) - engine.seconds_per_token),
        token=token,
        layer=layer,
        word=word,
        reading=reading,
        computing=computing,
        others=max(pace.others for pace in paces.values()),
        attention=_attention(long, computing),
    )


def _layers(place: int) -> int:
    return _SMALL[place].shape.layers


def _computed(weights: float, layers: int) -> float:
    """Of the last layer a prompt needs only what its last token needs."""
    return weights * (layers - 1) / layers if layers > 1 else weights


def _attention(long: Pace, computing: Mapping[str, float]) -> float:
    shape = _SMALL[3].shape
    seconds = LONG_PROMPT / long.prompt_tokens_per_second
    seconds -= min(computing.values(), default=0.0) * _computed(shape.parameters, shape.layers) * LONG_PROMPT
    return max(0.0, seconds) / (LONG_PROMPT**2 * shape.width * shape.layers)


def expect(burden: Burden, known: Rates, *, prompts: Iterable[int] = (4000,)) -> Speed:
    """How fast this model should be."""
    token = known.engine + known.token + known.layer * burden.layers + known.word * burden.vocabulary
    weight = 0.0
    for read in burden.reads:
        if (kind := kind_of(read, burden.width)) is not None:
            key = key_of(*kind)
            token += known.reading[key] * read.bytes
            weight += known.computing[key] * _computed(read.weights, burden.layers)
    # The output is computed for one token of a prompt only.
    whole = sum(read.weights for read in burden.reads) or 1
    weight *= 1 - min(0.9, burden.vocabulary * burden.width / whole)

    def first(tokens: int) -> float:
        return tokens * weight + known.attention * tokens**2 * burden.width * burden.layers + token

    return Speed(
        tokens_per_second=1 / token if token else 0.0,
        prompt_tokens_per_second=512 / (first(512) or 1.0),
        first_token={tokens: first(tokens) for tokens in prompts},
    )
