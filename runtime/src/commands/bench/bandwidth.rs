//! How fast a device reads its memory: the most that products of few rows can reach.

use std::time::{Duration, Instant};

use candle_core::{Device, Result, Tensor};

use crate::ops::read;

/// Numbers that are read, far beyond every cache: 1 GiB on a GPU, less on a processor, which has less memory to give.
const ON_GPU: usize = 1 << 28;
const ON_CPU: usize = 1 << 26;
/// Measurements, of which the middle counts.
const REPEATS: usize = 9;
/// Reads of each, one behind the other, so that what begins and ends them hardly counts.
const READS: usize = 10;

/// Bytes a second.
pub fn measure(device: &Device) -> Result<f64> {
    let numbers = if device.is_cpu() { ON_CPU } else { ON_GPU };
    // Not zeros, which some memory keeps shorter.
    let x = Tensor::rand(0f32, 1.0, numbers, device)?;
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS + 2 {
        device.synchronize()?;
        let begun = Instant::now();
        for _ in 0..READS {
            read(&x)?;
        }
        device.synchronize()?;
        times.push(begun.elapsed());
    }
    // The first make memory and kernels ready.
    let mut times = times.split_off(2);
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or(Duration::MAX);
    Ok((READS * numbers * size_of::<f32>()) as f64 / middle.as_secs_f64())
}
