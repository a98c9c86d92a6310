#!/usr/bin/env python3
"""One step of decoding, and one of reading prompts and pictures, kernel by kernel on a GPU.

    python3 runtime/benches/gpu_steps.py BINARY [--model NAME] [--batches N…] [--flags=…] [--out FOLDER]

BINARY is vlm-runtime (`make cuda`); NAME is a file of catalog/tests/models without `.json`. Needs `ncu`, by which every kernel
runs alone, after what it reads has left the caches: times are without what kernels do while others end. Writes
steps-NAME.json and .md into results/ or FOLDER: launches, time and bytes that are read of each kernel, which part of the read
bandwidth that is, and of the step beside the time that a step takes where nobody watches."""

import argparse
import csv
import json
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TEXT, ANSWER = 64, 64
TIME, READ = "gpu__time_duration.sum", "dram__bytes_read.sum"
UNITS = {"ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3, "s": 1.0, "second": 1.0,
         "byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
# What ends a step: the choice of its tokens. What begins the reading of a picture: the first rows of its tower.
END, PICTURE = "choose", "stem"


def command(binary: str, args, batch: int, out: Path) -> list[str]:
    size = "1344x896" if args.model.startswith("InternVL") else "336x336"
    return [binary, "bench", "--model", f"catalog/tests/models/{args.model}.json", "--dummy-weights", "--device", "cuda", "--batch",
            str(batch), "--requests", str(batch), "--prompt-tokens", str(TEXT), "--image-size", size, "--output-tokens", str(ANSWER),
            "--json", str(out), *args.flags.split()]


def launches(binary: str, args, batch: int, folder: Path) -> list[dict]:
    """Every kernel in the order of launches: its name, its seconds, the bytes that it reads."""
    log = folder / "ncu.csv"
    watched = ["ncu", "--profile-from-start", "off", "--clock-control", "none", "--metrics", f"{TIME},{READ}", "--csv",
               "--log-file", str(log)]
    # What is measured beside that is as little as can be.
    subprocess.run([*watched, *command(binary, args, batch, folder / "watched.json"), "--profile"], cwd=ROOT, check=True,
                   capture_output=True)
    rows = csv.DictReader(line for line in log.read_text().splitlines() if line.startswith('"'))
    found: dict[str, dict] = {}
    for row in rows:
        launch = found.setdefault(row["ID"], {"kernel": row["Kernel Name"].split("(")[0], "grid": row["Grid Size"]})
        launch[row["Metric Name"]] = float(row["Metric Value"].replace(",", "")) * UNITS[row["Metric Unit"]]
    return [launch for _, launch in sorted(found.items(), key=lambda item: int(item[0]))]


def segments(every: list[dict]) -> list[list[dict]]:
    """Launches up to each choice of tokens."""
    parts, part = [], []
    for launch in every:
        part.append(launch)
        if END in launch["kernel"]:
            parts.append(part)
            part = []
    return parts


def grouped(part: list[dict], bandwidth: float) -> list[dict]:
    groups: dict[tuple, list[dict]] = {}
    for launch in part:
        groups.setdefault((launch["kernel"], launch["grid"]), []).append(launch)
    rows = []
    for (kernel, grid), all_of in groups.items():
        seconds, read = sum(launch[TIME] for launch in all_of), sum(launch[READ] for launch in all_of)
        rows.append({"kernel": kernel, "grid": grid, "launches": len(all_of), "seconds": seconds, "read_bytes": read,
                     "of_bandwidth": read / seconds / bandwidth})
    return sorted(rows, key=lambda row: -row["seconds"])


def measure(binary: str, args, batch: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(command(binary, args, batch, folder / "alone.json"), cwd=ROOT, check=True, capture_output=True)
        alone = json.loads((folder / "alone.json").read_text())
        parts = segments(launches(binary, args, batch, folder))
    bandwidth, run = alone["read_bytes_per_second"], alone["runs"][0]
    read = [part for part in parts if any(PICTURE in launch["kernel"] for launch in part)]
    return {"batch": batch, "device": alone["device"], "commit": alone["program"]["commit"], "read_bytes_per_second": bandwidth,
            "step_seconds": batch / run["decode"]["tokens_per_second"], "first_token_ms": run["first_token_ms"]["p50"],
            "limit_seconds": batch / run["limit"]["tokens_per_second"],
            "decode": grouped(parts[-1], bandwidth), "read": grouped(read[-1], bandwidth)}


def table(rows: list[dict]) -> list[str]:
    lines = ["| kernel | grid | launches | µs | of all | MB read | of the bandwidth |", "|---|---|---|---|---|---|---|"]
    total = sum(row["seconds"] for row in rows)
    for row in rows:
        lines.append(f"| `{row['kernel']}` | {row['grid'].replace('|', '')} | {row['launches']} | {row['seconds'] * 1e6:.1f} | "
                     f"{row['seconds'] / total:.1%} | {row['read_bytes'] / 1e6:.1f} | {row['of_bandwidth']:.0%} |")
    return lines


def write(folder: Path, model: str, results: list[dict]) -> None:
    (folder / f"steps-{model}.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = [f"{model} with random weights on {results[0]['device']}, commit {results[0]['commit'] or 'unknown'}, by "
             "runtime/benches/gpu_steps.py: each", "kernel alone (`ncu`), its launches of one step together; the step beside that as it "
             "is where nobody watches."]
    for result in results:
        alone = sum(row["seconds"] for row in result["decode"])
        lines += ["", f"## Decoding {result['batch']}", "", f"A step takes {result['step_seconds'] * 1e3:.3f} ms, its kernels alone "
                  f"{alone * 1e3:.3f} ms, reading weights, keys and values once {result['limit_seconds'] * 1e3:.3f} ms at "
                  f"{result['read_bytes_per_second'] / 1e9:.0f} GB/s.", "", *table(result["decode"]), "",
                  "## Reading a prompt and its picture", "", f"The middle first token of a batch comes after {result['first_token_ms']:.1f} ms; the kernels "
                  "of the last step of one alone:", "", *table(result["read"])]
    (folder / f"steps-{model}.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--model", default="llava-1.5-7b-hf")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--flags", default="", help="more flags of bench, such as --quantization int8")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    binary, results = str(Path(args.binary).resolve()), []
    for batch in args.batches:
        results.append(measure(binary, args, batch))
        write(args.out, args.model, results)
        print(f"batch {batch} measured", flush=True)


if __name__ == "__main__":
    main()
