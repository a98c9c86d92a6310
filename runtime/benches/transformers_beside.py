#!/usr/bin/env python3
"""Models of real size with random weights on one GPU: ours beside the transformers library, in one run.

    python3 runtime/benches/transformers_beside.py BINARY [--models NAME…] [--batches N…] [--out FOLDER]

BINARY is vlm-runtime (`make cuda`). Writes gpu.json and gpu.md into results/ or FOLDER, after every row anew, so that a run
that is cut off leaves what it has. Nothing is downloaded: both sides have the configuration of catalog/tests/models and draw
their weights. Both get prompts of 64 tokens of text and one picture, and generate 128 tokens greedily for a whole batch: ours
by `vlm-runtime bench --mode latency`, transformers by `generate` with its defaults. First tokens are those of the whole batch;
decoding counts from then on. Medians of three batches, after one that does not count."""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODELS = ROOT / "catalog/tests/models"
# The size of the picture, its tiles, the batches.
RUNS = {"llava-1.5-7b-hf": ("672x672", 1, [1, 8, 32, 64]), "InternVL3-8B-hf": ("1344x896", 7, [1, 8, 32])}
TEXT, ANSWER, REPEATS = 64, 128, 3
COLUMNS = ["model", "batch", "ours tok/s", "of the limit", "transformers tok/s", "of the limit", "ours first ms",
           "transformers first ms"]


def libraries():
    try:
        import torch
        import transformers
    except ImportError as error:
        sys.exit(f"{error.name} is missing: pip install torch transformers (no network: pip download them elsewhere, "
                 "carry the wheels, pip install --no-index --find-links FOLDER)")
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU; its build and the driver must fit each other")
    return torch, transformers


def ours(binary: str, name: str, batches: list[int], size: str, out: Path) -> dict:
    """What `bench` says, a run for each batch; those that do not fit are left out."""
    answered = {}
    for batch in batches:
        # From the root, so that results name no folder of this machine.
        command = [binary, "bench", "--model", f"catalog/tests/models/{name}.json", "--dummy-weights", "--device", "cuda",
                   "--batch", str(batch), "--requests", str(batch * REPEATS), "--prompt-tokens", str(TEXT),
                   "--image-size", size, "--output-tokens", str(ANSWER), "--json", str(out)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if ended.returncode:
            said = ended.stderr.strip().splitlines()
            print(f"{name}, batch {batch}: {said[-1] if said else ended.returncode}", file=sys.stderr, flush=True)
            continue
        answered[batch] = json.loads(out.read_text())
        print(ended.stdout, flush=True)
    out.unlink(missing_ok=True)
    return answered


def build(torch, transformers, name: str):
    raw = json.loads((MODELS / f"{name}.json").read_text())
    dtype = getattr(torch, raw.get("torch_dtype") or raw.get("dtype") or "bfloat16")
    config = transformers.AutoConfig.for_model(**raw)
    with torch.device("cuda"):
        try:
            model = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype)
        except TypeError:  # before version 4.56
            model = transformers.AutoModelForImageTextToText.from_config(config, torch_dtype=dtype)
    return model.to(dtype).eval(), config


def one(side) -> int:
    return side if isinstance(side, int) else side[0]


def theirs(torch, model, config, batch: int, tiles: int) -> dict:
    vision = config.vision_config
    side, patch = one(vision.image_size), one(vision.patch_size)
    rows = tiles * int((side // patch) ** 2 * getattr(config, "downsample_ratio", 1) ** 2)
    image = getattr(config, "image_token_id", None) or config.image_token_index
    ids = torch.randint(10, 1000, (batch, TEXT + rows), device="cuda")
    ids[:, 1:1 + rows] = image
    pixels = torch.randn(batch * tiles, 3, side, side, device="cuda", dtype=next(model.parameters()).dtype)

    def seconds(count: int) -> float:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        with torch.inference_mode():
            model.generate(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), do_sample=False,
                           min_new_tokens=count, max_new_tokens=count, pad_token_id=0)
        torch.cuda.synchronize()
        return time.perf_counter() - begun

    try:
        seconds(ANSWER)
        first = statistics.median(seconds(1) for _ in range(REPEATS))
        whole = statistics.median(seconds(ANSWER) for _ in range(REPEATS))
    except torch.OutOfMemoryError:
        return {"error": "out of memory", "prompt_tokens": TEXT + rows}
    return {"prompt_tokens": TEXT + rows, "all_first_tokens_ms": first * 1e3,
            "tokens_per_second": batch * (ANSWER - 1) / (whole - first)}


def cells(name: str, batch: int, our: dict | None, their: dict | None) -> list[str]:
    run = our["runs"][0] if our else None
    limit = run["limit"]["tokens_per_second"] if run else None
    speeds = [run["decode"] if run else None, their if their and "error" not in their else None]
    rates = [[f"{speed['tokens_per_second']:.0f}", f"{100 * speed['tokens_per_second'] / limit:.0f} %" if limit else "–"]
             if speed else ["–", "–"] for speed in speeds]
    return [name, str(batch), *rates[0], *rates[1], *(f"{s['all_first_tokens_ms']:.0f}" if s else "–" for s in speeds)]


def write(folder: Path, about: dict, results: list[dict]) -> None:
    (folder / "gpu.json").write_text(json.dumps(about | {"results": results}, indent=1) + "\n")
    commits = sorted({r["ours"]["program"]["commit"] or "unknown" for r in results if r["ours"]})
    lines = [f"Ours (commit {', '.join(commits)}) beside",
             f"transformers {about['transformers']} (torch {about['torch']}, CUDA {about['cuda']}) on {about['device']}: "
             "random weights in the",
             f"checkpoint's number format, one picture and {TEXT} tokens of text a prompt, {ANSWER} tokens an answer. "
             "Tokens a second while",
             "the whole batch decodes, which part of what reading weights and KV cache once a step allows that is, and the "
             "time until",
             f"every sequence has its first token. Medians of {REPEATS} batches.", "",
             f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    rows = [cells(r["model"], r["batch"], r["ours"], r["transformers"]) for r in results]
    (folder / "gpu.md").write_text("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n")
    print(f"| {' | '.join(rows[-1])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--models", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--batches", nargs="+", type=int, help="default: those of each model")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    args.binary, args.out = str(Path(args.binary).resolve()), args.out.resolve()
    torch, transformers = libraries()
    args.out.mkdir(parents=True, exist_ok=True)
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
             "transformers": transformers.__version__, "text_tokens": TEXT, "output_tokens": ANSWER, "repeats": REPEATS}
    results = []
    for name in args.models:
        size, tiles, batches = RUNS[name]
        batches = args.batches or batches
        # Ours first: all memory is free.
        answered = ours(args.binary, name, batches, size, args.out / "ours.json")
        model, config = build(torch, transformers, name)
        for batch in batches:
            their = theirs(torch, model, config, batch, tiles)
            torch.cuda.empty_cache()
            results.append({"model": name, "batch": batch, "ours": answered.get(batch), "transformers": their})
            write(args.out, about, results)
        del model
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
