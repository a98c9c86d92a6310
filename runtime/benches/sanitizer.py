#!/usr/bin/env python3
"""The kernels under NVIDIA's compute-sanitizer: accesses out of bounds, races in shared memory, reads of what nobody wrote.

    python3 runtime/benches/sanitizer.py BINARY TESTS [--tools memcheck racecheck initcheck] [--seconds N] [--at-a-time N]
        [--out FOLDER]

BINARY is vlm-runtime (`make cuda`), TESTS the test program gpu of the same build (`make cuda-test` says where it is).
memcheck watches every test of an op and a model of every kind with its reference (`verify`); racecheck and initcheck one
case of every op. Writes sanitizer.json and .md into results/ or FOLDER, after every row anew; a row that takes longer than
--seconds (300) says so. What is in the file already without a finding, from the same commit, is not watched again. Exits 1 if
there is a finding, or a row that could not be watched.

initcheck seems not to see what cuBLAS leaves for the kernel with which it adds up parts of a product, and calls its reads
uninitialised. They are findings like others unless torch, in the same run, has them in products of its own."""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ["memcheck", "racecheck", "initcheck"]
# What comes back from the GPU is compared number by number by the tests themselves; initcheck does not see what cuBLAS writes by
# bulk copies.
MORE = {"initcheck": ["--check-api-memory-access", "no"]}
# The modules with the tests of ops, and those elsewhere.
OPS = ["attention::", "decoder::", "linear::", "quantised::", "rows::"]
OTHERS = ["models::tokens_are_fed_as_the_cpu_does"]
MODELS = ["llava15_llama_hub", "llava_next_mistral_hub", "internvl2_internlm2_chat", "internvl2_phi3_short_chat",
          "internvl3_qwen2_hub"]
# Reads of what initcheck did not see written, and those among them of sums of parts by cuBLAS.
READ = r"Uninitialized __global__ memory read[^\n]*\n=+\s+at "
OF_CUBLAS = READ + r"void cublasLt::splitKreduce_kernel<"
CONTROL_NAME = "the same products by torch"
CONTROL = """
import torch
for dtype in [torch.float16, torch.bfloat16]:
    w = torch.randn(24, 18944, device="cuda", dtype=dtype)
    for rows in [13, 16, 33, 64]:
        x = torch.randn(rows, 18944, device="cuda", dtype=dtype)
        torch.mm(x, w.t(), out_dtype=torch.float32)
torch.cuda.synchronize()
"""
SUMMARIES = [r"ERROR SUMMARY: (\d+) error", r"RACECHECK SUMMARY: (\d+) hazard"]


def tests(program: str) -> list[str]:
    """The names of the tests of ops."""
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^(\S+): test$", listed, re.MULTILINE)
    return [name for name in names if name in OTHERS or any(name.startswith(module) for module in OPS)]


def watch(tool: str, command: list[str], few: bool, seconds: float) -> dict:
    """Findings of `tool` in `command`, or why there is no number."""
    # Kernels of CUDA's libraries are watched as well.
    line = ["compute-sanitizer", "--tool", tool, "--print-limit", "100000", *MORE.get(tool, []), *command]
    # Memory of recorded steps lies in a pool that keeps what was given back, which no tool knows.
    environment = os.environ | {"VLM_CUDA_GRAPHS": "0"} | ({"VLM_TEST_FEW": "1"} if few else {})
    begun = time.monotonic()
    try:
        ended = subprocess.run(line, capture_output=True, text=True, timeout=seconds, cwd=ROOT, env=environment)
    except subprocess.TimeoutExpired:
        return {"why": f"not done in {seconds:.0f} s"}
    said = ended.stdout + ended.stderr
    found = [int(match[1]) for summary in SUMMARIES for match in re.finditer(summary, said)]
    row = {"seconds": time.monotonic() - begun}
    if not found:
        return row | {"why": "no summary", "said": said[-1500:]}
    if "not tested, there is no GPU" in said:
        return row | {"why": "no GPU was found"}
    if ended.returncode and not sum(found):
        return row | {"why": f"exit {ended.returncode}", "said": said[-1500:]}
    of_cublas = len(re.findall(OF_CUBLAS, said))
    # Only where all are printed it is known which they are.
    own = sum(found) - (of_cublas if len(re.findall(READ, said)) == sum(found) else 0)
    said = {"said": said[:3000]} if own else {}
    return row | {"findings": own} | ({"of_cublas": sum(found) - own} if sum(found) > own else {}) | said


def control(rows: list[dict]) -> int:
    """How often cuBLAS does that where there is none of the project's kernels; 0 if that was not watched."""
    return next((row.get("of_cublas", 0) for row in rows if row["what"] == CONTROL_NAME), 0)


def findings(row: dict, rows: list[dict]) -> int | None:
    """Those of a row, without what the control has as well; nothing where it could not be watched."""
    if "findings" not in row:
        return None
    return row["findings"] + (0 if control(rows) else row.get("of_cublas", 0))


def write(folder: Path, about: dict, rows: list[dict]) -> None:
    (folder / "sanitizer.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    counted = sum(row.get("of_cublas", 0) for row in rows if row["what"] != CONTROL_NAME)
    apart = []
    if counted and control(rows):
        apart = ["", f"initcheck says {counted} times that cuBLAS's splitKreduce_kernel reads what nobody wrote, and as well "
                 f"{control(rows)} times", "of torch's own products in such sizes: those are not counted."]
    lines = [f"{about['version']} on {about['device']}, commit {about['commit']}. memcheck: every test of an op, and a",
             "model of every kind against its reference; racecheck and initcheck: one case of every op. Findings in all of",
             "the project's, candle's and cuBLAS's kernels that run.", *apart, "",
             "| tool | what | findings | seconds |", "|---|---|---|---|"]
    for row in rows:
        # By a program that has none of the project's kernels.
        if row["what"] == CONTROL_NAME:
            continue
        seconds = f"{row['seconds']:.0f}" if "seconds" in row else "–"
        lines.append(f"| {row['tool']} | {row['what']} | {row.get('why') if (n := findings(row, rows)) is None else n} | {seconds} |")
    (folder / "sanitizer.md").write_text("\n".join(lines) + "\n")
    print(lines[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("tests")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--at-a-time", type=int, default=1, help="programs that are watched at the same time")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    binary, program = (str(Path(path).resolve()) for path in [args.binary, args.tests])
    bandwidth = subprocess.run([binary, "bench", "--mode", "bandwidth", "--device", "cuda", "--json", "/dev/stderr"],
                               capture_output=True, text=True, check=True)
    report = json.loads(bandwidth.stderr[bandwidth.stderr.index("{"):])
    version = subprocess.run(["compute-sanitizer", "--version"], capture_output=True, text=True, check=True).stdout
    version = "compute-sanitizer " + re.search(r"[Vv]ersion (\S+)", version)[1]
    about = {"device": report["device"], "commit": report["program"]["commit"], "version": version}
    watched = [(tool, name, [program, name, "--exact", "--test-threads=1", "--nocapture"])
               for tool in args.tools for name in tests(program)]
    if "memcheck" in args.tools:
        watched += [("memcheck", f"verify {case}", [binary, "verify", f"tests/fixtures/{case}", "--device", "cuda"])
                    for case in MODELS]
    if "initcheck" in args.tools and importlib.util.find_spec("torch"):
        watched.append(("initcheck", CONTROL_NAME, [sys.executable, "-c", CONTROL]))
    file = args.out / "sanitizer.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    done = {(row["tool"], row["what"]): row for row in known.get("rows", []) if row.get("findings") == 0}
    if {key: known.get(key) for key in about} != about:
        done = {}
    rows = []
    with ThreadPoolExecutor(args.at_a_time) as pool:
        for tool, what, command in watched:
            row = done.get((tool, what)) or pool.submit(watch, tool, command, tool != "memcheck", args.seconds)
            rows.append(({"tool": tool, "what": what}, row))
        for n, (of, row) in enumerate(rows):
            rows[n] = of | (row if isinstance(row, dict) else row.result())
            write(args.out, about, rows[:n + 1])
    if any(findings(row, rows) != 0 for row in rows if row["what"] != CONTROL_NAME):
        sys.exit(1)


if __name__ == "__main__":
    main()
