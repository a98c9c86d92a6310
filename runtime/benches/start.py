#!/usr/bin/env python3
"""From the start of the process to its readiness, part by part, with files of weights of real size.

    python3 runtime/benches/start.py BINARY [--models NAME...] [--quantizations none int8 int4] [--files FOLDER] [--out FOLDER]

BINARY is vlm-runtime (`make cuda`). Writes start.json and .md into results/ or FOLDER. NAMEs are LLaVA-1.5 models of
catalog/tests/models; their weights are drawn with torch and written as safetensors into --files (by default a folder in
memory, /dev/shm), so that they are read at the speed of the page cache. The tokenizer is the small one of the fixtures. Every
start is one of `serve` until /ready answers; the first is with an empty cache of compiled kernels, all others with it."""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODELS = ROOT / "catalog/tests/models"
FIXTURE = ROOT / "tests/fixtures/llava15_llama_hub"
PARTS = ["device", "code", "files", "read", "quantize", "upload", "warm_up", "steps"]
LONGEST, SEQUENCES = 2048, 8


def checkpoint(name: str, folder: Path) -> int:
    """A checkpoint with the geometry of `name`, in shards of one layer; its bytes."""
    import torch
    from safetensors.torch import save_file

    raw, small = json.loads((MODELS / f"{name}.json").read_text()), json.loads((FIXTURE / "config.json").read_text())
    text = raw["text_config"]
    # What the library takes for granted where it is not said.
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32} | text
    text.setdefault("num_key_value_heads", text["num_attention_heads"])
    vision = raw["vision_config"]
    raw |= {"text_config": text, "image_token_index": small["image_token_index"], "pad_token_id": small["pad_token_id"]}
    dtype = getattr(torch, raw["torch_dtype"])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw))
    preprocessor = json.loads((FIXTURE / "preprocessor_config.json").read_text())
    side = vision["image_size"]
    preprocessor |= {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    for file in ["tokenizer.json", "generation_config.json"]:
        shutil.copy(FIXTURE / file, folder / file)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    index, bytes_ = {}, 0

    def drawn(*shape: int):
        return (torch.randn(*shape, device=device, dtype=torch.float32) * 0.02).to(dtype).cpu()

    def ones(count: int):
        return torch.ones(count, dtype=dtype)

    def save(file: str, tensors: dict) -> None:
        nonlocal bytes_
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index.update({key: file for key in tensors})
        bytes_ += sum(tensor.nbytes for tensor in tensors.values())

    width, inner, vocabulary = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    keys = width // text["num_attention_heads"] * text["num_key_value_heads"]
    for layer in range(text["num_hidden_layers"]):
        at = f"language_model.model.layers.{layer}."
        shapes = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width),
                  "self_attn.o_proj": (width, width), "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
                  "mlp.down_proj": (width, inner)}
        tensors = {f"{at}{key}.weight": drawn(*shape) for key, shape in shapes.items()}
        tensors |= {f"{at}{key}.weight": ones(width) for key in ["input_layernorm", "post_attention_layernorm"]}
        save(f"layer-{layer}.safetensors", tensors)
    rest = {"language_model.model.embed_tokens.weight": drawn(vocabulary, width), "language_model.model.norm.weight": ones(width),
            "language_model.lm_head.weight": drawn(vocabulary, width)}
    seen, hidden = vision["hidden_size"], vision["intermediate_size"]
    for key, shape in {"linear_1": (width, seen), "linear_2": (width, width)}.items():
        rest |= {f"multi_modal_projector.{key}.weight": drawn(*shape), f"multi_modal_projector.{key}.bias": drawn(width)}
    tower, patch = "vision_tower.vision_model.", vision["patch_size"]
    for layer in range(vision["num_hidden_layers"]):
        at = f"{tower}encoder.layers.{layer}."
        shapes = {f"self_attn.{key}_proj": (seen, seen) for key in ["q", "k", "v", "out"]}
        for key, shape in (shapes | {"mlp.fc1": (hidden, seen), "mlp.fc2": (seen, hidden)}).items():
            rest |= {f"{at}{key}.weight": drawn(*shape), f"{at}{key}.bias": drawn(shape[0])}
        for key in ["layer_norm1", "layer_norm2"]:
            rest |= {f"{at}{key}.weight": ones(seen), f"{at}{key}.bias": drawn(seen)}
    rest |= {f"{tower}pre_layrnorm.weight": ones(seen), f"{tower}pre_layrnorm.bias": drawn(seen),
             f"{tower}embeddings.class_embedding": drawn(seen),
             f"{tower}embeddings.patch_embedding.weight": drawn(seen, 3, patch, patch),
             f"{tower}embeddings.position_embedding.weight": drawn((side // patch) ** 2 + 1, seen)}
    save("rest.safetensors", rest)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return bytes_


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def start(binary: str, model: Path, quantization: str, compiled: str) -> dict:
    """Seconds until it is ready, and of its parts as its log says them."""
    port = free_port()
    command = [binary, "serve", "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--log-format", "json",
               "--quantization", quantization, "--max-tokens", str(LONGEST), "--max-concurrency", str(SEQUENCES),
               "--drain-accept-seconds", "0"]
    with tempfile.TemporaryFile("w+") as log:
        begun = time.monotonic()
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"CUDA_CACHE_PATH": compiled})
        try:
            while not is_ready(port):
                if server.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"{' '.join(command)} ended: {log.read()[-2000:]}")
                time.sleep(0.01)
            seconds = time.monotonic() - begun
        finally:
            server.terminate()
            server.wait()
        log.seek(0)
        said = {}
        for line in log:
            try:
                fields = json.loads(line)
            except json.JSONDecodeError:
                continue
            said |= {key.removesuffix("_seconds"): float(value) for key, value in fields.items() if key.endswith("_seconds")
                     and key.removesuffix("_seconds") in PARTS}
    return {"ready_seconds": seconds, **{part: said.get(part) for part in PARTS}}


def write(folder: Path, about: dict, rows: list[dict]) -> None:
    (folder / "start.json").write_text(json.dumps(about | {"starts": rows}, indent=1) + "\n")
    columns = ["model", "quantization", "compile cache", "ready s", "device", "code", "files", "weights read", "quantised",
               "uploaded", "warm-up", "graphs", "rest"]
    lines = [f"From the start of the process to /ready on {about['device']}, commit {about['commit']}: seconds. Weights out of",
             f"files in memory; room for {SEQUENCES} sequences of {LONGEST} tokens. Device: driver, libraries and context. Code: the",
             "project's kernels. Files: descriptions, tokenizer, maps of the files. Read: out of the files, checked. Warm-up: the KV",
             "cache and the first step of everything. Graphs: the decode steps that are recorded ahead. Rest: what none of these is,",
             "from the start of the process and the listening socket to the answer of /ready.", "",
             f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        parts = ["–" if row[part] is None else f"{row[part]:.2f}" for part in PARTS]
        parts.append(f"{row['ready_seconds'] - sum(row[part] or 0 for part in PARTS):.2f}")
        lines.append(f"| {row['model']}, {row['bytes'] / 1e9:.1f} GB | {row['quantization']} | {row['compiled']} | "
                     f"{row['ready_seconds']:.2f} | {' | '.join(parts)} |")
    (folder / "start.md").write_text("\n".join(lines) + "\n")
    print(lines[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--models", nargs="+", default=["llava-1.5-7b-hf"])
    parser.add_argument("--quantizations", nargs="+", default=["none", "int8", "int4"])
    parser.add_argument("--files", type=Path, default=Path("/dev/shm/vlm-start"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    bandwidth = subprocess.run([args.binary, "bench", "--mode", "bandwidth", "--json", "/dev/stderr"], capture_output=True,
                               text=True, check=True)
    report = json.loads(bandwidth.stderr[bandwidth.stderr.index("{"):])
    about = {"device": report["device"], "commit": report["program"]["commit"]}
    rows, compiled = [], tempfile.mkdtemp(prefix="vlm-compiled-")
    for name in args.models:
        folder = args.files / name
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.monotonic()
        size = checkpoint(name, folder)
        print(f"{name}: {size / 1e9:.1f} GB written in {time.monotonic() - begun:.0f} s", flush=True)
        for quantization in args.quantizations:
            for cache in ["cold", "warm"] if not rows else ["warm"]:
                result = start(args.binary, folder, quantization, compiled)
                rows.append({"model": name, "bytes": size, "quantization": quantization, "compiled": cache} | result)
                write(args.out, about, rows)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
