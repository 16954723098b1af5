"""Can whoever answers prove to be the cloud?

Rules of this file:

1. A certificate's dates are judged by this box's clock, so before a date is anybody's fault the clock is looked at.
2. An authority that is not known here sits between us and a public cloud (a company's proxy, a portal, a thief), and
   vouches for a private server. Verification is never to be turned off: the authority's own certificate can be given.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from appliance.doctor.checks.http import IN_BETWEEN, LOG_IN
from appliance.doctor.finding import Finding, Who, ok, wrong
from appliance.doctor.words import ago, listed, milliseconds

LAYER = "TLS"
CLOCK_WRONG = timedelta(days=1)
CLOCK_FIX = "Set this box's clock: timedatectl set-ntp true, or date -s."

# Of OpenSSL (X509_V_ERR_...).
NOT_YET, EXPIRED, SELF_SIGNED, STRANGERS, OTHER_NAMES = 9, 10, 18, (2, 19, 20, 21), (62, 64)

Outcome = Literal["ok", "untrusted", "no TLS", "hung up", "silence", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What it says of itself. Nobody has verified it."""

    issuer: str = ""
    subject: str = ""
    names: tuple[str, ...] = ()
    begins: datetime | None = None
    ends: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """``code`` is OpenSSL's reason to distrust; ``shown`` is the certificate that was distrusted. ``ca``: the upstream
    has an authority of its own in the configuration."""

    outcome: Outcome
    host: str
    seconds: float = 0.0
    version: str = ""
    code: int = 0
    reason: str = ""
    shown: Certificate | None = None
    ca: bool = False


def verdict(
    handshake: Handshake,
    *,
    now: datetime,
    off: timedelta | None,
    public: bool,
    ailing: bool = False,
    portal: str | None = None,
) -> Finding:
    """``off`` is how far this box's clock is ahead of others', if anybody told. ``public``: the host is a provider that
    everybody reaches. ``ailing``: its status page tells of trouble. ``portal``: what looks like a login page there."""
    host = handshake.host
    if portal is not None and handshake.outcome != "ok" and handshake.code not in (EXPIRED, NOT_YET):
        return wrong(LAYER, f"{IN_BETWEEN}: {portal}", who="you", fix=LOG_IN)
    theirs: Who = "them" if public else "you"
    match handshake.outcome:
        case "ok":
            return ok(LAYER, f"{handshake.version}, {host} proved who it is ({milliseconds(handshake.seconds)})")
        case "untrusted":
            return _untrusted(handshake, now, off, public)
        case "no TLS":
            said = f"what answers for {host} speaks no TLS on that port"
            return wrong(
                LAYER, said, who="you", fix="Write http:// if it is a server of yours; else something is in between."
            )
        case "silence":
            said = f"{host} took the connection, and the handshake did not end"
            return wrong(LAYER, said, who="them" if ailing else "you", fix=_in_between(ailing))
        case "hung up":
            said = f"somebody hangs up as soon as {host} is named"
            return wrong(LAYER, said, who="them" if ailing else "you", fix=_in_between(ailing))
    said = f"the handshake with {host} failed ({handshake.reason or 'no reason told'})"
    return wrong(LAYER, said, who=theirs, fix="Wait, or compare with another network: a filter may be in between.")


def _in_between(ailing: bool) -> str:
    if ailing:
        return "Wait for them; the box answers meanwhile."
    return "Have the name allowed: firewalls that read names do this; another network or `proxy` goes around them."


def _untrusted(handshake: Handshake, now: datetime, off: timedelta | None, public: bool) -> Finding:
    host, shown = handshake.host, handshake.shown or Certificate()
    issuer = f'"{shown.issuer}"' if shown.issuer else "somebody"
    if handshake.code in (EXPIRED, NOT_YET):
        return _out_of_time(handshake, shown, now, off, public)
    if handshake.code in OTHER_NAMES:
        names = listed(shown.names) or shown.subject or "another name"
        said = f"the certificate is not for {host}, but for {names}"
        fix = (
            "Log in if this network has a login page; else look who answers for that name (DNS, /etc/hosts, base_url)."
        )
        return wrong(LAYER, said, who="you", fix=fix)
    if handshake.code != SELF_SIGNED and handshake.code not in STRANGERS:
        said = f"{host} could not prove who it is: {handshake.reason or 'no reason told'}"
        return wrong(LAYER, said, who="you", fix="Look who answers for that name; something may be in between.")
    if handshake.code == SELF_SIGNED:
        said = f"{host} vouches for itself (self-signed, {issuer})"
    else:
        said = f"{host} is vouched for by {issuer}, which is not known here"
    if handshake.ca:
        fix = "If it is your own or your company's, add its authority to the file of `ca` (or SSL_CERT_FILE)."
        return wrong(LAYER, said, who="you", fix=fix)
    if public:
        said += ": a proxy of your company or a login page is in between"
        fix = 'Log in to the network; or, if it is your company\'s proxy, write its authority: ca = "FILE.pem".'
        return wrong(LAYER, said, who="you", fix=fix)
    return wrong(LAYER, said, who="you", fix='If it is a server of yours, write its authority: ca = "FILE.pem".')


def _out_of_time(
    handshake: Handshake, shown: Certificate, now: datetime, off: timedelta | None, public: bool
) -> Finding:
    host = handshake.host
    if handshake.code == NOT_YET:
        since = f" before {shown.begins:%Y-%m-%d}" if shown.begins else " yet"
        said = f"the certificate of {host} is not valid{since}, and this box's clock says {now:%Y-%m-%d}"
        return wrong(LAYER, said, who="box", fix=CLOCK_FIX)
    if shown.ends is not None and now < shown.ends:
        return _out_of_time_above(handshake, shown.ends, off, public)
    when = f" {ago(now - shown.ends)} ago ({shown.ends:%Y-%m-%d})" if shown.ends else ""
    said = f"the certificate of {host} expired{when}"
    if off is not None and shown.ends is not None and now - off < shown.ends:
        said += f", but only by this box's clock, which is {ago(off)} ahead"
        return wrong(LAYER, said, who="box", fix=CLOCK_FIX)
    if public:
        fix = "Nothing on this box: the box answers until they renew it. Do not work around it."
        return wrong(LAYER, said, who="them", fix=fix)
    return wrong(LAYER, said, who="them", fix=f"Have whoever runs {host} renew its certificate.")


def _out_of_time_above(handshake: Handshake, ends: datetime, off: timedelta | None, public: bool) -> Finding:
    """Its own certificate is good: one that vouches for it is not. Either they send an old one, or this box's own list
    of authorities is old; what everybody reaches was seen by others first."""
    host = handshake.host
    said = f"a certificate above that of {host} has expired (its own has not: {ends:%Y-%m-%d})"
    if off is not None and off > CLOCK_WRONG:
        return wrong(LAYER, f"{said}, by this box's clock, {ago(off)} ahead", who="box", fix=CLOCK_FIX)
    if handshake.ca:
        return wrong(LAYER, said, who="box", fix="Renew the file of `ca` (or SSL_CERT_FILE): its authorities are old.")
    if public:
        fix = "Renew this box's list of authorities: pip install --upgrade certifi, where the appliance is installed."
        return wrong(LAYER, said, who="box", fix=fix)
    return wrong(LAYER, said, who="them", fix=f"Have whoever runs {host} send the new ones along with its own.")
