"""What the formats of JSON Schema look like, as regular expressions.

As exact as a regular expression can be for dates and times, addresses and identifiers; loose for what the standards
leave open (e-mail, URI). A format that is not here is a remark, as the standard says. Digits that may go on for ever
end after nine, more than anybody reads: a weak model would write them until its answer is cut off.
"""

from __future__ import annotations

_YEAR = r"(?:[1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9])"
_LEAP = r"(?:(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    rf"|02-(?:0[1-9]|1\d|2[0-8]))|{_LEAP})"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_SOME = r"\d{1,9}"
_DAYS = rf"(?:{_SOME}Y(?:{_SOME}M(?:{_SOME}D)?)?|{_SOME}M(?:{_SOME}D)?|{_SOME}D)"
_SECONDS = rf"(?:{_SOME}H(?:{_SOME}M(?:{_SOME}S)?)?|{_SOME}M(?:{_SOME}S)?|{_SOME}S)"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_HEX = "[0-9A-Fa-f]"
_QUAD = f"{_HEX}{{1,4}}"
_IPV6 = "|".join(
    [
        f"(?:{_QUAD}:){{7}}{_QUAD}",
        f"(?:{_QUAD}:){{6}}{_IPV4}",
        f"(?:{_QUAD}:){{1,7}}:",
        *(f"(?:{_QUAD}:){{1,{7 - after}}}(?::{_QUAD}){{1,{after}}}" for after in range(1, 7)),
        f":(?::{_QUAD}){{1,7}}",
        "::",
        f"::(?:{_QUAD}:){{0,5}}{_IPV4}",
        *(f"(?:{_QUAD}:){{1,{before}}}(?::{_QUAD}){{0,{5 - before}}}:{_IPV4}" for before in range(1, 6)),
    ]
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_URI = r"""[A-Za-z][A-Za-z0-9+.-]*:[^\s<>"{}|\\^`\x00-\x1f\x7f-\uffff]+"""

FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}[Tt]{_TIME}$",
    "duration": f"^P(?:{_DAYS}(?:T{_SECONDS})?|T{_SECONDS}|{_SOME}W)$",
    "uuid": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
    "email": rf"^{_ATOM}(?:\.{_ATOM})*@{_HOST}$",
    "hostname": f"^{_HOST}$",
    "ipv4": f"^{_IPV4}$",
    "ipv6": f"^(?:{_IPV6})$",
    "uri": f"^{_URI}$",
}
