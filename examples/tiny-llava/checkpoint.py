"""The model's sizes, and its folder on disk in the llava-hf layout (`language_model.model.…` and so on)."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlavaConfig, LlavaForConditionalGeneration

from vocabulary import BOS, EOS, IMAGE, PAD, SIZE

SIDE, PATCH, CONTEXT = 112, 8, 1024
IMAGE_TOKENS = (SIDE // PATCH) ** 2
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

CONFIG = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "ignore_index": -100,
    "image_token_index": IMAGE,
    "image_seq_length": IMAGE_TOKENS,
    "pad_token_id": PAD,
    "projector_hidden_act": "gelu",
    "multimodal_projector_bias": True,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": SIZE,
    "text_config": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": SIZE, "hidden_size": 256,
        "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "tie_word_embeddings": False,
        "torch_dtype": "float16",
    },
    "vision_config": {
        "model_type": "clip_vision_model", "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 7,
        "num_attention_heads": 3, "image_size": SIDE, "patch_size": PATCH, "projection_dim": 192,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05, "torch_dtype": "float16",
    },
}
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor", "do_resize": True, "size": {"shortest_edge": SIDE},
    "resample": 3, "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD, "do_convert_rgb": True,
}
PROCESSOR = {
    "processor_class": "LlavaProcessor", "patch_size": PATCH, "num_additional_image_tokens": 1,
    "vision_feature_select_strategy": "default", "image_token": "<image>",
}
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast", "processor_class": "LlavaProcessor", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
    "extra_special_tokens": {"image_token": "<image>"}, "model_max_length": CONTEXT, "padding_side": "left",
    "clean_up_tokenization_spaces": False,
}
GENERATION = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": False, "max_new_tokens": 128}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% else %}{{ ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def new_model(seed):
    """The model with fresh weights."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(LlavaConfig(**{k: v for k, v in CONFIG.items() if "dtype" not in k})).float()
    positions = next(p for name, p in model.named_parameters() if name.endswith("position_embedding.weight"))
    with torch.no_grad():  # a sense of rows and columns from the start saves much of the training
        positions[1:] += 0.3 * sines(SIDE // PATCH, positions.shape[1])
    return model


def sines(n, width):
    """Sines and cosines of each row and each column of an n x n grid: [n*n, width]."""
    rates = 8.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(n)[:, None] / n * rates * math.pi
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = waves[:, None].expand(n, n, -1), waves[None].expand(n, n, -1)
    return torch.cat([rows, columns], 2).reshape(n * n, width)


def hub_name(name):
    """A parameter's name in the llava-hf layout, whatever transformers calls it in memory today."""
    if name == "lm_head.weight":
        return "language_model.lm_head.weight"
    name = name.removeprefix("model.")
    if name.startswith("language_model.") and not name.startswith("language_model.model."):
        return "language_model.model." + name.removeprefix("language_model.")
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return "vision_tower.vision_model." + name.removeprefix("vision_tower.")
    return name


def export(model, folder):
    """Writes weights (f16) and every file beside `tokenizer.json` that a loader needs."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {hub_name(k): v.detach().to("cpu", torch.float16).contiguous() for k, v in model.state_dict().items()}
    assert all(torch.isfinite(v).all() for v in tensors.values())
    save_file(dict(sorted(tensors.items())), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    for name, value in {
        "config.json": CONFIG, "preprocessor_config.json": PREPROCESSOR, "processor_config.json": PROCESSOR,
        "tokenizer_config.json": TOKENIZER, "generation_config.json": GENERATION,
    }.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return sum(v.numel() for v in tensors.values())
