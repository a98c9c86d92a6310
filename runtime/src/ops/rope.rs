//! Rotary positions, half-split (Su et al. 2021, in the arrangement of GPT-NeoX): angles in f32. Phi-3's
//! two sets of frequencies (Ding et al. 2024) are two tables, of which a sequence takes one for its whole life.

use candle_core::{Device, Result, Tensor, bail};
use vlm_catalog::architecture::{LongRope, TextConfig};

use super::Batch;

/// Cosines and sines of every position.
#[derive(Clone, Debug)]
pub struct RopeTable {
    table: Tensor,
    /// Positions of short sequences; the rows of long ones follow.
    short: usize,
    /// Positions of long sequences.
    long: usize,
}

impl RopeTable {
    /// A table for `positions` positions of heads of width `head_dim`.
    pub fn new(positions: usize, head_dim: usize, theta: f64, device: &Device) -> Result<Self> {
        let mut table = Vec::with_capacity(positions * head_dim);
        extend(&mut table, positions, &frequencies(head_dim, theta, None), 1.0);
        Ok(Self { table: Tensor::from_vec(table, (positions, head_dim), device)?, short: positions, long: 0 })
    }

    /// The table of a decoder for sequences of up to `positions` tokens.
    pub fn of(config: &TextConfig, positions: usize, device: &Device) -> Result<Self> {
        let Some(LongRope { short, long, original_positions, attention_factor }) = &config.long_rope else {
            return Self::new(positions, config.head_dim, config.rope_theta, device);
        };
        let (head_dim, theta) = (config.head_dim, config.rope_theta);
        let of_short = positions.min(*original_positions);
        let of_long = if positions > *original_positions { positions } else { 0 };
        let mut table = Vec::with_capacity((of_short + of_long) * head_dim);
        for (positions, factors) in [(of_short, short), (of_long, long)] {
            extend(&mut table, positions, &frequencies(head_dim, theta, Some(factors)), *attention_factor as f32);
        }
        let table = Tensor::from_vec(table, (of_short + of_long, head_dim), device)?;
        Ok(Self { table, short: of_short, long: of_long })
    }

    /// `[positions of short sequences, then of long ones; cosines | sines]`.
    pub fn tensor(&self) -> &Tensor {
        &self.table
    }

    /// The table's row for a position.
    pub fn row(&self, position: usize, long: bool) -> usize {
        if long { self.short + position } else { position }
    }

    /// Refuses rows at positions that the table does not have.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        for row in batch.rows() {
            let positions = if row.long { self.long } else { self.short };
            if row.position >= positions {
                bail!("position {} is beyond the {positions} positions of the model", row.position)
            }
        }
        Ok(())
    }
}

/// Angles a position, each divided by its factor.
fn frequencies(head_dim: usize, theta: f64, factors: Option<&Vec<f64>>) -> Vec<f32> {
    let power = |i: usize| (theta as f32).powf(2.0 * i as f32 / head_dim as f32);
    let factor = |i: usize| factors.and_then(|factors| factors.get(i)).map_or(1.0, |factor| *factor as f32);
    (0..head_dim / 2).map(|i| 1.0 / (factor(i) * power(i))).collect()
}

fn extend(table: &mut Vec<f32>, positions: usize, frequencies: &[f32], scale: f32) {
    for position in 0..positions {
        table.extend(frequencies.iter().map(|f| scale * (position as f32 * f).cos()));
        table.extend(frequencies.iter().map(|f| scale * (position as f32 * f).sin()));
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

    fn phi3(original_positions: usize) -> TextConfig {
        let long_rope =
            LongRope { short: vec![1.0, 2.0], long: vec![4.0, 8.0], original_positions, attention_factor: 1.5 };
        TextConfig {
            vocab_size: 8,
            hidden_size: 4,
            intermediate_size: 4,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 4,
            rope_theta: 100.0,
            long_rope: Some(long_rope),
            rms_norm_eps: 1e-5,
            max_positions: 64,
            qkv_bias: false,
            eos_token_ids: Vec::new(),
        }
    }

    #[test]
    fn long_sequences_have_angles_of_their_own_from_the_first_position_on() {
        let table = RopeTable::of(&phi3(16), 64, &Device::Cpu).unwrap();
        let rows: Vec<Vec<f32>> = table.tensor().to_vec2().unwrap();
        let near = |row: &[f32], angles: [f32; 2]| {
            let want = [angles[0].cos(), angles[1].cos(), angles[0].sin(), angles[1].sin()];
            row.iter().zip(want).all(|(got, want)| (got - 1.5 * want).abs() < 1e-5)
        };
        assert!(near(&rows[table.row(3, false)], [3.0, 3.0 / 10.0 / 2.0]));
        assert!(near(&rows[table.row(3, true)], [3.0 / 4.0, 3.0 / 10.0 / 8.0]));
        assert!(near(&rows[table.row(63, true)], [63.0 / 4.0, 63.0 / 10.0 / 8.0]));
    }

    #[test]
    fn positions_beyond_a_table_are_refused() {
        let table = RopeTable::of(&phi3(16), 64, &Device::Cpu).unwrap();
        let check =
            |start, long| table.check(&Batch::new(&[super::super::Segment { blocks: &[], start, rows: 1, long }]));
        assert!(check(15, false).is_ok() && check(63, true).is_ok());
        assert!(check(16, false).is_err() && check(64, true).is_err());
        let short = RopeTable::of(&phi3(16), 16, &Device::Cpu).unwrap();
        assert_eq!(short.tensor().dims(), [16, 4]);
    }
}
