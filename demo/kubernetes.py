"""Talks to the cluster through kubectl; the only file that knows its output."""
import json
import os
import subprocess
import threading
import time
import urllib.request


class Failed(Exception):
    """A step of the demo did not work; the text says which and why."""


def kubectl(*args, stdin=None, check=True):
    """Runs kubectl and returns what it printed."""
    done = subprocess.run(["kubectl", *args], input=stdin, text=True, capture_output=True)
    if check and done.returncode != 0:
        raise Failed(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def get(kind, name, namespace="default"):
    """The object as a dictionary, or None."""
    text = kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else None


def apply(text):
    """Server-side apply of manifests."""
    return kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def condition(thing, kind):
    """The named condition of an object, or an empty dictionary."""
    found = [c for c in thing.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def await_that(what, test, seconds):
    """Waits until the test gives something true and returns it."""
    end = time.monotonic() + seconds
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} seconds")
        time.sleep(0.2)


class Watch:
    """Follows one object in a thread and keeps (seconds, value) whenever the value changes."""

    def __init__(self, kind, name, value):
        self.value, self.changes, self.changed = value, [], threading.Condition()
        self.process = subprocess.Popen(
            ["kubectl", "get", kind, name, "--watch", "-o", "json"], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        decoder, text = json.JSONDecoder(), ""
        for line in self.process.stdout:
            text += line
            if line.rstrip() != "}":
                continue
            thing, text = decoder.decode(text), ""
            now, value = time.monotonic(), self.value(thing)
            with self.changed:
                if not self.changes or self.changes[-1][1] != value:
                    self.changes.append((now, value))
                    self.changed.notify_all()

    def now(self):
        """The latest value."""
        with self.changed:
            return self.changes[-1][1] if self.changes else None

    def await_value(self, what, test, seconds, since=0.0):
        """Waits for a change after `since` whose value passes the test; returns when it came."""
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                for at, value in self.changes:
                    if at >= since and test(value):
                        return at
                left = end - time.monotonic()
                if left <= 0 or self.process.poll() is not None:
                    raise Failed(f"{what}: not within {seconds} seconds (last seen: {self.changes[-1:]})")
                self.changed.wait(min(left, 1.0))

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Reach:
    """Addresses of Services: their own where the cluster is on this machine, else through kubectl proxy."""

    def __init__(self, local):
        self.proxy = None
        if not local:
            self.proxy = subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
            self.base = "http://" + self.proxy.stdout.readline().split()[-1]

    def service(self, name, port, namespace="default"):
        if self.proxy:
            return f"{self.base}/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy"
        address = get("service", name, namespace)["spec"]["clusterIP"]
        return f"http://{address}" + ("" if port == 80 else f":{port}")

    def stop(self):
        if self.proxy:
            self.proxy.terminate()
            self.proxy.wait()


def fetch_json(url, body=None, timeout=60):
    """GET, or POST of a JSON body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return json.load(response)


def environment(name, default):
    """An environment variable that counts as absent when empty."""
    return os.environ.get(name) or default
