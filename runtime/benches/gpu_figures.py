#!/usr/bin/env python3
"""The figures of one GPU, beside what its memory allows and what they must be.

    python3 runtime/benches/gpu_figures.py BINARY [PART…] [--kinds batches served] [--out FOLDER]

BINARY is vlm-runtime (`make cuda`). PARTs are those of PARTS, all by default. Writes figures-DEVICE.json and .md into results/ or
FOLDER, after every run anew: what is in the file already from the same commit is not measured again, so that it can be made in
parts. Random weights at real size, by `vlm-runtime bench`: `latency` of five batches, whose decoding is the middle of
them; `throughput` of distinct pictures; `serving` at random moments, at shares of the rate that `throughput` has reached."""

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SEVEN, THIRTEEN, INTERN = "llava-1.5-7b-hf", "llava-1.5-13b-hf", "InternVL3-8B-hf"
SMALL, TILES = "336x336", "1344x896"
# Of whole batches: model, size of the picture, flags, and tokens a second that each batch must reach on an H200.
PARTS = {
    "7b": (SEVEN, SMALL, [], {1: 268, 8: 1794, 16: None, 32: 4605, 64: 6233}),
    "7b-int8": (SEVEN, SMALL, ["--quantization", "int8"], {1: 430, 8: 2500, 32: 5000, 64: 6900}),
    "7b-int8-kv8": (SEVEN, SMALL, ["--quantization", "int8", "--kv-cache-dtype", "int8"], {8: None, 64: 8300}),
    "7b-fp8-kv": (SEVEN, SMALL, ["--kv-cache-dtype", "fp8"], {8: None, 64: None}),
    "7b-int4": (SEVEN, SMALL, ["--quantization", "int4"], {1: 655, 8: None}),
    "internvl3": (INTERN, TILES, [], {1: 255, 8: 1938, 32: 6588, 64: 10980}),
    "13b": (THIRTEEN, SMALL, [], {1: 138, 8: 957, 32: 2612, 64: 3671}),
}
# Milliseconds to the first token of a batch of one; pictures a second with so many requests at a time.
FIRST_MS = {"7b": 20, "internvl3": 60}
PICTURES = {"7b": (128, 44), "internvl3": (64, 20)}
BATCHES, TEXT, ANSWER, SHORT_ANSWER = 5, 64, 128, 64
SHARES, SERVED = [0.5, 0.8, 0.95], 600


def bench(binary: str, part: str, flags: list[str]) -> dict:
    model, size, own, _ = PARTS[part]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        # From the root, so that results name no folder of this machine.
        command = [binary, "bench", "--model", f"catalog/tests/models/{model}.json", "--dummy-weights", "--prompt-tokens", str(TEXT),
                   "--image-size", size, *own, *flags, "--json", str(out)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if ended.returncode:
            raise SystemExit(f"{part}: {(ended.stderr.strip().splitlines() or ['?'])[-1]}")
        return json.loads(out.read_text())


def batches(binary: str, part: str) -> list[dict]:
    sizes = list(PARTS[part][3])
    requests = ",".join(str(BATCHES * size) for size in sizes)
    flags = ["--batch", ",".join(map(str, sizes)), "--requests", requests, "--output-tokens", str(ANSWER)]
    result = bench(binary, part, flags)
    return [{key: value for key, value in result.items() if key != "runs"} | {"run": run} for run in result["runs"]]


def served(binary: str, part: str) -> list[dict]:
    """Pictures a second, and what users wait for at shares of that."""
    at_a_time, _ = PICTURES[part]
    flags = ["--batch", str(at_a_time), "--output-tokens", str(SHORT_ANSWER), "--requests"]
    most = bench(binary, part, ["--mode", "throughput", *flags, str(SERVED)])
    results, rate = [most], most["runs"][0]["requests_per_second"]
    for share in SHARES:
        mode = ["--mode", "serving", "--request-rate", f"{share * rate:.2f}"]
        results.append(bench(binary, part, [*mode, *flags, str(SERVED)]) | {"share": share})
    return [{key: value for key, value in result.items() if key != "runs"} | {"run": result["runs"][0]} for result in results]


def against(value: float, must: float | None, less: bool = False) -> str:
    if must is None:
        return f"{value:.0f}"
    return f"{value:.0f} ({'must' if (value <= must if less else value >= must) else 'short of'} {must})"


def quantiles(times: dict) -> str:
    return " / ".join(f"{times[name]:.0f}" for name in ("p50", "p95", "p99"))


def write(folder: Path, title: str, results: dict) -> None:
    (folder / f"figures-{title}.json").write_text(json.dumps(results, indent=1) + "\n")
    every = [result for part in results.values() for kind in part.values() for result in kind]
    commits = sorted({result["program"]["commit"] or "unknown" for result in every})
    reads = sorted(result["read_bytes_per_second"] / 1e9 for result in every)
    lines = [f"Random weights on {every[0]['device']}, commit {', '.join(commits)}, by runtime/benches/gpu_figures.py. It reads",
             f"{reads[0]:.0f} to {reads[-1]:.0f} GB/s. Prompts of {TEXT} tokens and a picture, answers of {ANSWER} tokens. Tokens a second while a",
             f"whole batch decodes, the middle of {BATCHES} batches; which part of what reading weights, keys and values once a step allows",
             "that is; and the time to the first token, the middle and the last of a batch's.", "",
             "| part | batch | tokens/s | of the limit | first token ms | last of a batch ms |", "|---|---|---|---|---|---|"]
    for part, kinds in results.items():
        for run in (result["run"] for result in kinds.get("batches", [])):
            first = run["first_token_ms"]["p50"]
            cell = against(first, FIRST_MS.get(part), True) if run["batch"] == 1 else f"{first:.0f}"
            lines.append(f"| {part} | {run['batch']} | {against(run['decode']['tokens_per_second'], PARTS[part][3][run['batch']])} | "
                         f"{run['limit']['percent']:.0f} % | {cell} | {run['decode']['all_first_tokens_ms']:.0f} |")
    lines += ["", f"Distinct pictures, answers of {SHORT_ANSWER} tokens: as many a second as so many requests at a time reach, and at shares of",
              "that, at random moments, what those who ask wait for (p50 / p95 / p99).", "",
              "| part | at a time | load | pictures/s | first token ms | between tokens ms |", "|---|---|---|---|---|---|"]
    for part, kinds in results.items():
        for result in kinds.get("served", []):
            run, share = result["run"], result.get("share")
            pictures = f"{run['images_per_second']:.1f}" if share else against(run["images_per_second"], PICTURES[part][1])
            lines.append(f"| {part} | {PICTURES[part][0]} | {f'{share:.0%}' if share else 'all'} | {pictures} | "
                         f"{quantiles(run['first_token_ms'])} | {quantiles(run['inter_token_ms'])} |")
    (folder / f"figures-{title}.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    kinds = {"batches": batches, "served": served}
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    if wrong := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {wrong.pop()}; there are {', '.join(PARTS)}")
    binary = str(Path(args.binary).resolve())
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run([binary, "bench", "--mode", "bandwidth", "--json", out.name], check=True, capture_output=True)
        memory = json.loads(Path(out.name).read_text())
    title, commit = re.sub(r"[^a-z0-9]+", "-", memory["device"].lower()), memory["program"]["commit"]
    file = args.out / f"figures-{title}.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for part in args.parts or PARTS:
        for kind in args.kinds:
            held = results.get(part, {}).get(kind)
            if kind == "served" and part not in PICTURES or held and held[0]["program"]["commit"] == commit:
                continue
            results.setdefault(part, {})[kind] = kinds[kind](binary, part)
            write(args.out, title, results)
            print(f"{part}: {kind} measured", flush=True)


if __name__ == "__main__":
    main()
