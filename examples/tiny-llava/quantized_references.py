"""Writes `references/quantized.*`: what transformers answers with int8 and int4 weights, dequantised, in f32.

    cargo run --release --locked --workspace --example dequantise -- examples/tiny-llava/model int8 INT8
    cargo run --release --locked --workspace --example dequantise -- examples/tiny-llava/model int4 INT4
    python quantized_references.py INT8 INT4

`quantized.safetensors` holds NAME.QUANTIZATION.step_logits: the logits of each step of the f32 run's answer.
`quantized.json` names the format of each linear layer of the decoder, with a CRC-32 of its dequantised numbers.
"""

import json
import sys
import zlib
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from evaluate import HERE, load

OUT = HERE / "references"
CASES = ["color-zh", "where-zh", "handwriting-zh"]


def block_format(quantization, name):
    """What the decoder's linear layers become; their rows are multiples of 256."""
    return "Q8_0" if quantization == "int8" or name == "language_model.lm_head.weight" else "Q4_K"


def linears(folder, quantization):
    """Format and checksum of each tensor that quantisation changes."""
    made, out = load_file(folder / "model.safetensors"), {}
    for name, stored in sorted(load_file(HERE / "model" / "model.safetensors").items()):
        if name.startswith("language_model.") and name.endswith(("_proj.weight", "lm_head.weight")):
            assert not torch.equal(made[name], stored.float()), name
            role = "head" if "lm_head" in name else "decoder"
            crc = zlib.crc32(made[name].contiguous().numpy().tobytes())
            out[name] = dict(role=role, format=block_format(quantization, name), crc32=crc)
        else:
            assert torch.equal(made[name], stored.float()), name
    return out


@torch.no_grad()
def answer(processor, model, case):
    """(logits of each step of the known answer, ids of a free run)."""
    inputs = processor(images=Image.open(OUT / case["picture"]), text=case["prompt"], return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == case["input_ids"]
    forced = torch.tensor([case["input_ids"] + case["greedy_ids"][:-1]])
    logits = model(input_ids=forced, pixel_values=inputs["pixel_values"], use_cache=False).logits[0]
    free = model.generate(**inputs, do_sample=False, max_new_tokens=len(case["greedy_ids"]))
    return logits[len(case["input_ids"]) - 1:].clone(), free[0, len(case["input_ids"]):].tolist()


def main():
    cases = {case["name"]: case for case in json.loads((OUT / "references.json").read_text())["cases"]}
    tensors, about = {}, {}
    for quantization, folder in zip(("int8", "int4"), map(Path, sys.argv[1:3]), strict=True):
        processor, model = load(folder)
        runs = {}
        for name in CASES:
            steps, free = answer(processor, model, cases[name])
            top = [step.topk(2).values for step in steps]
            tensors[f"{name}.{quantization}.step_logits"] = steps
            runs[name] = dict(greedy_ids=free, margins=[round(float(a - b), 4) for a, b in top])
            print(quantization, name, "least margin", min(runs[name]["margins"]), "same ids", free == cases[name]["greedy_ids"])
        about[quantization] = dict(cases=runs, tensors=linears(folder, quantization))
    (OUT / "quantized.json").write_text(json.dumps(about, indent=1) + "\n")
    save_file(tensors, OUT / "quantized.safetensors")


if __name__ == "__main__":
    main()
