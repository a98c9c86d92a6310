"""Scores the tiny models as `vlm-runtime` serves them, in every number format, over HTTP.

    python evaluate_runtime.py PATH/TO/vlm-runtime        # writes evaluation_runtime.json

The questions are those of each model's own `evaluate.py`. One server for each model and format runs at the same
time as all others, or several where there are cores enough. kv-int8 and kv-fp8 are f32 with keys and values in 8 bits.
With --answers a run that was cut goes on where it was. What the report already holds of other models and formats stays
in it. Ends with 1 where any format but int4 strays from f32.
"""

import argparse
import base64
import io
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "drawn"))

from cases import SEED, jobs, made, score

FORMATS = {
    "f32": ["--dtype", "f32"], "f16": ["--dtype", "f16"], "bf16": ["--dtype", "bf16"],
    "int8": ["--quantization", "int8"], "int4": ["--quantization", "int4"],
    "kv-int8": ["--kv-cache-dtype", "int8"], "kv-fp8": ["--kv-cache-dtype", "fp8"],
}
MODELS = {"tiny-llava": ["f32", "f16", "int8", "int4", "kv-int8", "kv-fp8"],
          "tiny-internvl": ["f32", "f16", "bf16", "int8", "int4", "kv-int8", "kv-fp8"]}
NAME, MAX_TOKENS, START_SECONDS, REPORT_SECONDS = "tiny", 96, 120, 15
POINTS, DIGITS = 0.5, 2  # how far 16 bits and int8 may be from f32: points of accuracy, differing digits


def request(job):
    """A case without its picture, and the body of the request that asks it: one body serves every model."""
    case = made(job)
    png = io.BytesIO()
    case.pop("image").save(png, "PNG", compress_level=1)
    url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    parts, messages = [{"type": "image_url", "image_url": {"url": url}}], []
    for question, answer in case["turns"]:
        messages.append({"role": "user", "content": parts + [{"type": "text", "text": question}]})
        parts = []
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
    body = {"model": NAME, "temperature": 0, "max_tokens": MAX_TOKENS, "messages": messages}
    return case, json.dumps(body, ensure_ascii=False).encode()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """One model in one format, by `copies` processes, and the answers that it has given: {number of the case: text}."""

    def __init__(self, folder, format, args, copies):
        self.model, self.format, self.ports, self.concurrency = folder.name, format, [free_port() for _ in range(copies)], args.concurrency
        self.seconds, self.error, self.lock, self.log = None, None, threading.Lock(), tempfile.TemporaryFile()
        self.kept = Path(args.answers) / f"{folder.name}-{format}.json" if args.answers else None
        held = self.kept and self.kept.exists() and json.loads(self.kept.read_text())
        self.answers = {int(number): text for number, text in held.items()} if held else {}
        environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads), TOKIO_WORKER_THREADS="2")
        self.processes = []
        for port in self.ports:
            line = [args.binary, "serve", "--model", folder / "model", "--served-model-name", NAME, "--host", "127.0.0.1", "--port", port,
                    "--max-concurrency", args.concurrency, "--drain-accept-seconds", 0, *FORMATS[format]]
            self.processes.append(subprocess.Popen([str(word) for word in line], env=environment, stdout=self.log, stderr=subprocess.STDOUT))

    def __str__(self):
        return f"{self.model} {self.format}"

    def connect(self, copy):
        return HTTPConnection("127.0.0.1", self.ports[copy % len(self.ports)], timeout=300)

    def ready(self):
        """Waits until every process has loaded the model."""
        deadline = time.time() + START_SECONDS
        for copy, process in enumerate(self.processes):
            while process.poll() is None and time.time() < deadline:
                try:
                    if fetch(self.connect(copy), "GET", "/ready")[0] == 200:
                        break
                except (OSError, HTTPException):
                    pass
                time.sleep(0.1)
            else:
                self.log.seek(0)
                raise SystemExit(f"{self} did not start:\n{self.log.read().decode(errors='replace')}")

    def ask(self, requests):
        """Asks what has no answer yet, `concurrency` requests at a time of each process; stops at the first error."""
        begun, numbers = time.time(), iter([n for n in range(len(requests)) if n not in self.answers])

        def work(copy):
            connection = self.connect(copy)
            while self.error is None:
                with self.lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    status, body = fetch(connection, "POST", "/v1/chat/completions", requests[number][1])
                except (OSError, HTTPException) as error:
                    status, body = 0, repr(error).encode()
                if status != 200:
                    self.error = f"{self} answered {status} to question {number}: {body.decode(errors='replace')[:500]}"
                    return
                answer = json.loads(body)["choices"][0]["message"]["content"]
                with self.lock:
                    self.answers[number] = answer

        workers = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(self.concurrency * len(self.ports))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.seconds = time.time() - begun

    def keep(self):
        """Writes the answers where `--answers` says, whole or not at all."""
        if self.kept:
            with self.lock:
                text = json.dumps(self.answers, ensure_ascii=False)
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            partial = self.kept.with_suffix(".partial")
            partial.write_text(text)
            partial.replace(self.kept)

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def fetch(connection, method, path, body=None):
    connection.request(method, path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def ask_all(servers, requests):
    """Asks all servers at once, with a line now and then on how far they are."""
    started = time.time()
    threads = [threading.Thread(target=server.ask, args=(requests,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in [thread for thread in threads if thread.is_alive()][:1]:
            thread.join(REPORT_SECONDS)
        done = ", ".join(f"{server} {len(server.answers)}" for server in servers)
        print(f"{time.time() - started:.0f} s of {len(requests)}: {done}", flush=True)
        for server in servers:
            server.keep()
    errors = [server.error for server in servers if server.error]
    if errors:
        raise SystemExit("\n".join(errors))


def run_of(server, requests, exact):
    """One entry of the report; `exact` is the same model's server in f32, if there was one."""
    found = [(case, server.answers[n]) for n, (case, _) in enumerate(requests)]
    kinds = score(found)
    run = dict(model=server.model, format=server.format, seconds=round(server.seconds), kinds=kinds)
    if exact:
        differ = [case["kind"] for n, (case, _) in enumerate(requests) if server.answers[n] != exact.answers[n]]
        base = score([(case, exact.answers[n]) for n, (case, _) in enumerate(requests)])
        run["against_f32"] = dict(
            points=round(100 * (share(kinds["all drawn"]) - share(base["all drawn"])), 2), differing_answers=len(differ),
            differing_digits=differ.count("handwriting"),
        )
    return run


def share(row):
    return row["right"] / row["total"]


def strays(run):
    """Whether a format that should hardly differ from f32 does."""
    off = run.get("against_f32")
    return bool(off) and run["format"] != "int4" and (abs(off["points"]) > POINTS or off["differing_digits"] > DIGITS)


def table(runs):
    yield f"{'model':14s} {'format':7s} {'drawn':>12s} {'':>8s} {'digits':>9s} {'':>8s} {'points from f32':>15s} {'answers':>8s} {'digits':>6s}"
    for run in runs:
        drawn, digits, off = run["kinds"]["all drawn"], run["kinds"]["handwriting"], run.get("against_f32")
        yield (f"{run['model']:14s} {run['format']:7s} {drawn['right']:6d}/{drawn['total']:5d} {share(drawn):8.2%} "
               f"{digits['right']:5d}/{digits['total']:3d} {share(digits):8.2%} "
               + (f"{off['points']:+15.2f} {off['differing_answers']:8d} {off['differing_digits']:6d}" if off else f"{'':31s}")
               + ("  too far from f32" if strays(run) else ""))


def joined(path, per_kind, runs):
    """These runs and those that the report holds of the same questions to other models and formats, in order."""
    before = json.loads(Path(path).read_text()) if Path(path).exists() else {}
    if (before.get("seed"), before.get("per_kind")) == (SEED, per_kind):
        new = {(run["model"], run["format"]) for run in runs}
        runs = runs + [run for run in before["runs"] if (run["model"], run["format"]) not in new]
    order = [(model, format) for model in MODELS for format in MODELS[model]]
    return sorted(runs, key=lambda run: order.index((run["model"], run["format"])))


def processor():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores"


def commit():
    asked = subprocess.run(["git", "-C", HERE, "rev-parse", "HEAD"], capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("binary", help="the program vlm-runtime")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--per-kind", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time to each process")
    parser.add_argument("--workers", type=int, default=max(1, cores - 1), help="processes that draw")
    parser.add_argument("--copies", type=int, help="processes of each server; by default all cores are used")
    parser.add_argument("--answers", help="folder that keeps the answers, for a run that may be cut")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process; more of them only wait for each other in models this small")
    parser.add_argument("--commit", help="what the binary was built from; by default what is checked out")
    parser.add_argument("--out", default=str(HERE / "evaluation_runtime.json"))
    args = parser.parse_args()
    wanted = [(model, format) for model in args.models for format in MODELS[model] if format in args.formats]
    started = time.time()
    with ProcessPoolExecutor(args.workers) as pool:
        requests = list(pool.map(request, jobs(args.per_kind), chunksize=16))
    print(f"drew {len(requests)} pictures in {time.time() - started:.0f} s, {sum(len(b) for _, b in requests) / 1e6:.0f} MB", flush=True)
    servers, copies = [], args.copies or max(1, cores // len(wanted))
    try:
        for model, format in wanted:
            servers.append(Server(HERE / model, format, args, copies))
        for server in servers:
            server.ready()
        print(f"{len(servers)} servers of {copies} processes are ready after {time.time() - started:.0f} s", flush=True)
        ask_all(servers, requests)
    finally:
        for server in servers:
            server.stop()
    exact = {server.model: server for server in servers if server.format == "f32"}
    runs = [run_of(server, requests, exact.get(server.model) if server.format != "f32" else None) for server in servers]
    for run in runs:
        run.update(commit=args.commit or commit(), device=processor(), concurrency=args.concurrency, copies=copies, threads=args.threads)
    runs = joined(args.out, args.per_kind, runs)
    report = dict(seed=SEED, per_kind=args.per_kind, decoding="greedy, exact match of the whole answer", runs=runs)
    Path(args.out).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(table(runs)))
    sys.exit(any(strays(run) for run in runs))


if __name__ == "__main__":
    main()
