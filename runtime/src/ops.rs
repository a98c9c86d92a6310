//! The fused operations of the models, one file each. `cpu_fwd` is the readable reference; a device
//! kernel stands beside it in the same file. Shapes are checked by the callers in `models`.
//!
//! Rows are tokens: activations are `[rows, width]`, the sequences of a step one after another, and
//! [`Batch`] says which rows belong to which sequence.

#![expect(clippy::inline_always, reason = "pulp compiles for a machine only what is inlined into its dispatch")]

mod activation;
mod attention;
mod batch;
mod choose;
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cuda")]
mod decoder;
mod element;
mod feed;
mod finite;
mod gather;
mod kv_cache;
mod linear;
mod norm;
mod normalise;
mod patches;
mod read;
mod residual;
mod rope;
mod stem;
mod tile_attention;
mod upload;

pub use activation::{activate, silu_mul};
pub use attention::{attention, store_and_attend};
#[cfg(feature = "cuda")]
pub use batch::DeviceRows;
pub use batch::{Batch, Row, Segment};
pub use choose::{Choice, choose, choose_there, chosen_ids};
#[cfg(feature = "cuda")]
pub use decoder::{Decoder, Parts};
pub use element::largest;
pub use feed::feed;
pub use finite::finite;
pub use gather::{gather, gather_at};
pub use kv_cache::{BLOCK_TOKENS, DUMMY_BLOCK, EightBits, KvCache, KvFormat, blocks_for, nth_table, room_for};
pub use linear::{BlockBuilder, Blocks, Linear, Weight};
pub use norm::{LayerNorm, RmsNorm};
pub use normalise::normalise;
pub use patches::patches;
pub use read::read;
pub use residual::{add, add_scaled};
pub use rope::RopeTable;
pub use stem::stem;
pub use tile_attention::tile_attention;
pub use upload::upload;
