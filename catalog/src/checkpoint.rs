//! How large a checkpoint is: the tensors of each part, their numbers, and the bytes they take in every number
//! format; from the model's description alone, or from the shapes of the tensors that are stored. Reads no file.

mod stored;

use serde::{Deserialize, Serialize};

use crate::architecture::{Family, ModelConfig, Tower};
use crate::quantization::{LinearRole, Quantization};

pub use stored::{StoredError, group};

/// Bytes of a number in 16 bit.
const HALF: u64 = 2;

/// Where the output head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A tensor of its own, as in every published checkpoint of the registry.
    Stored,
    /// The embedding.
    Tied,
}

/// Parts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// Rows of the vocabulary.
    Embedding,
    /// Linear layers of the decoder, without their biases.
    DecoderLinear,
    /// Norms and biases of the decoder.
    DecoderNorm,
    /// The output head.
    Head,
    /// The vision tower as it is stored, layers that do not run included.
    Tower,
    /// The projector.
    Projector,
    /// The row that ends each row of a grid of tiles (LLaVA-1.6).
    Newline,
}

/// Equal tensors of one part. Written as `[part, count, rows, row_length]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Part, u64, u64, u64)", into = "(Part, u64, u64, u64)")]
pub struct Tensors {
    /// The part.
    pub part: Part,
    /// How many there are.
    pub count: u64,
    /// Rows of each.
    pub rows: u64,
    /// Numbers in a row; of a linear layer its inputs, on which its number format depends.
    pub row_length: u64,
}

impl Tensors {
    /// Numbers in all of them.
    pub fn parameters(&self) -> u64 {
        self.count * self.rows * self.row_length
    }

    /// Bytes of all of them, at 16 bit where `quantization` leaves them as they are.
    pub fn bytes(&self, quantization: Quantization) -> u64 {
        self.held_bytes(quantization, HALF)
    }

    /// Bytes of all of them, at `number_bytes` a number where `quantization` leaves them as they are.
    pub fn held_bytes(&self, quantization: Quantization, number_bytes: u64) -> u64 {
        let role = match self.part {
            Part::DecoderLinear => LinearRole::Decoder,
            Part::Head => LinearRole::Head,
            _ => return self.parameters() * number_bytes,
        };
        match quantization.format(role, self.row_length as usize) {
            Some(format) => self.parameters() / format.block_len() as u64 * format.block_bytes() as u64,
            None => self.parameters() * number_bytes,
        }
    }
}

/// The tensors of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSize {
    tensors: Vec<Tensors>,
    head: Tensors,
    stored_head: bool,
}

impl CheckpointSize {
    /// Of the model `config`.
    pub fn of(config: &ModelConfig, head: Head) -> Self {
        let vocab = Shape { part: Part::Embedding, rows: config.text.vocab_size, row_length: config.text.hidden_size };
        let mut tensors = vec![vocab.times(1)];
        decoder(config, &mut tensors);
        tower(config, &mut tensors);
        projector(config, &mut tensors);
        let output = Shape { part: Part::Head, ..vocab }.times(1);
        let stored_head = head == Head::Stored;
        tensors.extend(stored_head.then_some(output));
        Self { tensors, head: output, stored_head }
    }

    /// All tensors that are stored.
    pub fn tensors(&self) -> &[Tensors] {
        &self.tensors
    }

    /// Numbers in the whole checkpoint.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(Tensors::parameters).sum()
    }

    /// Numbers in one part.
    pub fn parameters_of(&self, part: Part) -> u64 {
        self.of_part(part).map(Tensors::parameters).sum()
    }

    /// Bytes in memory: what is not quantised at 16 bit. A tied head that is quantised is held beside the
    /// embedding, which stays as it is.
    pub fn bytes(&self, quantization: Quantization) -> u64 {
        self.tensors.iter().map(|tensors| tensors.bytes(quantization)).sum::<u64>()
            + self.copied_head(quantization, HALF)
    }

    /// Bytes of one part in memory, at `number_bytes` a number where it is not quantised; the copy of a tied head
    /// counts as the head.
    pub fn held_bytes(&self, part: Part, quantization: Quantization, number_bytes: u64) -> u64 {
        let copy = if part == Part::Head { self.copied_head(quantization, number_bytes) } else { 0 };
        self.of_part(part).map(|tensors| tensors.held_bytes(quantization, number_bytes)).sum::<u64>() + copy
    }

    fn copied_head(&self, quantization: Quantization, number_bytes: u64) -> u64 {
        let quantised = quantization.format(LinearRole::Head, self.head.row_length as usize).is_some();
        if quantised && !self.stored_head { self.head.held_bytes(quantization, number_bytes) } else { 0 }
    }

    /// Bytes of the stored tensors of one part.
    pub fn bytes_of(&self, part: Part, quantization: Quantization) -> u64 {
        self.of_part(part).map(|tensors| tensors.bytes(quantization)).sum()
    }

    fn of_part(&self, part: Part) -> impl Iterator<Item = &Tensors> {
        self.tensors.iter().filter(move |tensors| tensors.part == part)
    }
}

impl From<(Part, u64, u64, u64)> for Tensors {
    fn from((part, count, rows, row_length): (Part, u64, u64, u64)) -> Self {
        Self { part, count, rows, row_length }
    }
}

impl From<Tensors> for (Part, u64, u64, u64) {
    fn from(Tensors { part, count, rows, row_length }: Tensors) -> Self {
        (part, count, rows, row_length)
    }
}

#[derive(Clone, Copy)]
struct Shape {
    part: Part,
    rows: usize,
    row_length: usize,
}

impl Shape {
    fn times(self, count: usize) -> Tensors {
        let Self { part, rows, row_length } = self;
        Tensors { part, count: count as u64, rows: rows as u64, row_length: row_length as u64 }
    }
}

fn decoder(config: &ModelConfig, tensors: &mut Vec<Tensors>) {
    let text = &config.text;
    let (width, inner) = (text.hidden_size, text.intermediate_size);
    let (queries, keys) = (text.heads * text.head_dim, text.kv_heads * text.head_dim);
    let linear = |rows, row_length| Shape { part: Part::DecoderLinear, rows, row_length };
    let small = |rows, count| Shape { part: Part::DecoderNorm, rows, row_length: 1 }.times(count);
    for shape in
        [linear(queries + 2 * keys, width), linear(width, queries), linear(2 * inner, width), linear(width, inner)]
    {
        tensors.push(shape.times(text.layers));
    }
    tensors.push(small(width, 2 * text.layers + 1));
    if text.qkv_bias {
        tensors.push(small(queries + 2 * keys, text.layers));
    }
}

fn tower(config: &ModelConfig, tensors: &mut Vec<Tensors>) {
    let vision = &config.vision;
    let (width, inner, layers) = (vision.hidden_size, vision.intermediate_size, vision.layers);
    let shape = |rows, row_length| Shape { part: Part::Tower, rows, row_length };
    let vector = |count| shape(1, width).times(count);
    let (rms_norm, qk_norm, qkv_bias, scales, stem_bias) = match vision.tower {
        Tower::Clip => (false, false, true, 0, 0),
        Tower::InternVit { rms_norm, qk_norm, qkv_bias } => (rms_norm, qk_norm, qkv_bias, 2, 1),
    };
    tensors.push(shape(width, 3 * vision.patch_size * vision.patch_size).times(1));
    // Positions of the class token and the patches; the class token itself and the stem's bias.
    tensors.push(shape(vision.grid() * vision.grid() + 1, width).times(1));
    tensors.push(vector(1 + stem_bias));
    if vision.tower == Tower::Clip {
        // Norms behind the stem and at the end, of which the last does not run.
        tensors.push(vector(4));
    }
    tensors.push(shape(width, width).times(4 * layers));
    tensors.push(shape(inner, width).times(2 * layers));
    tensors.push(shape(1, inner).times(layers));
    // Biases of attention's way out and of the second layer; norms; scales; norms and biases of queries and keys.
    let norms = if rms_norm { 2 } else { 4 };
    let vectors = 2 + norms + scales + 2 * usize::from(qk_norm) + 3 * usize::from(qkv_bias);
    tensors.push(vector(vectors * layers));
}

fn projector(config: &ModelConfig, tensors: &mut Vec<Tensors>) {
    let (width, joined) =
        (config.text.hidden_size, config.vision.hidden_size * config.vision.shuffle * config.vision.shuffle);
    let shape = |rows, row_length| Shape { part: Part::Projector, rows, row_length };
    tensors.push(shape(width, joined).times(1));
    tensors.push(shape(width, width).times(1));
    if config.projector.bias {
        tensors.push(shape(1, width).times(2));
    }
    if config.projector.norm {
        tensors.push(shape(1, joined).times(2));
    }
    if config.family == Family::LlavaNext {
        tensors.push(Shape { part: Part::Newline, rows: 1, row_length: width }.times(1));
    }
}
