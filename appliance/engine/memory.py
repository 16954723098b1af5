"""How can this model be loaded on this machine, and what has to be given up for that?

Rules of this file:

1. It computes with numbers that somebody else measured: what the model needs (`Sizes`), what is free (`Room`).
2. A ladder begins with what was asked for, so far as that can work at all, and every rung below gives up more. Only
   rungs that should fit are on it. What llama.cpp then refuses nevertheless is tried one rung lower.
3. First go layers from the GPU to the CPU; then the part of the cache that a sliding window has left behind; then
   context, halved down to `COMFORTABLE`; then the precision of the cache; then context again, down to `SMALLEST`.
4. A model larger than what is free can still be read from disk while it computes. That is slow, so it is the last
   thing tried; it is said, not refused. The cache and the buffers cannot be read from anywhere: they must fit.
5. Everything given up is one sentence, in the words of the settings.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from appliance.core.size import in_words

COMFORTABLE = 2048
SMALLEST = 512
SPARE = 128 * 2**20
"""Bytes of RAM left to everybody else, and to Python in this process."""

PROCESS = 44 * 2**20
BYTES_PER_WORD, BYTES_PER_MERGE = 330, 245
"""What the engine's process takes beside the model: measured with vocabularies of 49,152 and 151,936 words, with as
many merges and with none."""

SPARE_DEVICE = 256 * 2**20
PRECISIONS = ("f16", "q8_0", "q4_0")


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes for all slots together, as a straight line over the tokens per slot."""

    fixed: int = 0
    per_token: float = 0.0

    def at(self, context: int) -> int:
        return self.fixed + round(self.per_token * context)

    @classmethod
    def through(cls, first: tuple[int, int], second: tuple[int, int]) -> Growth:
        """The line through two measured (context, bytes)."""
        slope = max(0.0, (second[1] - first[1]) / (second[0] - first[0]))
        return cls(max(0, round(first[1] - slope * first[0])), slope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one kind of cache costs: the cache itself, spread over the layers, and the buffers to compute with, in RAM
    and on each GPU that has any layer."""

    cache: Growth
    host: Growth = Growth()
    device: Growth = Growth()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a model needs. `needs` has a row for each (precision of the cache, whole window) that works with it.

    `layers` counts the output too, as large as many others where the vocabulary is; `output` is its bytes. The table
    that words come in through, `input`, is never on a GPU; where it is also the output (`tied`), the GPU has a copy.
    Of the tables on the CPU llama.cpp copies those that are `repacked`; the file's own pages of those can go then.
    """

    model: int
    layers: int
    trained: int
    needs: Mapping[tuple[str, bool], Need]
    input: int = 0
    output: int = 0
    tied: bool = False
    repacked: int = 0

    @property
    def block(self) -> float:
        """The bytes of one layer that is not the output."""
        return (self.model - self.input - (0 if self.tied else self.output)) / max(1, self.layers - 1)

    def cache(self, rung: Rung) -> int:
        return self.needs[rung.kind].cache.at(rung.context)

    def host(self, rung: Rung) -> int:
        """RAM that nothing can be read back into: the cache and the buffers."""
        on_gpu = max(0, rung.gpu_layers - 1) / max(1, self.layers - 1)
        return round(self.cache(rung) * (1 - on_gpu)) + self.needs[rung.kind].host.at(rung.context)

    def host_model(self, rung: Rung) -> int:
        if not rung.gpu_layers:
            return self.model
        return round(self.model - (rung.gpu_layers - 1) * self.block - (0 if self.tied else self.output))

    def twice(self, rung: Rung) -> int:
        """Bytes of the file in memory that are needed only once, when it is loaded: the system takes them when it needs
        them."""
        on_gpu = max(0, rung.gpu_layers - 1) / max(1, self.layers - 1)
        return round(self.repacked * (1 - on_gpu)) if rung.repacks else 0

    def devices(self, rung: Rung, free: Sequence[int]) -> tuple[int, ...]:
        """The bytes on each GPU, of which so much is free."""
        layers = spread(rung.gpu_layers, free)
        per_layer = self.block + self.cache(rung) / max(1, self.layers - 1)
        buffers = self.needs[rung.kind].device.at(rung.context)
        last = max((place for place, count in enumerate(layers) if count), default=-1)
        return tuple(
            round(count * per_layer + (self.output - per_layer if place == last else 0)) + buffers if count else 0
            for place, count in enumerate(layers)
        )


def spread(layers: int, free: Sequence[int]) -> tuple[int, ...]:
    """How many layers llama.cpp gives to each GPU: in their order, by what is free on them. The output comes last."""
    counts = [0] * len(free)
    ends = [sum(free[: place + 1]) / (sum(free) or 1) for place in range(len(free))]
    for layer in range(layers if free else 0):
        counts[min(bisect_right(ends, layer / layers), len(free) - 1)] += 1
    return tuple(counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Free bytes. `devices` has a number for each GPU, for a layer lies on one of them; none: no GPU, or one that does
    not say."""

    ram: int
    devices: tuple[int, ...] = ()

    def holds(self, sizes: Sizes, rung: Rung) -> bool:
        return self.holds_devices(sizes, rung) and sizes.host(rung) + sizes.host_model(rung) + SPARE <= self.ram

    def holds_cache(self, sizes: Sizes, rung: Rung) -> bool:
        return self.holds_devices(sizes, rung) and sizes.host(rung) + SPARE <= self.ram

    def holds_devices(self, sizes: Sizes, rung: Rung) -> bool:
        needed = sizes.devices(rung, self.devices)
        return all(not need or need + SPARE_DEVICE <= free for need, free in zip(needed, self.devices, strict=True))

    @property
    def said(self) -> str:
        """The GPUs in a sentence, as what layers fit or do not."""
        if not self.devices:
            return "the GPU"
        sizes = " and ".join(map(in_words, self.devices))
        return f"the GPU ({sizes} is free on it)" if len(self.devices) == 1 else f"the GPUs ({sizes} are free on them)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to load the model. `gpu_layers` counts the output too. `steps`: what it gives up."""

    context: int
    kv_type: str
    gpu_layers: int
    whole_window: bool = True
    repacks: bool = True  # may llama.cpp copy tables into an order that the CPU likes better?
    steps: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, bool]:
        return self.kv_type, self.whole_window

    @property
    def from_disk(self) -> bool:
        """Is the model larger than what is free? What is copied cannot be read from the file again."""
        return not self.repacks


class NoRoom(Exception):
    """Nothing on the ladder fits. The sentence has both numbers."""


def ladder(asked: Rung, sizes: Sizes, room: Room) -> tuple[Rung, ...]:
    """The ways to load the model that should fit, the best first. Raises `NoRoom` if there are none."""
    wish = replace(asked, gpu_layers=min(asked.gpu_layers, sizes.layers))
    said: tuple[str, ...] = ()
    if wish.kind not in sizes.needs:
        wish = replace(wish, kv_type=PRECISIONS[0])
        said = (f"The cache of this model cannot be kept as {asked.kv_type}; it is kept as {wish.kv_type}.",)
    if sizes.trained and asked.context > sizes.trained:
        wish = replace(wish, context=sizes.trained)
        said += (
            f"A slot gets {sizes.trained:,} tokens instead of {asked.context:,}:"
            " the model was not trained for longer texts.",
        )
    ways = list(_ways(wish, sizes, room))
    fitting = [way for way in ways if room.holds(sizes, way)]
    if fitting:
        return tuple(replace(way, steps=said + _given_up(wish, way, sizes, room)) for way in fitting)
    reading = [replace(way, repacks=False) for way in ways if room.holds_cache(sizes, way)]
    if not reading:
        least = min(ways, key=sizes.host, default=wish)
        raise NoRoom(
            f"its cache and buffers need {in_words(sizes.host(least) + SPARE)} of memory even for {least.context:,}"
            f" tokens in each slot, and {in_words(room.ram)} is free"
        )
    slow = (
        f"The model needs {in_words(sizes.host_model(reading[0]))} of memory and {in_words(room.ram)} is free:"
        " it is read from disk again and again, and answers will be slow.",
    )
    return tuple(replace(way, steps=said + _given_up(wish, way, sizes, room) + slow) for way in reading)


def _ways(wish: Rung, sizes: Sizes, room: Room) -> Iterator[Rung]:
    """Everything that could be tried, the best first, whether it fits or not."""
    seen = set()
    for way in _all_ways(wish, sizes, room):
        if way.kind in sizes.needs and way not in seen:
            seen.add(way)
            yield way


def _all_ways(wish: Rung, sizes: Sizes, room: Room) -> Iterator[Rung]:
    precisions = PRECISIONS[PRECISIONS.index(wish.kv_type) :]
    roomy = list(_halves(wish.context, COMFORTABLE))
    tight = list(_halves(roomy[-1], SMALLEST))
    whole = all(whole for _, whole in sizes.needs)  # no layer has a sliding window: then the whole is all there is
    kinds = [(wish.kv_type, True, roomy[:1])]
    kinds += [(precision, whole, roomy) for precision in precisions]
    kinds += [(precisions[-1], whole, tight)]
    kinds += [(wish.kv_type, whole, tight)]  # for a model whose cache cannot be quantized
    for kv_type, whole, contexts in kinds:
        for context in contexts:
            one = replace(wish, kv_type=kv_type, whole_window=whole, context=context)
            for layers in _layers(one, sizes, room):
                yield replace(one, gpu_layers=layers)


def _layers(way: Rung, sizes: Sizes, room: Room) -> Iterator[int]:
    """As many layers on the GPU as fit there, then half of them, then none."""
    most = way.gpu_layers
    while most and way.kind in sizes.needs and not room.holds_devices(sizes, replace(way, gpu_layers=most)):
        most -= 1
    yield from dict.fromkeys((most, most // 2, 0))


def _halves(context: int, least: int) -> Iterator[int]:
    yield context
    while context > least:
        context = max(context // 2, least)
        yield context


def _given_up(wish: Rung, way: Rung, sizes: Sizes, room: Room) -> tuple[str, ...]:
    steps = []
    if way.gpu_layers < wish.gpu_layers:
        if way.gpu_layers:
            steps.append(
                f"{way.gpu_layers} of the model's {sizes.layers} layers fit {room.said};"
                " the others are computed on the CPU, which is slower."
            )
        else:
            steps.append(f"The model does not fit {room.said}; it is computed on the CPU.")
    if wish.whole_window and not way.whole_window:
        steps.append("Only the sliding window is kept in memory, so going back far in a conversation is computed anew.")
    if way.context < wish.context:
        full = replace(wish, gpu_layers=way.gpu_layers)
        needed = sizes.host(full) + sizes.host_model(full) + SPARE
        steps.append(
            f"A slot gets {way.context:,} tokens instead of {wish.context:,}:"
            f" that needs {in_words(needed)} of memory, and {in_words(room.ram)} is free."
        )
    if way.kv_type != wish.kv_type:
        steps.append(f"The cache is kept as {way.kv_type} instead of {wish.kv_type}, to save memory.")
    return tuple(steps)
