#!/usr/bin/env python3
"""Decode and prefill of a decoder of about a billion parameters on the CPU: ours beside llama.cpp, in one run.

    python runtime/benches/decode.py 2

Measures with two threads, and writes `results/cpu-decode.json` and `results/cpu-decode.md`. Needs cargo,
and llama-cpp-python built from source on this machine, so that it uses the machine's instructions (`pip install
--no-binary llama-cpp-python llama-cpp-python gguf`). Takes 10 GB of disk for a while, and some ten minutes; on a
machine with other work the numbers mean little.

Both run the same sizes (TinyLlama's decoder), context and number of threads, with weights drawn at random. Embeddings
are in 16 bits everywhere, the head is Q8_0 in both quantised forms, the KV cache is in 16 bits. Ours reads prompts in
steps of 512 rows, llama.cpp in batches of 512.
"""
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 32000, 2048, 5632, 22, 32, 4
PROMPT, STEPS, REPEATS = 640, 64, 3
# Name of the form, ours, llama.cpp's.
FORMS = [("16 bit", ("f16", "none"), "f16"), ("16 bit (bf16)", ("bf16", "none"), "bf16"),
         ("int8", ("f16", "int8"), "q8_0"), ("int4", ("f16", "int4"), "q4_k")]


def write_gguf(path, kind):
    """The decoder in f16 or bf16. All layers share one set of numbers: speed does not depend on them."""
    import gguf
    import numpy as np

    stored = gguf.GGMLQuantizationType.F16 if kind == "f16" else gguf.GGMLQuantizationType.BF16
    random = np.random.default_rng(1)

    def matrix(rows, columns):
        numbers = random.standard_normal((rows, columns), np.float32) / np.float32(columns) ** 0.5
        return gguf.quants.quantize(numbers, stored)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "f16" else gguf.LlamaFileType.MOSTLY_BF16)
    kv = HIDDEN // HEADS * KV_HEADS
    ones = np.ones(HIDDEN, np.float32)
    layer = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN),
             "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER)}
    layer = {name: matrix(*shape) for name, shape in layer.items()}
    for name in ("token_embd", "output"):
        writer.add_tensor(f"{name}.weight", matrix(VOCABULARY, HIDDEN), raw_dtype=stored)
    writer.add_tensor("output_norm.weight", ones)
    for n in range(LAYERS):
        for name, numbers in layer.items():
            writer.add_tensor(f"blk.{n}.{name}.weight", numbers, raw_dtype=stored)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{n}.{name}.weight", ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source, target, kind):
    """With llama.cpp's own quantiser, every linear layer in the same format."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0 if kind == "q8_0" else llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S
    parameters.token_embedding_type = llama_cpp.GGML_TYPE_F16
    parameters.output_tensor_type = llama_cpp.GGML_TYPE_Q8_0
    parameters.pure = True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        sys.exit(f"llama.cpp could not quantise to {kind}")


def run_llama_cpp(path, threads):
    """Tokens per second of prefill and decode, medians."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = PROMPT + STEPS, 512, 512
    parameters.n_threads = parameters.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, parameters)

    def step(ids):
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(ids))):
            sys.exit("llama.cpp could not decode")
        return llama_cpp.llama_get_logits(context)[0]

    prefills, decodes = [], []
    for repeat in range(REPEATS + 1):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        start = time.perf_counter()
        for first in range(0, PROMPT, 512):
            step([i * 31 % VOCABULARY for i in range(first, min(first + 512, PROMPT))])
        read = time.perf_counter()
        for i in range(STEPS):
            step([i * 31 % VOCABULARY])
        # The first round only warms up.
        if repeat:
            prefills.append(PROMPT / (read - start))
            decodes.append(STEPS / (time.perf_counter() - read))
    row = dict(prefill_per_second=statistics.median(prefills), decode_per_second=statistics.median(decodes))
    print(json.dumps(row))


def bandwidth(threads):
    """GB/s at which so many cores read memory: sums over numbers beyond the caches, one process a core."""
    program = ("import numpy,time;a=numpy.ones(1<<27,numpy.float32);a.max();t=time.perf_counter()\n"
               "for _ in range(8): a.max()\n"
               "print(8*a.nbytes/(time.perf_counter()-t)/1e9)")
    children = [subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", program], stdout=subprocess.PIPE)
                for core in range(threads)]
    return sum(float(child.communicate()[0]) for child in children)


def child(command, threads):
    """The last line of a command on the first `threads` cores, as JSON."""
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    command = ["taskset", "-c", f"0-{threads - 1}", *command]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


def main(numbers_of_threads):
    bench = ["cargo", "bench", "--locked", "--workspace", "--bench", "decode", "--"]
    rows, read = [], {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        subprocess.run([*bench, "make", str(folder)], check=True, cwd=ROOT)
        files = {kind: folder / f"{kind}.gguf" for _, _, kind in FORMS}
        for kind in ("f16", "bf16"):
            write_gguf(files[kind], kind)
        for kind in ("q8_0", "q4_k"):
            quantise(files["f16"], files[kind], kind)
        for threads in numbers_of_threads:
            read[threads] = bandwidth(threads)
            for form, (dtype, quantization), kind in FORMS:
                numbers = [str(number) for number in (PROMPT, STEPS, REPEATS)]
                ours = child([*bench, "run", str(folder), dtype, quantization, *numbers], threads)
                theirs = child([sys.executable, __file__, "run", str(files[kind]), str(threads)], threads)
                bytes_read = files[kind].stat().st_size - 2 * VOCABULARY * HIDDEN
                rows.append(dict(form=form, threads=threads, ours=ours, llama_cpp=theirs, bytes_per_token=bytes_read))
                print(rows[-1], file=sys.stderr)
    report(rows, read, numbers_of_threads)


def report(rows, read, numbers_of_threads):
    import gguf  # noqa: F401  (its version is part of the report)
    import importlib.metadata as metadata

    processor = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                     if line.startswith("model name"))
    rustc = subprocess.run(["rustc", "-V"], check=True, capture_output=True, text=True).stdout.strip()
    versions = ", ".join([rustc, *(f"{name} {metadata.version(name)}" for name in ("llama-cpp-python", "gguf", "numpy"))])
    facts = dict(processor=processor, versions=versions, load=os.getloadavg()[0], prompt=PROMPT, steps=STEPS,
                 repeats=REPEATS, memory_gb_per_second=read, rows=rows)
    (RESULTS / "cpu-decode.json").write_text(json.dumps(facts, indent=1) + "\n")
    lines = ["# Decode of a billion parameters on the CPU, beside llama.cpp", "",
             f"`python runtime/benches/decode.py {' '.join(map(str, numbers_of_threads))}`", "",
             f"{processor}; {versions}; load {facts['load']:.1f}.",
             f"LLaVA with the decoder of TinyLlama (hidden {HIDDEN}, {LAYERS} layers), random weights; prompt of {PROMPT} "
             f"tokens, {STEPS} decoded; medians of {REPEATS}, tokens per second. \"Of memory\" is the share of the "
             "bandwidth of plain reads that decoding takes for weights alone.", "",
             "| form | threads | decode, ours | llama.cpp | ratio | of memory, ours | llama.cpp | prefill, ours | llama.cpp |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        ours, theirs = row["ours"], row["llama_cpp"]
        share = [100 * row["bytes_per_token"] * by["decode_per_second"] / 1e9 / read[row["threads"]] for by in (ours, theirs)]
        lines.append(f"| {row['form']} | {row['threads']} | {ours['decode_per_second']:.1f} | "
                     f"{theirs['decode_per_second']:.1f} | {ours['decode_per_second'] / theirs['decode_per_second']:.2f} | "
                     f"{share[0]:.0f} % | {share[1]:.0f} % | {ours['prefill_per_second']:.0f} | "
                     f"{theirs['prefill_per_second']:.0f} |")
    lines += ["", f"Plain reads: {', '.join(f'{gb:.1f} GB/s with {threads}' for threads, gb in read.items())} (threads). "
              "A form that takes most of that is bound by memory; one that takes less, by arithmetic."]
    (RESULTS / "cpu-decode.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run_llama_cpp(sys.argv[2], int(sys.argv[3]))
    else:
        main([int(word) for word in sys.argv[1:]])
