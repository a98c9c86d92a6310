//! How fast a device reads its memory: the most that products of few rows can reach.

use std::time::{Duration, Instant};

use candle_core::{Device, Result, Tensor};

use crate::ops::read;

/// Numbers that are read, far beyond every cache: 1 GiB on a GPU, less on a processor, which has less memory to give.
const ON_GPU: usize = 1 << 28;
const ON_CPU: usize = 1 << 26;
/// Numbers of those that are drawn on a processor; the rest repeat them.
const DRAWN: usize = 1 << 20;
/// Measurements, of which the middle counts.
const REPEATS: usize = 9;
/// Reads of each on a GPU, one behind the other, so that what begins and ends them hardly counts.
const READS: usize = 10;

/// Bytes a second.
pub fn measure(device: &Device) -> Result<f64> {
    // Not zeros, which some memory keeps shorter. A processor draws slowly, and copies fast.
    let (x, reads) = if device.is_cpu() {
        (Tensor::cat(&vec![Tensor::rand(0f32, 1.0, DRAWN, device)?; ON_CPU / DRAWN], 0)?, 1)
    } else {
        (Tensor::rand(0f32, 1.0, ON_GPU, device)?, READS)
    };
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS + 2 {
        device.synchronize()?;
        let begun = Instant::now();
        for _ in 0..reads {
            read(&x)?;
        }
        device.synchronize()?;
        times.push(begun.elapsed());
    }
    // The first make memory and kernels ready.
    let mut times = times.split_off(2);
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or(Duration::MAX);
    Ok((reads * x.elem_count() * size_of::<f32>()) as f64 / middle.as_secs_f64())
}
