//! What a replica takes, part by part. Every number is an upper estimate of what lives at the same time; tests hold
//! them against measured peaks.

use serde::Serialize;

use super::{Device, MOST_CONCURRENT, Model, Wish, on_gpu};
use crate::architecture::{ModelConfig, VisionConfig};
use crate::checkpoint::Part;
use crate::quantization::Quantization;

/// Tokens of a block of the KV cache; sequences take whole blocks.
pub const KV_BLOCK_TOKENS: u64 = 32;
/// Tiles that go through the tower of a processor at a time; they may be of several pictures.
pub const TILES_AT_A_TIME: u64 = 4;
/// Tokens of prompts that a processor reads in one step.
pub const PREFILL_TOKENS: u64 = 512;

const MIB: u64 = 1 << 20;
/// The context of a GPU: driver state, loaded kernels.
const GPU_CONTEXT_BYTES: u64 = 512 * MIB;
/// The libraries' workspaces and the captured graphs of a GPU.
const GPU_LIBRARY_BYTES: u64 = 256 * MIB;
/// A process without a GPU: its code, request bodies, one decoded picture of 40 million pixels, the last prepared ones.
const PROCESS_BYTES: u64 = 256 * MIB;
/// Pictures that are kept on processor cores, and the most bytes of them, for the next request with the same one.
const KEPT_PICTURES: u64 = 32;
const MOST_KEPT_BYTES: u64 = 256 * MIB;
/// Bytes of pictures' rows that a server keeps for the next request with the same picture, where nothing else is said:
/// 32 large pictures of a model of 8 billion.
pub const PICTURE_CACHE_BYTES: u64 = 256 * MIB;
/// Bytes of a number in sums, logits and rotary angles.
pub(super) const SINGLE: u64 = 4;

/// What a replica takes, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Breakdown {
    /// Rows of the vocabulary.
    pub embedding_bytes: u64,
    /// Linear layers, norms and biases of the decoder.
    pub decoder_bytes: u64,
    /// The output head; a tied one that is not quantised takes nothing.
    pub head_bytes: u64,
    /// The vision tower.
    pub tower_bytes: u64,
    /// The projector, and the row that ends lines of tiles.
    pub projector_bytes: u64,
    /// What lives while the largest picture is read, and what is kept of earlier ones.
    pub image_bytes: u64,
    /// What lives while a step of the decoder is computed, rotary angles among it.
    pub workspace_bytes: u64,
    /// What the device's runtime, or the process, takes.
    pub context_bytes: u64,
    /// Keys and values of one token.
    pub kv_bytes_per_token: u64,
    /// Keys and values of one sequence of the longest context.
    pub kv_bytes: u64,
}

impl Breakdown {
    pub(super) fn of(
        model: Model<'_>,
        quantization: Quantization,
        wish: Wish,
        device: Device,
        max_tokens: u64,
    ) -> Self {
        let config = model.config;
        let number = match device {
            Device::Gpu { .. } => 2,
            Device::Cpu { .. } => SINGLE,
        };
        let sequences = wish.max_concurrency.unwrap_or(MOST_CONCURRENT);
        let token = wish.kv_cache_dtype.bytes_per_token(&config.text, number as usize);
        let held = |part| model.size.held_bytes(part, quantization, number);
        let mut breakdown = Self {
            embedding_bytes: held(Part::Embedding),
            decoder_bytes: held(Part::DecoderLinear).saturating_add(held(Part::DecoderNorm)),
            head_bytes: held(Part::Head),
            tower_bytes: held(Part::Tower),
            projector_bytes: held(Part::Projector).saturating_add(held(Part::Newline)),
            image_bytes: image(config),
            workspace_bytes: workspace(config, token, max_tokens, sequences),
            context_bytes: PROCESS_BYTES,
            kv_bytes_per_token: token,
            kv_bytes: 0,
        };
        if matches!(device, Device::Gpu { .. }) {
            breakdown.context_bytes = GPU_CONTEXT_BYTES;
            breakdown.image_bytes = on_gpu::image(config);
            let workspace = on_gpu::workspace(config, (quantization, token), max_tokens, sequences);
            breakdown.workspace_bytes = workspace.saturating_add(GPU_LIBRARY_BYTES);
        }
        let kept = picture_cache(config, device).unwrap_or(PICTURE_CACHE_BYTES);
        breakdown.image_bytes = breakdown.image_bytes.saturating_add(kept);
        breakdown.kv_bytes = breakdown.sequence_bytes(max_tokens);
        breakdown
    }

    /// All weights.
    pub fn weight_bytes(&self) -> u64 {
        sum([self.embedding_bytes, self.decoder_bytes, self.head_bytes, self.tower_bytes, self.projector_bytes])
    }

    /// Everything but keys and values.
    pub fn fixed_bytes(&self) -> u64 {
        sum([self.weight_bytes(), self.image_bytes, self.workspace_bytes, self.context_bytes])
    }

    /// Everything, with keys and values of one sequence of the longest context.
    pub fn required_bytes(&self) -> u64 {
        self.fixed_bytes().saturating_add(self.kv_bytes)
    }

    /// Bytes that the server's cache is to have, where `kv_bytes` are for sequences: its spare block is counted in
    /// `workspace_bytes`.
    pub(super) fn cache_bytes(&self, kv_bytes: u64) -> u64 {
        kv_bytes.saturating_add(self.sequence_bytes(1))
    }

    /// Keys and values of one sequence of `tokens`, in whole blocks.
    pub fn sequence_bytes(&self, tokens: u64) -> u64 {
        product([tokens.div_ceil(KV_BLOCK_TOKENS), KV_BLOCK_TOKENS, self.kv_bytes_per_token])
    }
}

/// Bytes that a server is to keep of pictures at most, where its own default is too much: 32 of the largest on
/// processor cores, whose memory limit leaves no room for what is not counted.
pub(super) fn picture_cache(config: &ModelConfig, device: Device) -> Option<u64> {
    let rows = product([KEPT_PICTURES, config.largest_image_tokens(), config.text.hidden_size as u64, SINGLE]);
    matches!(device, Device::Cpu { .. }).then(|| rows.min(MOST_KEPT_BYTES))
}

/// What lives on a processor while the largest picture is read: its pixels, and the larger of a layer of the tower beside the features
/// of all tiles, and the projector beside them.
fn image(config: &ModelConfig) -> u64 {
    let vision = &config.vision;
    let tiles = config.largest_image_tiles();
    let side = vision.image_size as u64;
    let rows = product([tiles, vision.tokens_per_tile() as u64]);
    let joined = product([vision.hidden_size as u64, vision.shuffle as u64, vision.shuffle as u64]);
    let width = config.text.hidden_size as u64;
    let features = product([rows, joined, SINGLE]);
    // The norm's rows, and the two layers' with the activation between.
    let projector = product([rows, joined.saturating_add(product([3, width])), SINGLE]);
    let pixels = product([tiles, 3, side, side, SINGLE]);
    let layer = tower_layer(vision);
    sum([pixels, features, projector.max(layer)])
}

/// The larger half of a layer of the tower: attention, whose scores live as they are and beside them in 32 bit for the
/// softmax, or the two layers behind it.
fn tower_layer(vision: &VisionConfig) -> u64 {
    let tiles = TILES_AT_A_TIME;
    let patches = (vision.grid() as u64).saturating_mul(vision.grid() as u64);
    let rows = patches.saturating_add(1);
    let width = vision.hidden_size as u64;
    let scores = product([tiles, vision.heads as u64, rows, rows, 2 * SINGLE]);
    // The stream and its norm; queries, keys and values, and the same by heads.
    let attention = scores.saturating_add(product([tiles, rows, 8, width, SINGLE]));
    let inner = sum([product([3, width]), product([2, vision.intermediate_size as u64])]);
    attention.max(product([tiles, rows, inner, SINGLE]))
}

/// What lives on a processor while a step of the decoder is computed: the rows of a layer, the cache's spare block, the
/// logits of all sequences and their copy for sampling, and the rotary angles of every position. `token`: bytes of the keys
/// and values of one.
fn workspace(config: &ModelConfig, token: u64, max_tokens: u64, sequences: u64) -> u64 {
    let text = &config.text;
    let rows = PREFILL_TOKENS.saturating_add(sequences);
    let qkv = product([(text.heads + 2 * text.kv_heads) as u64, text.head_dim as u64]);
    let row =
        sum([product([4, text.hidden_size as u64]), product([2, qkv]), product([3, text.intermediate_size as u64])]);
    let layer = product([rows, row, SINGLE]);
    // One block of the cache belongs to no sequence: rows that only fill up a step write there.
    let spare = product([KV_BLOCK_TOKENS, token]);
    let logits = product([sequences, text.vocab_size as u64, 2, SINGLE]);
    // Decoders with factors for long sequences have two tables.
    let angles = product([max_tokens, text.head_dim as u64, 2, SINGLE]);
    sum([layer, spare, logits, angles])
}

pub(super) fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

pub(super) fn sum<const N: usize>(terms: [u64; N]) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}
