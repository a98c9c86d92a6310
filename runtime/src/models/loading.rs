//! How tensors of a checkpoint become weights in memory, one at a time: in 32 or 16 bits or quantised; and what all
//! of them take. Norms, biases, positions and the like stay in f32.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use vlm_catalog::quantization::{BlockFormat, LinearRole, Quantization};

use super::start;
use crate::checkpoint::{CheckpointError, LinearTensors, NormTensors};
use crate::ops::{BlockBuilder, Blocks, Linear, Weight, largest};
use crate::precision::Precision;

/// The largest number of f16, in which the scales of blocks are as well.
const F16_MAX: f32 = 65_504.0;

/// What the weights of a loaded model take. A tied head that is not quantised is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldWeights {
    /// Numbers.
    pub parameters: u64,
    /// Bytes in memory.
    pub bytes: u64,
    /// Numbers that are quantised.
    pub quantised_parameters: u64,
    /// Bytes in memory of what is quantised.
    pub quantised_bytes: u64,
    /// Weights that did not get the first format of the quantisation because of the length of their rows, and what
    /// they got; `*` stands for the number of a layer.
    pub fallbacks: BTreeSet<String>,
}

impl HeldWeights {
    /// Bits of a weight, on average over all.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes as f64 * 8.0 / (self.parameters as f64).max(1.0)
    }

    pub(super) fn report(&self, precision: Precision, times: LoadTimes) {
        let fallbacks: Vec<_> = self.fallbacks.iter().map(String::as_str).collect();
        tracing::info!(
            quantization = precision.quantization.name(),
            dtype = precision.dtype.as_str(),
            parameters = self.parameters,
            bytes = self.bytes,
            bits_per_weight = format_args!("{:.2}", self.bits_per_weight()),
            quantized_parameters = self.quantised_parameters,
            quantized_bytes = self.quantised_bytes,
            fallbacks = fallbacks.join(", "),
            read_seconds = format_args!("{:.3}", times.read.as_secs_f64()),
            quantize_seconds = format_args!("{:.3}", times.quantise.as_secs_f64()),
            upload_seconds = format_args!("{:.3}", times.upload.as_secs_f64()),
            "weights loaded"
        );
    }
}

/// How long each part of a load took, all tensors together. Drawn weights are made in the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadTimes {
    /// From the files, in the number format in which they are held.
    pub read: Duration,
    /// Into blocks.
    pub quantise: Duration,
    /// Into the memory of the device.
    pub upload: Duration,
}

/// Adds the time that `work` takes.
fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    *total += begun.elapsed();
    done
}

/// A load under way.
pub struct Loading {
    precision: Precision,
    device: Device,
    held: HeldWeights,
    times: LoadTimes,
}

impl Loading {
    /// Weights will be held as `precision` says, in the memory of `device`.
    pub fn new(precision: Precision, device: &Device) -> Self {
        Self { precision, device: device.clone(), held: HeldWeights::default(), times: LoadTimes::default() }
    }

    /// Where the weights go.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What was loaded, once all of it has arrived.
    pub fn finish(mut self) -> Result<(HeldWeights, LoadTimes), CheckpointError> {
        timed(&mut self.times.upload, || self.device.synchronize()).map_err(|e| start(&e))?;
        Ok((self.held, self.times))
    }

    /// A tensor that stays in f32.
    pub fn vector(&mut self, tensor: &Tensor) -> Result<Tensor, CheckpointError> {
        self.count(tensor.elem_count(), 4 * tensor.elem_count());
        tensor.to_device(&self.device).map_err(|e| start(&e))
    }

    /// The tensors of a norm.
    pub fn norm(&mut self, norm: &NormTensors) -> Result<NormTensors, CheckpointError> {
        let bias = norm.bias.as_ref().map(|bias| self.vector(bias)).transpose()?;
        Ok(NormTensors { weight: self.vector(&norm.weight)?, bias })
    }

    /// A linear layer of the tower or the projector.
    pub fn linear(&mut self, tensors: &LinearTensors<'_>) -> Result<Linear, CheckpointError> {
        let weight = self.dense(tensors)?;
        self.with_bias(tensors, weight)
    }

    /// A linear layer of the decoder, or its head.
    pub fn quantised(&mut self, tensors: &LinearTensors<'_>, role: LinearRole) -> Result<Linear, CheckpointError> {
        let weight = match self.format(tensors, role) {
            Some(format) => self.blocks(tensors, format)?,
            None => self.dense(tensors)?,
        };
        self.with_bias(tensors, weight)
    }

    /// The embedding: `[vocabulary, width]`.
    pub fn table(&mut self, tensors: &LinearTensors<'_>) -> Result<Tensor, CheckpointError> {
        let table = self.joined(tensors)?;
        self.count(table.elem_count(), table.elem_count() * table.dtype().size_in_bytes());
        Ok(table)
    }

    /// The head of a decoder that has none of its own: the embedding, which is quantised a second time where heads are.
    pub fn tied(&mut self, tensors: &LinearTensors<'_>, embedding: &Tensor) -> Result<Linear, CheckpointError> {
        let weight = match self.format(tensors, LinearRole::Head) {
            Some(format) => self.blocks(tensors, format)?,
            None => Weight::Dense(embedding.clone()),
        };
        Ok(Linear::new(weight, None))
    }

    fn with_bias(&mut self, tensors: &LinearTensors<'_>, weight: Weight) -> Result<Linear, CheckpointError> {
        let bias = tensors.bias()?.map(|bias| self.vector(&bias)).transpose()?;
        Ok(Linear::new(weight, bias))
    }

    fn dense(&mut self, tensors: &LinearTensors<'_>) -> Result<Weight, CheckpointError> {
        let weight = Weight::Dense(self.joined(tensors)?);
        self.count(tensors.output() * tensors.input(), weight.bytes());
        Ok(weight)
    }

    /// All parts as one tensor on the device. One part at a time is in memory beside it.
    fn joined(&mut self, tensors: &LinearTensors<'_>) -> Result<Tensor, CheckpointError> {
        let (names, dtype) = (tensors.names(), self.precision.dtype);
        let mut parts = tensors.weights().zip(&names);
        let mut next = |times: &mut LoadTimes| {
            timed(&mut times.read, || parts.next().map(|(part, name)| converted(&part?, name, dtype))).transpose()
        };
        if names.len() == 1
            && let Some(part) = next(&mut self.times)?
        {
            // To give the memory of a part back takes long as well.
            let put = || {
                let part = part;
                part.to_device(&self.device)
            };
            return timed(&mut self.times.upload, put).map_err(|e| start(&e));
        }
        let shape = (tensors.output(), tensors.input());
        let room = || Tensor::zeros(shape, dtype, &self.device);
        let joined = timed(&mut self.times.upload, room).map_err(|e| start(&e))?;
        let mut row = 0;
        while let Some(part) = next(&mut self.times)? {
            let (first, device) = (row, &self.device);
            row += part.dims().first().copied().unwrap_or_default();
            let put = || {
                let part = part;
                joined.slice_set(&part.to_device(device)?, 0, first)
            };
            timed(&mut self.times.upload, put).map_err(|e| start(&e))?;
        }
        Ok(joined)
    }

    /// All parts quantised. One part at a time is in memory beside the blocks.
    fn blocks(&mut self, tensors: &LinearTensors<'_>, format: BlockFormat) -> Result<Weight, CheckpointError> {
        let blocks = match tensors.drawn() {
            Some((spread, seed)) => {
                let dims = (tensors.output(), tensors.input());
                let drawn = || Blocks::drawn(format, dims, spread, seed, &self.device);
                timed(&mut self.times.read, drawn).map_err(|e| start(&e))?
            }
            None => self.blocks_of(tensors, format)?,
        };
        let weight = Weight::Blocks(blocks);
        self.count(tensors.output() * tensors.input(), weight.bytes());
        self.held.quantised_parameters += (tensors.output() * tensors.input()) as u64;
        self.held.quantised_bytes += weight.bytes() as u64;
        Ok(weight)
    }

    fn blocks_of(&mut self, tensors: &LinearTensors<'_>, format: BlockFormat) -> Result<Blocks, CheckpointError> {
        let failed = |name: &str, e: &candle_core::Error| CheckpointError::Start(format!("quantising {name}: {e}"));
        let names = tensors.names();
        let first = names.first().map(String::as_str).unwrap_or_default();
        let mut builder =
            BlockBuilder::new(format, tensors.output(), tensors.input()).map_err(|e| failed(first, &e))?;
        let mut parts = tensors.weights().zip(&names);
        while let Some((part, name)) = timed(&mut self.times.read, || parts.next()) {
            let part = part?;
            timed(&mut self.times.quantise, || {
                let part = part;
                check_range(&part, name, "a quantised weight", "load it without quantization")?;
                builder.append(&part).map_err(|e| failed(name, &e))
            })?;
        }
        timed(&mut self.times.upload, || builder.finish(&self.device)).map_err(|e| failed(first, &e))
    }

    /// The format that the quantisation gives a weight, noted when it is not the one that it gives others.
    fn format(&mut self, tensors: &LinearTensors<'_>, role: LinearRole) -> Option<BlockFormat> {
        let quantization = self.precision.quantization;
        let format = quantization.format(role, tensors.input());
        // Rows of 256 numbers are whole blocks of every format.
        let usual = quantization.format(role, 256);
        if quantization != Quantization::None && format != usual {
            let got = format.map_or_else(|| self.precision.dtype.as_str().to_owned(), |format| format.to_string());
            let names = tensors.names();
            self.held.fallbacks.extend(names.iter().map(|name| format!("{} ({got})", without_number(name))));
        }
        format
    }

    fn count(&mut self, parameters: usize, bytes: usize) {
        self.held.parameters += parameters as u64;
        self.held.bytes += bytes as u64;
    }
}

/// A tensor of the checkpoint in the number format in which it will be held.
fn converted(part: &Tensor, name: &str, dtype: DType) -> Result<Tensor, CheckpointError> {
    // Of stored f16 as well: its products take every weight for finite.
    if dtype == DType::F16 {
        check_range(part, name, "f16", "load it as bf16 or f32")?;
    }
    part.to_dtype(dtype).map_err(|e| start(&e))
}

/// Refuses a tensor with numbers beyond the range of f16, or with some that are not finite. One that is on a GPU before
/// it is loaded was drawn there, within the range.
fn check_range(tensor: &Tensor, name: &str, format: &str, mend: &'static str) -> Result<(), CheckpointError> {
    if !tensor.device().is_cpu() {
        return Ok(());
    }
    let value = largest(tensor).map_err(|e| start(&e))?;
    if !value.is_finite() {
        return Err(CheckpointError::NotFiniteTensor { name: name.to_owned() });
    }
    if value > F16_MAX {
        let (name, format) = (name.to_owned(), format.to_owned());
        return Err(CheckpointError::Range { name, value, format, limit: F16_MAX, mend });
    }
    Ok(())
}

/// The name with `*` for the number of the layer.
fn without_number(name: &str) -> String {
    let part = |part: &str| if part.bytes().all(|b| b.is_ascii_digit()) { "*".to_owned() } else { part.to_owned() };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}
