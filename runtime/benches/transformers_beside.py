#!/usr/bin/env python3
"""A model of real size with random weights on one GPU: ours beside the transformers library, in one run.

    python3 runtime/benches/transformers_beside.py BINARY

BINARY is vlm-runtime (`make cuda`). Writes results/transformers-beside-DEVICE.json and .md. Needs torch and transformers.
Both get prompts of 64 tokens of text and one picture, and generate 128 tokens greedily for a whole batch: transformers by
`generate` with its defaults (eager, SDPA), ours by `vlm-runtime bench`. Decoding counts from the first token to the last;
medians of three batches, after one that does not count."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "catalog/tests/models"
# Name, batches, size of the picture, its tiles.
RUNS = [("llava-1.5-7b-hf", [1, 8, 32, 64], "672x672", 1), ("InternVL3-8B-hf", [1, 8, 32], "1344x896", 7)]
TEXT, ANSWER, REPEATS = 64, 128, 3


def ours(binary: str, name: str, batch: int, size: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        Path(folder, "config.json").write_bytes((MODELS / f"{name}.json").read_bytes())
        command = [binary, "bench", "--model", folder, "--dummy-weights", "--device", "cuda", "--batch", str(batch),
                   "--requests", str(batch * REPEATS), "--prompt-tokens", str(TEXT), "--image-size", size,
                   "--output-tokens", str(ANSWER), "--json", str(out)]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"{' '.join(command)}: {ended.stderr}")
        return json.loads(out.read_text())


def seconds(run) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def theirs(model, config, batch: int, tiles: int) -> tuple[float, float]:
    """Milliseconds to the first token of all, and tokens a second from then on."""
    side = config.vision_config.image_size
    side = side if isinstance(side, int) else side[0]
    per_tile = (side // (config.vision_config.patch_size if isinstance(config.vision_config.patch_size, int)
                         else config.vision_config.patch_size[0])) ** 2
    per_tile = int(per_tile * getattr(config, "downsample_ratio", 1) ** 2)
    image = getattr(config, "image_token_id", None) or config.image_token_index
    ids = torch.randint(10, 1000, (batch, TEXT + tiles * per_tile), device="cuda")
    ids[:, 1:1 + tiles * per_tile] = image
    dtype = next(model.parameters()).dtype
    pixels = torch.randn(batch * tiles, 3, side, side, device="cuda", dtype=dtype)

    def generate(count):
        model.generate(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), do_sample=False,
                       min_new_tokens=count, max_new_tokens=count, pad_token_id=0)

    generate(4)
    first = statistics.median(seconds(lambda: generate(1)) for _ in range(REPEATS))
    whole = statistics.median(seconds(lambda: generate(ANSWER)) for _ in range(REPEATS))
    return first * 1e3, batch * (ANSWER - 1) / (whole - first)


def main() -> None:
    binary = sys.argv[1]
    everything, rows = [], []
    for name, batches, size, tiles in RUNS:
        # Ours first: the memory is free.
        results = {batch: ours(binary, name, batch, size) for batch in batches}
        raw = json.loads((MODELS / f"{name}.json").read_text())
        config = transformers.AutoConfig.for_model(**raw)
        with torch.device("cuda"):
            dtype = getattr(torch, raw.get("torch_dtype") or raw.get("dtype") or "bfloat16")
            model = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
        for batch in batches:
            ours_ = results[batch]
            try:
                first, rate = theirs(model, config, batch, tiles)
            except torch.OutOfMemoryError:
                first, rate = float("nan"), float("nan")
            torch.cuda.empty_cache()
            decode = ours_["decode"]
            everything.append({"model": name, "batch": batch, "ours": ours_, "theirs": {"first_token_ms": first, "tokens_per_second": rate}})
            rows.append(f"| {name} | {batch} | {decode['tokens_per_second']:.0f} | {rate:.0f} | {decode['percent_of_limit']:.0f} % "
                        f"| {ours_['first_token_ms']['p99']:.0f} ms | {first:.0f} ms |")
            print(rows[-1], flush=True)
        del model
        torch.cuda.empty_cache()
    device = torch.cuda.get_device_name().lower().replace(" ", "-")
    table = [f"Ours beside transformers {transformers.__version__} (torch {torch.__version__}) on {torch.cuda.get_device_name()}, "
             "random weights in the checkpoint's format,", "one picture and 64 tokens of text a prompt, 128 tokens an answer: tokens a "
             "second while the whole batch decodes,", "which part of what memory allows ours is, and the time to the last first token of a batch.", "",
             "| model | batch | ours tok/s | transformers tok/s | of the limit | ours first | transformers first |",
             "|---|---|---|---|---|---|---|", *rows]
    (HERE / f"results/transformers-beside-{device}.json").write_text(json.dumps(everything, indent=1) + "\n")
    (HERE / f"results/transformers-beside-{device}.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
