"""Run a command in a network that leads nowhere, and say every packet that it sends out.

    python bench/nowhere.py COMMAND ...             root only

Exit code: the command's; 3 if something went out, 4 if there can be no such network here.

A network namespace with a loopback and one cable whose far end nobody holds. There is a default route through it for
IPv4 and IPv6, and a name server behind it: so an attempt to leave does not fail early, it goes out and is seen.
At the end three packets of our own are sent, over IPv4, over IPv6 and to the name server; if the capture does not show
them, nothing is proven, and that is said.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

NEWNS, NEWNET = 0x00020000, 0x40000000
PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE, for everything below
BIND = 1 << 12
EVERYTHING = 3  # ETH_P_ALL
CABLE = """
ip link set lo up
ip link add out type veth peer name nobody
ip link set out address 02:00:00:00:00:02 up
ip link set nobody up
ip addr add 192.0.2.2/24 dev out
ip addr add 2001:db8::2/64 dev out nodad
ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev out nud permanent
ip neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev out nud permanent
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8::1
"""
OURS = ("198.51.100.99", "2001:db8:99::1")
NAME = "is-anybody-watching.example"
LEFT, NO_NETWORK = 3, 4


def enter() -> None:
    """Leave the network of this machine; from here on there is only the cable. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEWNET | NEWNS) or libc.mount(None, b"/", None, PRIVATE, None):
        raise OSError(ctypes.get_errno(), "a network namespace of its own is not allowed here")
    for line in CABLE.split("\n"):
        if line:
            subprocess.run(line.split(), check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as names:
        names.write("nameserver 192.0.2.1\noptions timeout:1 attempts:1\n")
    os.chmod(names.name, 0o644)
    place = os.path.realpath("/etc/resolv.conf").encode()
    if libc.mount(names.name.encode(), place, None, BIND, None):
        raise OSError(ctypes.get_errno(), "/etc/resolv.conf cannot be covered")
    os.unlink(names.name)


def described(frame: bytes) -> str | None:
    """A packet in words; None for what the kernel says by itself (neighbours and groups of IPv6)."""
    kind, packet = int.from_bytes(frame[12:14]), frame[14:]
    if kind == 0x0800:
        header, protocol, to = (packet[0] & 15) * 4, packet[9], socket.inet_ntop(socket.AF_INET, packet[16:20])
    elif kind == 0x86DD:
        header, protocol, to = 40, packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
        if protocol in (0, 58):
            return None
    else:
        return f"ethernet {kind:04x}"
    name = {6: "tcp", 17: "udp"}.get(protocol, f"protocol {protocol}")
    return f"{name} to {to} port {int.from_bytes(packet[header + 2 : header + 4])}"


class Capture:
    """Everything that goes into the cable, in a thread of its own."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
        self._socket.bind(("out", EVERYTHING))
        threading.Thread(target=self._listen, daemon=True, name="capture").start()

    def _listen(self) -> None:
        while True:
            frame, address = self._socket.recvfrom(65536)
            if address[2] == socket.PACKET_OUTGOING and (words := described(frame)):
                self.seen.append(words)

    def watches(self) -> bool:
        """Send three packets of our own: are they seen?"""
        for family, address in zip((socket.AF_INET, socket.AF_INET6), OURS, strict=True):
            with socket.socket(family, socket.SOCK_DGRAM) as ours:
                ours.sendto(b"?", (address, 9))
        lookup = [sys.executable, "-c", f"import socket; socket.getaddrinfo({NAME!r}, 80)"]
        subprocess.run(lookup, stderr=subprocess.DEVNULL, timeout=30, check=False)
        wanted = {f"udp to {address} port 9" for address in OURS} | {"udp to 192.0.2.1 port 53"}
        return wanted <= set(self.seen)


def main(command: list[str]) -> int:
    try:
        enter()
        capture = Capture()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"nowhere: no network of its own can be had here: {error}", file=sys.stderr)
        return NO_NETWORK
    code = subprocess.run(command, check=False).returncode
    sent = list(capture.seen)
    if not capture.watches():
        print("nowhere: the capture did not see packets of its own, so nothing is proven", file=sys.stderr)
        return LEFT
    print(f"nowhere: {len(sent)} packets left; three of our own were seen", file=sys.stderr)
    for words in dict.fromkeys(sent):
        print(f"nowhere: {sent.count(words)} x {words}", file=sys.stderr)
    return LEFT if sent else code


if __name__ == "__main__":
    if os.geteuid() != 0 or len(sys.argv) < 2:
        sys.exit(f"usage, as root: python {Path(sys.argv[0]).name} COMMAND ...")
    sys.exit(main(sys.argv[1:]))
