//! Rotary positions, half-split (Su et al. 2021, in the arrangement of GPT-NeoX): angles in f32.

use candle_core::{Device, Result, Tensor};

/// Cosines and sines of every position.
#[derive(Clone, Debug)]
pub struct RopeTable {
    table: Tensor,
}

impl RopeTable {
    /// A table for `positions` positions of heads of width `head_dim`.
    pub fn new(positions: usize, head_dim: usize, theta: f64, device: &Device) -> Result<Self> {
        let half = head_dim / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / (theta as f32).powf(2.0 * i as f32 / head_dim as f32)).collect();
        let mut table = Vec::with_capacity(positions * head_dim);
        for position in 0..positions {
            table.extend(frequencies.iter().map(|f| (position as f32 * f).cos()));
            table.extend(frequencies.iter().map(|f| (position as f32 * f).sin()));
        }
        Ok(Self { table: Tensor::from_vec(table, (positions, head_dim), device)? })
    }

    /// `[positions, cosines | sines]`.
    pub fn tensor(&self) -> &Tensor {
        &self.table
    }
}

/// Writes `scale` times the rotated head `x` to `out`; `angles` is one row of the table.
pub fn rotate(x: &[f32], angles: &[f32], scale: f32, out: &mut [f32]) {
    let half = x.len() / 2;
    let (cos, sin) = angles.split_at(half);
    let (low, high) = x.split_at(half);
    let (out_low, out_high) = out.split_at_mut(half);
    for i in 0..half {
        out_low[i] = scale * (low[i] * cos[i] - high[i] * sin[i]);
        out_high[i] = scale * (high[i] * cos[i] + low[i] * sin[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_rotated_heads_depend_on_the_distance_alone() {
        let table = RopeTable::new(64, 8, 10_000.0, &Device::Cpu).unwrap();
        let rows: Vec<Vec<f32>> = table.tensor().to_vec2().unwrap();
        let (q, k) = ([0.3f32, -1.0, 0.5, 2.0, 1.0, -0.2, 0.7, 0.1], [1.0f32, 0.4, -0.6, 0.3, -1.0, 0.9, 0.2, 0.5]);
        let product = |i: usize, j: usize| {
            let (mut a, mut b) = ([0f32; 8], [0f32; 8]);
            rotate(&q, &rows[i], 1.0, &mut a);
            rotate(&k, &rows[j], 1.0, &mut b);
            a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>()
        };
        assert!((product(5, 2) - product(45, 42)).abs() < 1e-4);
        assert!((product(5, 2) - product(5, 3)).abs() > 1e-2);
    }
}
