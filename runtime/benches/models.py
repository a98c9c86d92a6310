#!/usr/bin/env python3
"""Loads models at their real sizes with random weights, from their descriptions alone, and decodes.

    python3 runtime/benches/models.py BINARY [NAME...]

BINARY is vlm-runtime (`make cuda`); NAMEs are files of catalog/tests/models without `.json`, all by default. Writes
results/models-DEVICE.json and .md: seconds of loading, bytes of the weights as predicted and as held, most memory taken,
tokens a second at batch 1 and 32. A model that does not fit says so in its row."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "catalog/tests/models"
QUANTIZATIONS = ["none", "int8", "int4"]
BATCHES = [1, 32]
WORK = ["--prompt-tokens", "64", "--images", "1", "--image-size", "448x448", "--output-tokens", "64"]
NOT_ENOUGH_MEMORY = 34


def measure(binary: str, name: str, quantization: str, batch: int) -> dict:
    """The results of one run, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        Path(folder, "config.json").write_bytes((MODELS / f"{name}.json").read_bytes())
        command = [binary, "bench", "--model", folder, "--dummy-weights", "--quantization", quantization]
        command += ["--batch", str(batch), "--requests", str(batch * 2), "--json", str(out), *WORK]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            said = ended.stderr.strip().splitlines()
            return {"exit": ended.returncode, "why": said[-1] if said else ""}
        return json.loads(out.read_text())


def giga(count: float) -> str:
    return f"{count / 1e9:.2f}"


def row(name: str, quantization: str, results: list[dict]) -> str:
    first = next((r for r in results if "exit" not in r), None)
    runs = [r["runs"][0] if "exit" not in r else r for r in results]
    speeds = [f"{run['decode']['tokens_per_second']:.1f} ({run['limit']['percent']:.0f} %)" if "exit" not in run
              else "does not fit" if run["exit"] == NOT_ENOUGH_MEMORY else f"exit {run['exit']}" for run in runs]
    if not first:
        return f"| {name} | {quantization} | | | | | {' | '.join(speeds)} |"
    memory, peak = first["memory"], max(r["memory"]["peak_bytes"] or 0 for r in results if "exit" not in r)
    cells = [giga(memory["predicted_weights_bytes"]), giga(memory["weights_bytes"]), giga(peak), *speeds]
    return f"| {name} | {quantization} | {first['model']['load_seconds']:.1f} | {' | '.join(cells)} |"


def main() -> None:
    binary, *names = sys.argv[1:]
    names = names or sorted(path.stem for path in MODELS.glob("*.json"))
    everything, rows = [], []
    for name in names:
        for quantization in QUANTIZATIONS:
            results = [measure(binary, name, quantization, batch) for batch in BATCHES]
            everything += [r | {"name": name, "quantization": quantization, "batch": b} for r, b in zip(results, BATCHES)]
            rows.append(row(name, quantization, results))
            print(rows[-1], flush=True)
    device = next((r["device"] for r in everything if "device" in r), "none")
    title = device.lower().replace(" ", "-").replace(",", "")
    table = [f"Random weights on {device}: loading in seconds, GB of the weights as predicted and as held, most memory",
             "taken at batch 32, tokens a second while a whole batch decodes, and which part of what reading the weights and",
             "the KV cache once a step allows that is. Prompts of 64 tokens and a picture of 448x448, answers of 64 tokens.",
             "", "| model | quantization | load s | predicted GB | held GB | most GB | batch 1 | batch 32 |",
             "|---|---|---|---|---|---|---|---|", *rows]
    results = HERE / "results"
    (results / f"models-{title}.json").write_text(json.dumps(everything, indent=1) + "\n")
    (results / f"models-{title}.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
