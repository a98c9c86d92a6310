//! What lives on a GPU while it computes: larger pieces of work than on a processor, rows in 32 bits where they are
//! summed, and quantised weights that are widened for products of many rows.

use super::needs::{KV_BLOCK_TOKENS, SINGLE, product, sum};
use crate::architecture::{ModelConfig, TextConfig, Tower, VisionConfig};
use crate::quantization::Quantization;

/// Tokens of prompts that are read in one step at most.
pub const GPU_PREFILL_TOKENS: u64 = 4096;
/// Tiles that go through the tower at a time; they may be of several pictures.
pub const GPU_TILES_AT_A_TIME: u64 = 16;
/// Rows up to which products are made with quantised weights as they are.
pub const GPU_FEW_QUANTISED_ROWS: u64 = 64;
/// Numbers of quantised weights that are widened at a time, for products of more rows.
pub const GPU_WIDENED_NUMBERS: u64 = 32 << 20;
/// Rows of decode steps are padded to a multiple of this, where they are more than a few.
pub const GPU_PADDED_ROWS: u64 = 16;
/// Bytes of a number in 16 bits.
const HALF: u64 = 2;

/// What lives while as many tiles as go through the tower together are read: their pixels, a layer of the tower, and the
/// features and projected rows behind it.
pub(super) fn image(config: &ModelConfig) -> u64 {
    let vision = &config.vision;
    let tiles = GPU_TILES_AT_A_TIME;
    let side = vision.image_size as u64;
    let pixels = product([tiles, 3, side, side, SINGLE]);
    let rows = product([tiles, vision.tokens_per_tile() as u64]);
    let joined = product([vision.hidden_size as u64, vision.shuffle as u64, vision.shuffle as u64]);
    let features = product([rows, joined, SINGLE]);
    let projected = product([rows, config.text.hidden_size as u64, SINGLE]);
    // Twice: between its two layers, and in the order of the prompt.
    sum([pixels, tower_layer(vision, tiles).max(features.saturating_add(product([3, projected])))])
}

/// A layer of the tower: the stream before and behind it, and the larger of attention and the two layers behind that.
fn tower_layer(vision: &VisionConfig, tiles: u64) -> u64 {
    let patches = product([vision.grid() as u64, vision.grid() as u64]);
    let rows = product([tiles, patches.saturating_add(1)]);
    let width = vision.hidden_size as u64;
    let stream = product([2, width, SINGLE]);
    // Where queries and keys have norms of their own, those rows live beside them.
    let apart = if matches!(vision.tower, Tower::InternVit { qk_norm: true, .. }) { 2 } else { 0 };
    // The norm's rows; queries, keys and values, and what attention gives.
    let attention = sum([product([width, HALF]), product([4 + apart, width, SINGLE])]);
    let inner = sum([product([width, HALF]), product([2, vision.intermediate_size as u64, HALF])]);
    product([rows, stream.saturating_add(attention.max(inner))])
}

/// What lives while a step of the decoder is computed: the rows of a layer with widened weights, the cache's spare block,
/// the logits of all sequences and their copy for sampling, those of recorded steps, and the rotary angles of every
/// position. `token`: bytes of the keys and values of one.
pub(super) fn workspace(
    config: &ModelConfig,
    (quantization, token): (Quantization, u64),
    max_tokens: u64,
    sequences: u64,
) -> u64 {
    let text = &config.text;
    let rows = GPU_PREFILL_TOKENS.min(product([max_tokens, sequences])).saturating_add(sequences);
    let layer = layer(text, quantization, rows, widened(text, quantization, sequences));
    // One block of the cache belongs to no sequence: rows that only fill up a step write there.
    let spare = product([KV_BLOCK_TOKENS, token]);
    let logits = product([sequences, text.vocab_size as u64, 2, SINGLE]);
    let recorded = product([sequences.div_ceil(GPU_PADDED_ROWS), GPU_PADDED_ROWS, text.vocab_size as u64, SINGLE]);
    // Decoders with factors for long sequences have two tables.
    let angles = product([max_tokens, text.head_dim as u64, 2, SINGLE]);
    sum([layer, spare, logits, recorded, angles])
}

/// What lives at a time of `rows` rows of a layer, beside `widened` bytes of weights where products are made of them.
fn layer(text: &TextConfig, quantization: Quantization, rows: u64, widened: u64) -> u64 {
    let (width, inner) = (text.hidden_size as u64, text.intermediate_size as u64);
    let queries = product([text.heads as u64, text.head_dim as u64]);
    let qkv = product([(text.heads + 2 * text.kv_heads) as u64, text.head_dim as u64]);
    let plain = quantization == Quantization::None;
    // Beside quantised weights all rows are in 32 bits, and what is added to the stream lives beside it and the sum.
    let number = if plain { HALF } else { SINGLE };
    let added = if plain { 0 } else { product([2, width, SINGLE]) };
    let [normed, gated] = [width, inner].map(|length| product([length, number]));
    let mixed = product([queries, number]);
    let while_multiplied = [
        normed.saturating_add(product([qkv, SINGLE])),
        mixed.saturating_add(added),
        normed.saturating_add(product([2, gated])),
        gated.saturating_add(added),
    ];
    let between = [product([qkv, SINGLE]).saturating_add(mixed), product([3, gated])];
    let most = |parts: &[u64]| parts.iter().copied().max().unwrap_or_default();
    let multiplied = product([rows, most(&while_multiplied)]).saturating_add(widened);
    // The embeddings, and the stream that begins with them.
    let stream = product([rows, 2, width, SINGLE]);
    stream.saturating_add(multiplied.max(product([rows, most(&between)])))
}

/// As much as is widened of the largest weight at a time, in 32 bits, where weights are quantised: of the head only
/// beside many sequences.
fn widened(text: &TextConfig, quantization: Quantization, sequences: u64) -> u64 {
    if quantization == Quantization::None {
        return 0;
    }
    let head = if sequences > GPU_FEW_QUANTISED_ROWS { text.vocab_size as u64 } else { 0 };
    let qkv = product([(text.heads + 2 * text.kv_heads) as u64, text.head_dim as u64]);
    let outputs = product([2, text.intermediate_size as u64]).max(qkv).max(head);
    product([product([outputs, text.hidden_size as u64]).min(GPU_WIDENED_NUMBERS), SINGLE])
}
