"""Who may answer this request, in order of preference?

Rules of this file:

1. The model named ``local`` is always the box, and so is a request routed to it.
2. An upstream is offered the requests whose model its patterns or its aliases match, in the order of the
   configuration; the box comes last, unless the caller asked for clouds only.
3. An upstream of another dialect is left out if something of the request that matters cannot be said in it. If
   that leaves none, the caller is told which field it was.
4. With no upstream at all the box answers, whatever the model is called. With upstreams, a model that none of
   them wants is a 404 that names the models there are.
5. A request made *to the box* that needs what the box does not offer is the caller's 400; as a fallback the box
   does what it can, and says what it left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from appliance.core.chat import ChatRequest, ToolChoice
from appliance.core.fault import BackendError, Fault

LOCAL = "local"
BOX_OFFERS = frozenset({"tools", "json", "logprobs", "n"})
"""What the box can do beyond text."""

CHOICES = 8
"""Answers to one request that the box writes at a time."""

STOPS, STOP_LENGTH = 16, 256
"""Stop strings that the box itself looks for, and their characters: it compares them with every piece it says."""

KEPT = "thread"
"""The need for a conversation that lies with a cloud, of which the request holds only the end."""

FIELDS = {"json": "response_format", "audio": "modalities", "images": "messages", "file": "messages"}
"""Where in a request a need is written, if not under its own name."""
SAID_IN = {
    "tools": frozenset({"tools", "tool_choice", "functions", "function_call", "mcp_servers"}),
    "json": frozenset({"response_format", "output_config", "output_format"}),
}
"""The fields that say what is needed. What stands in one and only a cloud of its dialect understands, the box lacks."""


def _nothing(_: ChatRequest) -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One upstream as the routing table knows it. `objection` names the field of a request of another dialect that
    cannot be said in this one's; `client_key`: it takes the caller's own credential, which others do not have."""

    name: str
    dialect: str = "openai"
    objection: Callable[[ChatRequest], str | None] = _nothing
    client_key: bool = False
    models: tuple[str, ...] = ("*",)
    aliases: tuple[tuple[str, str], ...] = ()
    prefill: bool = False
    watch_whole: bool = False
    hedge: bool = False

    def resolve(self, model: str) -> str | None:
        """The name this upstream knows `model` by, or ``None`` if it is not offered here."""
        for pattern, target in self.aliases:
            if fnmatchcase(model, pattern):
                return target
        return model if any(fnmatchcase(model, pattern) for pattern in self.models) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One candidate for an answer. `continues`: can it go on from a half-written answer? `watched`: it lets a whole
    answer be seen while it is written. `hedge`: when it is late, the next cloud may be asked beside it."""

    name: str
    model: str
    continues: bool
    watched: bool = False
    hedge: bool = False
    offers: frozenset[str] | None = None

    @property
    def local(self) -> bool:
        return self.name == LOCAL

    def lacks(self, request: ChatRequest) -> tuple[str, ...]:
        """What the request needs and this leg cannot do, in order of the alphabet. A cloud judges for itself."""
        if self.offers is None:
            return ()
        stop = () if stops_for_box(request.stop) == request.stop else ("stop",)
        many = {"n"} if request.n > CHOICES else set()
        foreign = {path.replace("[", ".").partition(".")[0] for path in request.foreign}
        unheard = {need for need, said in SAID_IN.items() if need in request.needs and said & foreign}
        return tuple(sorted([*(request.needs - self.offers | unheard | many), *stop]))


def stops_for_box(stops: tuple[str, ...]) -> tuple[str, ...]:
    """Those that the box can look for."""
    return tuple(stop for stop in stops if len(stop) <= STOP_LENGTH)[:STOPS]


def for_the_box(request: ChatRequest, *, stands_in: bool, trim: bool) -> ChatRequest:
    """A cloud's request as the box can take it: biases name tokens of another vocabulary, a tool that the box does not
    know cannot be insisted on, a schema nobody can follow is none, and old turns may be dropped if `trim`, which says
    that no cloud that can hold more found the conversation too long. What was asked of the box itself is left as it
    is."""
    if not stands_in:
        return replace(request, trim=False, lenient=False)
    sampling = replace(request.sampling, logit_bias=())
    return replace(
        request,
        trim=request.trim and trim,
        lenient=True,
        sampling=sampling,
        n=min(request.n, CHOICES),
        stop=stops_for_box(request.stop),
        tool_choice=_choice_for_box(request),
    )


def _choice_for_box(request: ChatRequest) -> ToolChoice | None:
    choice, names = request.tool_choice, [tool.name for tool in request.tools]
    if choice is None or (choice.kind == "required" and not names):
        return None
    return None if choice.kind == "named" and choice.name not in names else choice


def forgotten() -> BackendError:
    """Whoever hears this sends the whole conversation, which anybody can answer. The code is Anthropic's."""
    sentence = "The conversation lies with a cloud that does not answer; send all of it."
    return BackendError(Fault.REQUEST, sentence, status=404, code="thread_not_found")


def legs(request: ChatRequest, upstreams: Sequence[Offer], *, wish: str = "auto", box_model: str) -> tuple[Leg, ...]:
    """The legs for `request` under the caller's `wish` (auto, local, cloud, or an upstream's name).

    Raises:
        BackendError: REQUEST, when the wish or the model names nobody, or the box is asked for what it cannot do.
    """
    box = Leg(name=LOCAL, model=box_model, continues=True, offers=BOX_OFFERS)
    names = [offer.name for offer in upstreams]
    wish = next((name for name in names if name.lower() == wish), wish)  # header values come in any case
    if wish not in ("auto", LOCAL, "cloud", *names):
        raise BackendError(
            Fault.REQUEST,
            f"x-appliance-route must be auto, local, cloud or one of the upstreams ({', '.join(names) or 'none'}).",
            status=400,
        )
    if wish == LOCAL or request.model == LOCAL or (not upstreams and wish == "auto"):
        if KEPT in request.needs:
            raise forgotten()
        for path, sentence in request.doubts:
            raise BackendError(Fault.REQUEST, sentence, status=400, param=path)
        _refuse_what_the_box_cannot_do(request, box)
        return (box,)
    willing = [
        (offer, model)
        for offer in upstreams
        if wish in ("auto", "cloud", offer.name) and (model := offer.resolve(request.model)) is not None
    ]
    objections = [_objection(request, offer) for offer, _ in willing]
    clouds = tuple(
        Leg(
            name=offer.name,
            model=model,
            continues=offer.prefill,
            watched=offer.watch_whole,
            hedge=offer.hedge,
        )
        for (offer, model), objection in zip(willing, objections, strict=True)
        if objection is None
    )
    if willing and not clouds:
        if KEPT in request.needs:
            raise forgotten()
        assert objections[0] is not None
        raise objections[0]
    if not clouds:
        raise BackendError(
            Fault.REQUEST, _nobody_has(request.model, upstreams, wish), status=404, code="model_not_found"
        )
    return (*clouds, box) if wish == "auto" and KEPT not in request.needs else clouds


def models(upstreams: Sequence[Offer]) -> tuple[str, ...]:
    """The model names and patterns that can be asked for, the box's own first."""
    names = [LOCAL]
    for offer in upstreams:
        names += [pattern for pattern, _ in offer.aliases]
        names += offer.models
    return tuple(dict.fromkeys(names))


def concrete(name: str) -> bool:
    """Is it one model's name, and not a pattern for several?"""
    return not any(sign in name for sign in "*?[")


def _objection(request: ChatRequest, offer: Offer) -> BackendError | None:
    """Why this upstream cannot be asked, though it is offered the model."""
    if offer.dialect == request.dialect:
        return None
    spoken = f"{offer.name} speaks the {offer.dialect} dialect"
    if offer.client_key:
        sentence = f"{spoken} and takes the caller's own credential there; call it in its own dialect."
        return BackendError(Fault.REQUEST, sentence, status=400, param="model")
    field = request.foreign[0] if request.foreign else offer.objection(request)
    if field is None:
        return None
    sentence = f"{field} cannot be translated: {spoken}; leave it out, or ask for a model of an upstream of this one."
    return BackendError(Fault.REQUEST, sentence, status=400, param=field)


def _refuse_what_the_box_cannot_do(request: ChatRequest, box: Leg) -> None:
    missing = box.lacks(request)
    if missing == ("stop",):
        sentence = f"stop can hold at most {STOPS} strings of at most {STOP_LENGTH} characters on this box."
        raise BackendError(Fault.REQUEST, sentence, status=400, param="stop")
    if "n" in missing and "n" in BOX_OFFERS:
        sentence = f"n can be at most {CHOICES} on this box."
        raise BackendError(Fault.REQUEST, sentence, status=400, param="n")
    if missing:
        raise BackendError(
            Fault.REQUEST,
            f"The model on this box cannot do this yet: {', '.join(missing)}; leave it out, or ask a cloud's model.",
            status=400,
            param=FIELDS.get(missing[0], missing[0]),
        )


def _nobody_has(model: str, upstreams: Sequence[Offer], wish: str) -> str:
    if not upstreams:
        return f"No cloud is configured, so x-appliance-route: {wish} leads nowhere; use auto or local."
    asked = models([offer for offer in upstreams if wish in ("auto", "cloud", offer.name)])
    return f"No upstream here offers the model {model[:100]!r}; the models there are: {', '.join(asked)}."
