#!/usr/bin/env python3
"""Starts the model server on the tiny models and runs a command beside it: serve.py BINARY COMMAND...

The command finds the addresses in LLAVA and INTERNVL, and the binary in RUNTIME; this ends with its exit code.
"""
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60


def command(binary, model, *more, places=8):
    return [binary, "serve", "--model", str(ROOT / "examples" / model / "model"), "--served-model-name", model,
            "--max-concurrency", str(places), "--host", "127.0.0.1", "--port", "0", *more]


def start(words, variables=None):
    """Starts a server, and waits until it is ready; its process and address."""
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **(variables or {})})
    for line in server.stdout:
        if "listening address=" in line:
            port = line.rstrip().rsplit(":", 1)[1]
            break
    else:
        sys.exit(f"{words} ended with {server.wait()}")
    # Nobody reads the rest; a full pipe would stop the server.
    subprocess.Popen(["cat"], stdin=server.stdout, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    begun = time.monotonic()
    while not ready(address):
        if server.poll() is not None or time.monotonic() - begun > PATIENCE_SECONDS:
            sys.exit(f"{words} is not ready")
        time.sleep(0.05)
    return server, address


def ready(address):
    try:
        return urllib.request.urlopen(address + "/ready", timeout=5).status == 200
    except urllib.error.URLError:
        return False


def main():
    binary, words = os.path.abspath(sys.argv[1]), sys.argv[2:]
    os.environ["RUNTIME"] = binary
    servers = []
    try:
        for name, model in [("LLAVA", "tiny-llava"), ("INTERNVL", "tiny-internvl")]:
            server, os.environ[name] = start(command(binary, model))
            servers.append(server)
        code = subprocess.run(words).returncode
        for server in servers:
            if server.poll() is not None:
                sys.exit(f"a server ended by itself with {server.returncode}")
        sys.exit(code)
    finally:
        for server in servers:
            server.kill()


if __name__ == "__main__":
    main()
