//! What loading takes beyond the weights that it leaves in memory: about one tensor. One test, because tests that
//! run beside it would be counted too.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/random_llava.rs"]
mod random_llava;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::DType;
use random_llava::Geometry;
use vlm_catalog::quantization::Quantization;
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::precision::Precision;

/// The system's allocator, with a count of the bytes that are and were in use.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe to implement; this one hands every call on")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GEOMETRY: Geometry = Geometry {
    vocabulary: 512,
    hidden: 1024,
    inner: 16_384,
    layers: 3,
    heads: 8,
    kv_heads: 8,
    vision_hidden: 32,
    vision_inner: 64,
    vision_layers: 2,
    vision_heads: 4,
    image: 28,
    patch: 14,
};
/// Bytes of the largest tensor as it is stored, in 16 bits.
const LARGEST: usize = 2 * GEOMETRY.inner * GEOMETRY.hidden;
/// What is widened or converted at a time, and everything small.
const SLACK: usize = 8 << 20;

#[test]
fn loading_takes_little_more_than_one_tensor() {
    let dir = tempfile::tempdir().unwrap();
    random_llava::write(dir.path(), &GEOMETRY);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let cases = [
        (DType::BF16, Quantization::None, LARGEST),
        // The tensor as it is stored and in the other format.
        (DType::F16, Quantization::None, 2 * LARGEST),
        (DType::F32, Quantization::None, 3 * LARGEST),
        // The tensor as it is stored, or a copy of the blocks of two of them (gate and up).
        (DType::BF16, Quantization::Int8, LARGEST + LARGEST / 8),
        (DType::F16, Quantization::Int4, LARGEST),
    ];
    for (dtype, quantization, most) in cases {
        let before = USED.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let model = VisionLanguage::load(&checkpoint, 64, Precision { dtype, quantization, ..Precision::F32 }).unwrap();
        let (peak, held) = (PEAK.load(Ordering::Relaxed) - before, USED.load(Ordering::Relaxed) - before);
        let weights = model.weights();
        assert!(held as u64 >= weights.bytes && held as u64 - weights.bytes < SLACK as u64, "{held} {weights:?}");
        let extra = peak - held;
        assert!(extra < most + SLACK, "{dtype:?}, {quantization}: {} MiB beyond {} MiB", extra >> 20, held >> 20);
        drop(model);
    }
}
