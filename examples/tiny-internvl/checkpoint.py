"""The model's sizes, and its folder on disk in OpenGVLab's chat layout (`vision_model.…`, `mlp1.…`, `language_model.…`).

transformers has no class for that layout. `load` reads it into `InternVLForConditionalGeneration` by renaming
tensors and cutting the fused qkv rows apart, which changes no number.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

from tiles import MOST, SIDE
from vocabulary import EOS, IMAGE, PAD, SIZE, SYSTEM_MESSAGE

PATCH, CONTEXT = 8, 1024
TILE_TOKENS = (SIDE // PATCH // 2) ** 2
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

CONFIG = {
    "architectures": ["InternVLChatModel"],
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": SIDE,
    "max_dynamic_patch": MOST,
    "min_dynamic_patch": 1,
    "pad2square": False,
    "ps_version": "v2",
    "select_layer": -1,
    "system_message": SYSTEM_MESSAGE,
    "template": "internvl2_5",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_thumbnail": True,
    "llm_config": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "attention_dropout": 0.0, "vocab_size": SIZE,
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": CONTEXT, "max_window_layers": 4,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": None, "sliding_window": None,
        "use_sliding_window": False, "bos_token_id": PAD, "eos_token_id": EOS, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    },
    "vision_config": {
        "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_size": 192,
        "intermediate_size": 640, "num_hidden_layers": 6, "num_attention_heads": 3, "image_size": SIDE,
        "patch_size": PATCH, "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-06,
        "norm_type": "layer_norm", "qk_normalization": False, "qkv_bias": True, "initializer_factor": 1.0,
        "use_flash_attn": False, "torch_dtype": "bfloat16",
    },
}
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": SIDE, "resample": 3, "do_center_crop": True,
    "crop_size": SIDE, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN,
    "image_std": STD, "do_convert_rgb": True,
}
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None,
    "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"],
    "add_bos_token": False, "add_prefix_space": False, "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False,
}
GENERATION = {"eos_token_id": [EOS, PAD], "pad_token_id": PAD, "do_sample": False, "max_new_tokens": 128}

# transformers' name in memory, the chat layout's name; qkv and the decoder are not in this list
RENAMED = [
    ("model.vision_tower.embeddings.cls_token", "vision_model.embeddings.class_embedding"),
    ("model.vision_tower.embeddings.position_embeddings", "vision_model.embeddings.position_embedding"),
    ("model.vision_tower.embeddings.patch_embeddings.projection.", "vision_model.embeddings.patch_embedding."),
    ("model.vision_tower.encoder.layer.", "vision_model.encoder.layers."),
    (".attention.projection_layer.", ".attn.proj."), (".layernorm_before.", ".norm1."), (".layernorm_after.", ".norm2."),
    (".lambda_1", ".ls1"), (".lambda_2", ".ls2"), ("model.multi_modal_projector.layer_norm.", "mlp1.0."),
    ("model.multi_modal_projector.linear_1.", "mlp1.1."), ("model.multi_modal_projector.linear_2.", "mlp1.3."),
]
DECODER = ("model.language_model.", "language_model.model.")


def transformers_config(config):
    """What transformers calls the same sizes."""
    vision, text = config["vision_config"], config["llm_config"]
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size", "layer_norm_eps", "norm_type", "hidden_act")
    tower = InternVLVisionConfig(**{k: vision[k] for k in sizes}, attention_bias=vision["qkv_bias"], use_qk_norm=vision["qk_normalization"])
    rope = dict(rope_type="default", rope_theta=text["rope_theta"])
    left_out = ("architectures", "model_type", "torch_dtype", "rope_theta", "rope_scaling")
    decoder = Qwen2Config(**{k: v for k, v in text.items() if k not in left_out}, rope_parameters=rope, pad_token_id=PAD)
    return InternVLConfig(
        vision_config=tower, text_config=decoder, image_token_id=IMAGE, image_seq_length=TILE_TOKENS,
        downsample_ratio=config["downsample_ratio"], tie_word_embeddings=config["tie_word_embeddings"],
    )


def to_chat_layout(state):
    """Tensors under transformers' names to the chat layout. The tied head is left out."""
    out = {}
    for name, value in state.items():
        if name == "lm_head.weight" or ".attention.k_proj." in name or ".attention.v_proj." in name:
            continue
        if ".attention.q_proj." in name:
            value = torch.cat([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
        name = name.replace(".attention.q_proj.", ".attn.qkv.")
        for ours, theirs in [*RENAMED, DECODER]:
            name = name.replace(ours, theirs)
        out[name] = value
    return out


def from_chat_layout(tensors):
    """The way back: (tensors under transformers' names), fused rows cut into q, k and v."""
    out = {}
    for name, value in tensors.items():
        if name.startswith(DECODER[1]):
            out[DECODER[0] + name.removeprefix(DECODER[1])] = value
            continue
        for ours, theirs in RENAMED:
            name = name.replace(theirs, ours)
        if ".attn.qkv." in name:
            for part, rows in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3)):
                out[name.replace(".attn.qkv.", f".attention.{part}.")] = rows
        else:
            out[name] = value
    return out


def new_model(seed):
    """The model with fresh weights."""
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(transformers_config(CONFIG)).float()
    with torch.no_grad():
        positions = model.model.vision_tower.embeddings.position_embeddings
        positions.normal_(0, 0.02)  # a sense of rows and columns from the start saves much of the training
        positions[0, 1:] += 0.3 * sines(SIDE // PATCH, positions.shape[2])
        for name, scale in model.named_parameters():
            if name.endswith(("lambda_1", "lambda_2")):
                scale.fill_(1.0)
    return model


def sines(n, width):
    """Sines and cosines of each row and each column of an n x n grid: [n*n, width]."""
    rates = 8.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(n)[:, None] / n * rates * math.pi
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = waves[:, None].expand(n, n, -1), waves[None].expand(n, n, -1)
    return torch.cat([rows, columns], 2).reshape(n * n, width)


def load(folder):
    """The exported model in transformers' class: weights as stored in bf16, computed in f32."""
    folder = Path(folder)
    model = InternVLForConditionalGeneration(transformers_config(json.loads((folder / "config.json").read_text()))).float()
    state = {k: v.float() for k, v in from_chat_layout(load_file(folder / "model.safetensors")).items()}
    state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"]
    model.load_state_dict(state)
    model.tie_weights()
    return model.eval()


def export(model, folder):
    """Writes weights (bf16) and every file beside `tokenizer.json` that a loader needs."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in to_chat_layout(model.state_dict()).items()}
    assert all(torch.isfinite(v).all() for v in tensors.values())
    save_file(dict(sorted(tensors.items())), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    for name, value in {
        "config.json": CONFIG, "preprocessor_config.json": PREPROCESSOR,
        "tokenizer_config.json": TOKENIZER, "generation_config.json": GENERATION,
    }.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    return sum(v.numel() for v in tensors.values())
