"""Uploads and reads without an end, each on a connection of its own, until a line comes on standard input.

Prints a JSON line when the first upload is done, and one with all that went wrong at the end. Run inside a machine:
``argv`` is the port and the login ("user:password").
"""

import base64
import hashlib
import http.client
import json
import os
import sys
import threading
import time

port, login = int(sys.argv[1]), sys.argv[2]
headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
over = threading.Event()
wrong = []
done = {"uploads": 0, "reads": 0}
first = threading.Event()


def upload() -> None:
    """A MiB in pieces, so that some upload runs at every moment."""
    body = os.urandom(1 << 20)
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    wire.putrequest("POST", f"/data/{hashlib.sha256(body).hexdigest()}")
    for name, value in headers.items():
        wire.putheader(name, value)
    wire.putheader("Content-Length", str(len(body)))
    wire.endheaders()
    for start in range(0, len(body), 1 << 17):
        wire.send(body[start : start + (1 << 17)])
        time.sleep(0.2)
    status = wire.getresponse().status
    assert status == 200, status
    done["uploads"] += 1
    first.set()


def read() -> None:
    """The key of the repository."""
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    wire.request("GET", "/config", headers=headers)
    answer = wire.getresponse()
    assert answer.status == 200, answer.status
    assert answer.read()
    wire.close()
    done["reads"] += 1
    time.sleep(0.01)


def repeat(work) -> None:
    """Until it is over."""
    while not over.is_set():
        try:
            work()
        except Exception as error:
            wrong.append(f"{work.__name__}: {error!r}")
            time.sleep(0.1)


threads = [threading.Thread(target=repeat, args=(work,)) for work in (upload, upload, upload, read, read)]
for thread in threads:
    thread.start()
first.wait(120)
print(json.dumps(done), flush=True)
sys.stdin.readline()
over.set()
for thread in threads:
    thread.join()
print(json.dumps({**done, "wrong": wrong}), flush=True)
