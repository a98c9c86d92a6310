#!/usr/bin/env python3
"""Loads every model of the registry at its real size with random weights, from its description alone, and decodes.

    python3 runtime/benches/models.py BINARY [NAME...] [--seconds N] [--out FOLDER]

BINARY is vlm-runtime (`make cuda`); NAMEs are files of catalog/tests/models without `.json`, one of every geometry by
default (those that share one are listed in catalog/tests/registry/table.rs). Writes models-DEVICE.json and .md into results/
or FOLDER, after every model anew: seconds of loading, bytes as predicted and as measured, tokens a second at batch 1 and 32.
What is in the file already is not measured again, and after --seconds no other model begins, so that a long measurement
can be made in parts. A model that does not fit says so in its row."""

import argparse
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CATALOG = ROOT / "catalog/tests"
QUANTIZATIONS = ["none", "int8", "int4"]
# Long enough that the first answer of 32 goes on when the last begins.
WORK = ["--prompt-tokens", "64", "--images", "1", "--image-size", "336x336", "--output-tokens", "64"]
# A sequence alone and a batch of 32; where those do not fit, the one alone.
BATCHES = [["--batch", "1,32", "--requests", "1,32"], ["--batch", "1", "--requests", "1"]]
NOT_ENOUGH_MEMORY = 34


def geometries() -> list[list[str]]:
    """The names of the registry, those of one geometry together, small models first."""
    text = (CATALOG / "registry/table.rs").read_text()
    rows = re.findall(r"&\[((?:\"[\w.-]+\",?\s*)+)\],\s*\"([\d.]+)\"", text)
    rows = sorted((float(billions), re.findall(r"\"([\w.-]+)\"", names)) for names, billions in rows)
    return [names for _, names in rows]


def measure(binary: str, name: str, quantization: str) -> dict:
    """The results of one run, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        said = []
        for batches in BATCHES:
            # From the root, so that results name no folder of this machine.
            command = [binary, "bench", "--model", f"catalog/tests/models/{name}.json", "--dummy-weights",
                       "--quantization", quantization, *batches, "--json", str(out), *WORK]
            ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if ended.returncode == 0:
                return json.loads(out.read_text())
            said = ended.stderr.strip().splitlines()
            if ended.returncode != NOT_ENOUGH_MEMORY:
                break
        return {"exit": ended.returncode, "why": said[-1] if said else ""}


def giga(count: float | None) -> str:
    return "–" if count is None else f"{count / 1e9:.2f}"


def cells(result: dict) -> list[str]:
    if "exit" in result:
        return ["–"] * 6 + (["does not fit"] * 2 if result["exit"] == NOT_ENOUGH_MEMORY else [f"exit {result['exit']}"] * 2)
    memory, runs = result["memory"], {run["batch"]: run for run in result["runs"]}

    def speed(batch: int) -> str:
        run = runs.get(batch)
        if not run:
            return "does not fit"
        decode = run["decode"]
        return f"{decode['tokens_per_second']:.0f} ({run['limit']['percent']:.0f} %)" if decode else "–"

    return [f"{result['model']['load_seconds']:.1f}", giga(memory["predicted_weights_bytes"]), giga(memory["weights_bytes"]),
            giga(memory["predicted_without_kv_bytes"]), giga(memory["without_kv_bytes"]), giga(memory["kv_bytes"]),
            speed(1), speed(32)]


def write(folder: Path, title: str, device: str, results: list[dict]) -> None:
    (folder / f"models-{title}.json").write_text(json.dumps(results, indent=1) + "\n")
    commits = sorted({(r.get("program") or {}).get("commit") or "unknown" for r in results if "exit" not in r})
    columns = ["model", "quantization", "start s", "weights predicted GB", "held GB", "all but KV predicted GB",
               "measured GB", "KV GB", "batch 1 tok/s", "batch 32 tok/s"]
    lines = [f"Random weights on {device}, commit {', '.join(commits)}: seconds from the opening of the device to a warm",
             "engine; gigabytes of the weights as the check before loading reckons and as held; of everything but keys and",
             "values, as the fit of the operator reckons for pictures of the largest kind, and as the device shows (here with",
             "small ones); tokens a second while a whole batch decodes, and which part of what reading weights and KV cache once",
             "a step allows that is. Prompts of 64 tokens and a picture of 336x336, answers of 64 tokens. Models of a row have",
             "one geometry, but for up to 64 rows of the vocabulary; the first is measured.", "",
             f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for result in results:
        names = ", ".join([result["name"], *result["alike"]])
        lines.append(f"| {names} | {result['quantization']} | {' | '.join(cells(result))} |")
    (folder / f"models-{title}.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    args.binary = str(Path(args.binary).resolve())
    end = time.monotonic() + args.seconds
    bandwidth = subprocess.run([args.binary, "bench", "--mode", "bandwidth"], capture_output=True, text=True, check=True)
    device = re.search(r"\| bandwidth +\| (.*?) +\|", bandwidth.stdout)[1]
    title = re.sub(r"[^a-z0-9]+", "-", device.lower())
    file = args.out / f"models-{title}.json"
    results = json.loads(file.read_text()) if file.exists() else []
    done = {(result["name"], result["quantization"]) for result in results}
    groups = [[name] for name in args.names] or geometries()
    for first, *alike in groups:
        for quantization in QUANTIZATIONS:
            if (first, quantization) in done or time.monotonic() > end:
                continue
            result = measure(args.binary, first, quantization)
            results.append({"name": first, "alike": alike, "quantization": quantization} | result)
            write(args.out, title, device, results)
            print(f"| {first} | {quantization} | {' | '.join(cells(result))} |", flush=True)


if __name__ == "__main__":
    main()
