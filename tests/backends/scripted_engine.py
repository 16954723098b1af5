"""A child that speaks the engine's protocol and does what it is told. Run: scripted_engine.py FD"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from appliance.core.frames import Decoder, encode

pipe = socket.socket(fileno=int(sys.argv[1]))
decoder = Decoder()
READY = {
    "op": "ready", "model": {"name": "scripted"}, "context": 64, "slots": 1, "threads": 1, "gpu_layers": 0, "layers": 1,
    "gpu_offload": False, "instruction_sets": "none", "load_s": 0.0, "tok_s": None,
}  # fmt: skip
cancelled = []
followed = []
probed = []


def say(*frames):
    pipe.sendall(b"".join(encode(frame) for frame in frames))


def load(frame):
    if frame["path"] == "wrong" or (frame["path"] == "spoilt" and os.path.exists(frame["template"])):
        say({"op": "fatal", "message": "wrong is not a GGUF file."})
        os._exit(64)
    if frame["path"] == "never":
        return
    if frame["path"] == "always dies":
        os._exit(3)
    if frame["path"] == "sick" and os.path.exists(frame["template"]):
        os._exit(3)
    if frame["path"] == "parent":
        subprocess.Popen(["sleep", "60"])
    if frame["path"] == "deaf":
        READY["deaf"] = True
    if frame["path"] == "stepped":
        READY["steps_down"] = ["It has less context.", "It is on the CPU."]
    if frame["path"] == "dies" and not os.path.exists(frame["template"]):
        Path(frame["template"]).touch()
        sys.stderr.write("I cannot live.\n")
        os._exit(3)
    if frame["path"] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say({"op": "loading", "progress": 0.5}, READY)


def generate(frame):
    id, asked = frame["id"], frame["messages"][-1]["content"]
    begun = {"op": "begun", "id": id, "prompt_tokens": 3, "cached_tokens": 0, "committed_tokens": 0, "trimmed": 0}
    finish = {
        "op": "finish",
        "id": id,
        "reason": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 1,
        "cached_tokens": 0,
    }
    if asked == "nothing":
        pass
    elif asked == "wait":
        say(begun)
    elif asked == "crash":
        say(begun, {"op": "text", "id": id, "text": "half"})
        os.kill(os.getpid(), signal.SIGKILL)
    elif asked == "frozen":
        say(begun, {"op": "text", "id": id, "text": "half"})
        while True:
            time.sleep(60)
    elif asked == "halted":
        say(begun, {"op": "text", "id": id, "text": "half"})
        os.kill(os.getpid(), signal.SIGSTOP)
    elif asked == "malformed":
        say({"op": "loading"})
    elif asked == "followed":
        say(begun, {"op": "text", "id": id, "text": json.dumps(followed)}, finish)
    elif asked == "nonsense":
        pipe.sendall(b"\xff\xff\xff\xff")
    elif asked == "environment":
        say(begun, {"op": "text", "id": id, "text": " ".join(os.environ)}, finish)
    elif asked == "cancelled":
        say(begun, {"op": "text", "id": id, "text": str(cancelled)}, finish)
    else:
        say(begun, {"op": "text", "id": id, "text": asked}, finish)


def count(frame):
    id, asked = frame["id"], frame["messages"][-1]["content"]
    if asked == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif asked == "refuse":
        say({"op": "error", "id": id, "fault": "request", "message": "No.", "param": "messages"})
    elif asked == "malformed":
        say({"op": "counted", "id": id})
    elif asked != "wait":
        say({"op": "counted", "id": id, "tokens": len(asked)})


while data := pipe.recv(65536):
    for frame in decoder.feed(data):
        if frame["op"] == "load":
            load(frame)
        elif frame["op"] == "generate":
            generate(frame)
        elif frame["op"] == "count":
            count(frame)
        elif frame["op"] == "cancel":
            cancelled.append(frame["id"])
            followed.append(frame)
        elif frame["op"] in ("follow", "fed", "suspect"):
            followed.append(frame)
        elif frame["op"] == "probe":
            probed.append(frame["id"])
            if "deaf" not in READY:
                say({"op": "alive", "id": frame["id"]})
        elif frame["op"] == "stats":
            say({"op": "stats", "busy": 0, "waiting": 0, "decoded": 0, "probed": len(probed)})
while READY and signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
    signal.pause()
