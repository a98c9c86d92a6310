//! The next token of each row of logits, chosen where they are: a word a row leaves a GPU, and not the logits. The first
//! of the highest, or one drawn: a temperature, of that the likeliest k, of these the nucleus (Holtzman et al. 2020), of
//! that those with a minimal share (Nguyen et al. 2024).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, CHOOSE, Kernel, launch};

/// What is said of a row that has none.
const NONE: u32 = u32::MAX;
/// The weight of the highest. Weights are whole numbers, so that sums are the same in every order: a token with less than
/// a trillionth of the likeliest one's chance has none.
const ONE: f64 = (1u64 << 40) as f64;

/// How the token of one row is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// 0 is the first of the highest, and nothing else matters.
    pub temperature: f32,
    /// Smallest set of tokens whose probability reaches this; 1 is all.
    pub top_p: f32,
    /// Tokens with at least this share of the likeliest one's probability; 0 is all.
    pub min_p: f32,
    /// So many of the likeliest tokens; 0 is all.
    pub top_k: u32,
    /// Which of them: a number in `[0, 1)`, as all are as likely.
    pub draw: f64,
}

impl Choice {
    /// The first of the highest.
    pub const HIGHEST: Self = Self { temperature: 0.0, top_p: 1.0, min_p: 0.0, top_k: 0, draw: 0.0 };

    /// The token for `logits`; `None` where there is none, or one is not finite.
    pub fn of(&self, logits: &[f32]) -> Option<u32> {
        let mut best = (f32::NEG_INFINITY, NONE);
        for (id, logit) in (0..).zip(logits) {
            if *logit > best.0 {
                best = (*logit, id);
            }
        }
        if best.1 == NONE || !logits.iter().all(|logit| logit.is_finite()) {
            return None;
        }
        if self.temperature <= 0.0 || self.temperature.is_nan() {
            return Some(best.1);
        }
        let mut weights: Vec<u64> = logits.iter().map(|logit| self.weight(*logit, best.0)).collect();
        self.narrow(logits, &mut weights);
        let total: u64 = weights.iter().sum();
        let mut left = ((self.draw * total as f64) as u64).min(total.saturating_sub(1));
        for (id, weight) in (0..).zip(&weights) {
            if left < *weight {
                return Some(id);
            }
            left -= weight;
        }
        Some(best.1)
    }

    /// How likely a token is, beside the likeliest.
    fn weight(&self, logit: f32, highest: f32) -> u64 {
        (((f64::from(logit) - f64::from(highest)) / f64::from(self.temperature)).exp() * ONE) as u64
    }

    /// Leaves no weight to tokens that are not to be drawn. At least the likeliest keeps its own.
    fn narrow(&self, logits: &[f32], weights: &mut [u64]) {
        let top_k = self.top_k as usize;
        if (top_k > 0 && top_k < weights.len()) || self.top_p < 1.0 {
            let mut ids: Vec<usize> = (0..weights.len()).collect();
            ids.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(b)));
            let likeliest = if top_k > 0 { top_k.min(ids.len()) } else { ids.len() };
            let mut kept = likeliest;
            if self.top_p < 1.0 {
                let total: u64 = ids[..likeliest].iter().map(|id| weights[*id]).sum();
                let wanted = ((f64::from(self.top_p.max(0.0)) * total as f64).ceil() as u64).max(1);
                let mut sum = 0;
                kept = ids[..likeliest]
                    .iter()
                    .take_while(|id| {
                        let more = sum < wanted;
                        sum += weights[**id];
                        more
                    })
                    .count();
            }
            ids[kept..].iter().for_each(|id| weights[*id] = 0);
        }
        let least = (f64::from(self.min_p.clamp(0.0, 1.0)) * ONE).ceil() as u64;
        weights.iter_mut().filter(|weight| **weight < least).for_each(|weight| *weight = 0);
    }

    /// As the kernel reads it.
    #[cfg(feature = "cuda")]
    fn words(&self) -> [u32; 6] {
        let draw = self.draw.to_bits();
        let [temperature, top_p, min_p] = [self.temperature, self.top_p, self.min_p].map(f32::to_bits);
        [temperature, top_p, min_p, self.top_k, draw as u32, (draw >> 32) as u32]
    }
}

/// A token for each row of `[rows, width]` in f32; `None` for a row with a number that is not finite.
///
/// # Errors
/// Another number of choices than of rows.
pub fn choose(logits: &Tensor, choices: &[Choice]) -> Result<Vec<Option<u32>>> {
    Ok(chosen_ids(&choose_there(logits, choices)?.to_vec1::<u32>()?))
}

/// As [`choose`], where the tokens stay on the device: `[rows]` in u32, as [`chosen_ids`] reads them.
///
/// # Errors
/// As [`choose`].
pub fn choose_there(logits: &Tensor, choices: &[Choice]) -> Result<Tensor> {
    logits.contiguous()?.apply_op1_no_bwd(&Choose(choices))
}

/// The tokens of rows; `None` of one with a number that is not finite.
pub fn chosen_ids(ids: &[u32]) -> Vec<Option<u32>> {
    ids.iter().map(|id| (*id != NONE).then_some(*id)).collect()
}

struct Choose<'a>(&'a [Choice]);

impl Choose<'_> {
    fn dims(&self, layout: &Layout) -> Result<(usize, usize)> {
        let (rows, width) = layout.shape().dims2()?;
        if rows != self.0.len() {
            bail!("{} choices are not one for each of {rows} rows", self.0.len())
        }
        Ok((rows, width))
    }
}

impl CustomOp1 for Choose<'_> {
    fn name(&self) -> &'static str {
        "choose"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = self.dims(layout)?;
        let logits = cpu::slice(x, layout)?.chunks_exact(width.max(1));
        let chosen = logits.zip(self.0).map(|(logits, choice)| choice.of(logits).unwrap_or(NONE)).collect();
        Ok((CpuStorage::U32(chosen), rows.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &candle_core::CudaStorage, layout: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        const THREADS: usize = 1024;
        let (device, (rows, width)) = (&x.device, self.dims(layout)?);
        let (x, columns) = (cuda::slice::<f32>(x, layout)?, width as u32);
        let mut out = cuda::room::<u32>(device, rows)?;
        if rows > 0 {
            let words: Vec<u32> = self.0.iter().flat_map(Choice::words).collect();
            let (choices, config) = (device.clone_htod(&words)?, cuda::blocks([rows, 1, 1], THREADS, 0)?);
            launch!(Kernel::of(device, &CHOOSE, "choose")?, config, &x, &choices, &mut out, &columns)?;
        }
        Ok((cuda::storage(out, device), rows.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn each_row_gives_the_first_of_its_highest_and_a_broken_one_none() {
        let rows = [[0.5f32, 3.0, -1.0, 3.0], [-7.0, -8.0, -9.0, -6.0], [1.0, f32::NAN, 2.0, 0.0]];
        let rows = Tensor::new(&rows, &Device::Cpu).unwrap();
        let highest = |x: &Tensor| choose(x, &vec![Choice::HIGHEST; x.dim(0).unwrap()]).unwrap();
        assert_eq!(highest(&rows), [Some(1), Some(3), None]);
        assert_eq!(highest(&rows.narrow(0, 1, 1).unwrap()), [Some(3)]);
        let infinite = Tensor::new(&[[f32::INFINITY, 1.0], [f32::NEG_INFINITY, 1.0]], &Device::Cpu).unwrap();
        assert_eq!(highest(&infinite), [None, None]);
        assert!(choose(&rows, &[Choice::HIGHEST]).is_err());
    }

    #[test]
    fn rows_are_chosen_each_in_its_own_way() {
        let rows = Tensor::new(&[[1f32, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], &Device::Cpu).unwrap();
        let drawn = |draw| Choice { temperature: 1.0, draw, ..Choice::HIGHEST };
        assert_eq!(choose(&rows, &[drawn(0.6), drawn(0.99)]).unwrap(), [Some(2), Some(3)]);
        assert_eq!(choose(&rows, &[Choice::HIGHEST, drawn(0.3)]).unwrap(), [Some(0), Some(1)]);
    }
}
