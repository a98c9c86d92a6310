//! Writes a checkpoint whose decoder was quantised as when loading, and dequantised: f32 under the same names, so
//! that another implementation can compute with the numbers of int8 or int4. For small checkpoints: all in memory.
//!
//! ```sh
//! cargo run --release --locked --workspace --example dequantise -- DIR int8 OUT
//! ```

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use clap::Parser;
use vlm_catalog::quantization::{BlockFormat, LinearRole, Quantization};

/// Writes OUT: the checkpoint DIR with the numbers that its weights have after quantisation.
#[derive(Parser)]
struct Args {
    dir: PathBuf,
    quantization: Quantization,
    out: PathBuf,
}

/// What a tensor is to the decoder, by the last part of its name in any layout. Towers have the same names.
fn role(name: &str) -> Option<LinearRole> {
    let layer = name.strip_suffix(".weight").filter(|name| !name.contains("vision"))?;
    match layer.rsplit('.').next()? {
        "lm_head" | "output" => Some(LinearRole::Head),
        "wqkv" | "wo" | "w1" | "w2" | "w3" => Some(LinearRole::Decoder),
        last => last.ends_with("_proj").then_some(LinearRole::Decoder),
    }
}

fn rounded(name: &str, weight: &Tensor, quantization: Quantization) -> Result<Tensor> {
    let weight = weight.to_dtype(DType::F32)?;
    let Some(role) = role(name) else { return Ok(weight) };
    let (_, row_length) = weight.dims2().with_context(|| format!("{name} is no matrix"))?;
    let dtype = match quantization.format(role, row_length) {
        None => return Ok(weight),
        Some(BlockFormat::Q8_0) => GgmlDType::Q8_0,
        Some(BlockFormat::Q4_K) => GgmlDType::Q4K,
        Some(BlockFormat::Q4_0) => GgmlDType::Q4_0,
    };
    Ok(QTensor::quantize(&weight, dtype)?.dequantize(&Device::Cpu)?)
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut weights = HashMap::new();
    for entry in std::fs::read_dir(&args.dir).with_context(|| format!("cannot read {}", args.dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") && name.starts_with("model") {
            for (name, weight) in candle_core::safetensors::load(&path, &Device::Cpu)? {
                let rounded = rounded(&name, &weight, args.quantization)?;
                weights.insert(name, rounded);
            }
        } else if path.is_file() && !name.starts_with("model") && !name.starts_with("expected") {
            std::fs::copy(&path, args.out.join(&name)).with_context(|| format!("cannot copy {name}"))?;
        }
    }
    candle_core::safetensors::save(&weights, args.out.join("model.safetensors"))?;
    Ok(())
}
