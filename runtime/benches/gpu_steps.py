#!/usr/bin/env python3
"""One step of decoding, and one of reading prompts and pictures, kernel by kernel on a GPU.

    python3 runtime/benches/gpu_steps.py BINARY [--model NAME] [--batches N…] [--flags=…] [--out FOLDER]

BINARY is vlm-runtime (`make cuda`); NAME is a file of catalog/tests/models without `.json`. Needs `ncu`, by which every kernel
runs alone, after what it reads has left the caches: times are without what kernels do while others end. Writes
steps-NAME.json and .md into results/ or FOLDER: launches, time, bytes that are read and operations on tensor cores of each
kernel, which part of the read bandwidth and of the rate of a large product by torch (where there is torch) that is, and of the
step beside the time that a step takes where nobody watches."""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TEXT, ANSWER = 64, 64
TIME, READ = "gpu__time_duration.sum", "dram__bytes_read.sum"
UNITS = {"ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3, "s": 1.0, "second": 1.0,
         "byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
# Of counts, which have no unit or begin with such a letter.
THOUSANDS = {"": 1.0, "i": 1.0, "o": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
# Multiplications and additions on tensor cores, by what they multiply; those that a GPU counts.
OPERATIONS = ["sm__ops_path_tensor_src_fp16_dst_fp32", "sm__ops_path_tensor_src_bf16_dst_fp32", "sm__ops_path_tensor_src_int8"]
# Operations a second of the largest product: the middle of some.
PRODUCT = """
import statistics, sys, torch
a, b = (torch.randn(8192, 8192, device="cuda", dtype=getattr(torch, sys.argv[1])) for _ in range(2))
seconds = []
for _ in range(12):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record(), a @ b, end.record(), end.synchronize()
    seconds.append(begin.elapsed_time(end) / 1e3)
print(2 * 8192**3 / statistics.median(seconds[2:]))
"""
# What ends a step: the choice of its tokens. What begins the reading of a picture: the first rows of its tower.
END, PICTURE = "choose", "stem"


def command(binary: str, args, batch: int, out: Path) -> list[str]:
    size = "1344x896" if args.model.startswith("InternVL") else "336x336"
    return [binary, "bench", "--model", f"catalog/tests/models/{args.model}.json", "--dummy-weights", "--device", "cuda", "--batch",
            str(batch), "--requests", str(batch), "--prompt-tokens", str(TEXT), "--image-size", size, "--output-tokens", str(ANSWER),
            "--json", str(out), *args.flags.split()]


def counted() -> list[str]:
    """Those of OPERATIONS that this GPU has counters for."""
    known = subprocess.run(["ncu", "--query-metrics"], capture_output=True, text=True, check=True).stdout
    return [f"{name}.sum" for name in OPERATIONS if re.search(rf"^{name}\b", known, re.MULTILINE)]


def product(dtype: str) -> float | None:
    """Operations a second of a large product in `dtype`; nothing where there is no torch."""
    ended = subprocess.run([sys.executable, "-c", PRODUCT, {"f16": "float16"}.get(dtype, "bfloat16")], capture_output=True, text=True)
    return float(ended.stdout) if ended.returncode == 0 else None


def launches(binary: str, args, batch: int, folder: Path) -> list[dict]:
    """Every kernel in the order of launches: its name, its seconds, the bytes that it reads, its operations."""
    log = folder / "ncu.csv"
    metrics = [TIME, READ, *counted()]
    watched = ["ncu", "--profile-from-start", "off", "--clock-control", "none", "--metrics", ",".join(metrics), "--csv",
               "--log-file", str(log)]
    # What is measured beside that is as little as can be.
    subprocess.run([*watched, *command(binary, args, batch, folder / "watched.json"), "--profile"], cwd=ROOT, check=True,
                   capture_output=True)
    rows = csv.DictReader(line for line in log.read_text().splitlines() if line.startswith('"'))
    found: dict[str, dict] = {}
    for row in rows:
        launch = found.setdefault(row["ID"], {"kernel": row["Kernel Name"].split("(")[0], "grid": row["Grid Size"]})
        name, value = row["Metric Name"], float(row["Metric Value"].replace(",", ""))
        if name in (TIME, READ):
            launch[name] = value * UNITS[row["Metric Unit"]]
        else:
            launch["operations"] = launch.get("operations", 0.0) + value * THOUSANDS[row["Metric Unit"][:1]]
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


def grouped(part: list[dict], bandwidth: float, rate: float | None) -> list[dict]:
    groups: dict[tuple, list[dict]] = {}
    for launch in part:
        groups.setdefault((launch["kernel"], launch["grid"]), []).append(launch)
    rows = []
    for (kernel, grid), all_of in groups.items():
        seconds, read = sum(launch[TIME] for launch in all_of), sum(launch[READ] for launch in all_of)
        operations = sum(launch.get("operations", 0.0) for launch in all_of)
        rows.append({"kernel": kernel, "grid": grid, "launches": len(all_of), "seconds": seconds, "read_bytes": read,
                     "of_bandwidth": read / seconds / bandwidth, "operations": operations,
                     "of_rate": operations / seconds / rate if rate else None})
    return sorted(rows, key=lambda row: -row["seconds"])


def measure(binary: str, args, batch: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(command(binary, args, batch, folder / "alone.json"), cwd=ROOT, check=True, capture_output=True)
        alone = json.loads((folder / "alone.json").read_text())
        parts = segments(launches(binary, args, batch, folder))
    bandwidth, run, rate = alone["read_bytes_per_second"], alone["runs"][0], product(alone["model"]["dtype"])
    read = [part for part in parts if any(PICTURE in launch["kernel"] for launch in part)]
    return {"batch": batch, "device": alone["device"], "commit": alone["program"]["commit"], "read_bytes_per_second": bandwidth,
            "operations_per_second": rate, "step_seconds": batch / run["decode"]["tokens_per_second"], "first_token_ms": run["first_token_ms"]["p50"],
            "limit_seconds": batch / run["limit"]["tokens_per_second"],
            "decode": grouped(parts[-1], bandwidth, rate), "read": grouped(read[-1], bandwidth, rate)}


def table(rows: list[dict]) -> list[str]:
    lines = ["| kernel | grid | launches | µs | of all | MB read | of the bandwidth | GFLOP | of the rate |",
             "|---|---|---|---|---|---|---|---|---|"]
    total = sum(row["seconds"] for row in rows)
    for row in rows:
        lines.append(f"| `{row['kernel']}` | {row['grid'].replace('|', '')} | {row['launches']} | {row['seconds'] * 1e6:.1f} | "
                     f"{row['seconds'] / total:.1%} | {row['read_bytes'] / 1e6:.1f} | {row['of_bandwidth']:.0%} | {row['operations'] / 1e9:.2f} | "
                     f"{'–' if row['of_rate'] is None else format(row['of_rate'], '.0%')} |")
    return lines


def write(folder: Path, model: str, results: list[dict]) -> None:
    (folder / f"steps-{model}.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = [f"{model} with random weights on {results[0]['device']}, commit {results[0]['commit'] or 'unknown'}, by "
             "runtime/benches/gpu_steps.py: each", "kernel alone (`ncu`), its launches of one step together; the step beside that as it "
             "is where nobody watches. GFLOP are those on tensor cores."]
    for result in results:
        alone = sum(row["seconds"] for row in result["decode"])
        lines += ["", f"## Decoding {result['batch']}", "", f"A step takes {result['step_seconds'] * 1e3:.3f} ms, its kernels alone "
                  f"{alone * 1e3:.3f} ms, reading weights, keys and values once {result['limit_seconds'] * 1e3:.3f} ms at "
                  f"{result['read_bytes_per_second'] / 1e9:.0f} GB/s.", "", *table(result["decode"]), "",
                  "## Reading a prompt and its picture", "", f"The middle first token of a batch comes after {result['first_token_ms']:.1f} ms. "
                  + (f"A large product by torch reaches {rate / 1e12:.0f} TFLOP/s. " if (rate := result["operations_per_second"]) else "")
                  + "The kernels of the last step of one alone:", "", *table(result["read"])]
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
