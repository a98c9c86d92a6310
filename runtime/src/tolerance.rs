//! How far from the reference a number may be, and the measures by which that is judged. The one table for the
//! tests, for `verify` and for published figures; compares numbers and knows nothing of where they come from. The
//! rows of 16 bits are three times the distance of the reference's own run in that format from its run in f32, the
//! worst over all reference cases; that of int4 against f32 is below the reference's own worst, 0.921. Both were
//! measured: `tests/fixtures/NUMERICS.md`.

use candle_core::DType;
use vlm_catalog::kv_cache::KvCacheDtype;
use vlm_catalog::quantization::Quantization;

use crate::precision::Precision;

/// What a difference may be; a side that is `None` is not judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Largest absolute difference.
    pub max_abs: Option<f32>,
    /// Least cosine of the angle between both, over all numbers.
    pub cosine: Option<f64>,
}

/// Normalised pixels: resizing is exact to the byte.
pub const PIXELS: Limit = max_abs(1e-5);
/// A sequence computed together with others, against the same computed alone, in f32.
pub const BATCHED: Limit = max_abs(1e-4);

/// From the vision tower to the decoder's input, which are never quantised.
pub const fn features(dtype: DType) -> Limit {
    match dtype {
        DType::F16 => F16,
        DType::BF16 => BF16,
        _ => max_abs(5e-4),
    }
}

/// Logits of an unquantised decoder.
pub const fn logits(dtype: DType) -> Limit {
    match dtype {
        DType::F16 => F16,
        DType::BF16 => BF16,
        _ => max_abs(2e-3),
    }
}

/// Logits of a quantised decoder, against the reference on the weights that quantisation leaves
/// (`dequantized`), or on those of the checkpoint. `None` without quantisation.
pub const fn quantized_logits(quantization: Quantization, dequantized: bool) -> Option<Limit> {
    match (quantization, dequantized) {
        (Quantization::None, _) => None,
        (Quantization::Int8 | Quantization::Int4, true) => Some(cosine(0.999)),
        (Quantization::Int8, false) => Some(cosine(0.998)),
        (Quantization::Int4, false) => Some(cosine(0.9)),
    }
}

/// Logits of a decoder as `precision` says, against the reference on the weights that quantisation leaves (`dequantized`), or
/// on those of the checkpoint: of keys and values in 8 bits those alone, where they cost more than the weights do.
pub fn decoded(precision: Precision, dequantized: bool) -> Limit {
    let limit = quantized_logits(precision.quantization, dequantized).unwrap_or(logits(precision.dtype));
    let least = match precision.kv_cache {
        KvCacheDtype::Auto => return limit,
        KvCacheDtype::Int8 => INT8_KV,
        KvCacheDtype::Fp8 => FP8_KV,
    };
    cosine(limit.cosine.map_or(least, |cosine| cosine.min(least)))
}

/// Share of an answer's tokens below which a comparison by [`judge`] says little.
pub const FEW_TOKENS: f64 = 0.25;

const F16: Limit = Limit { max_abs: Some(0.11), cosine: Some(0.99998) };
const BF16: Limit = Limit { max_abs: Some(0.98), cosine: Some(0.9989) };

/// As little as bf16 for everything costs; and what three bits behind the first leave of keys and values, less than twice
/// the worst of all reference cases, 0.9973.
const INT8_KV: f64 = 0.9989;
const FP8_KV: f64 = 0.995;

const fn max_abs(limit: f32) -> Limit {
    Limit { max_abs: Some(limit), cosine: None }
}

const fn cosine(limit: f64) -> Limit {
    Limit { max_abs: None, cosine: Some(limit) }
}

/// How far two equally long rows of numbers are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Largest absolute difference; infinite when a number is not finite.
    pub max_abs: f32,
    /// Mean absolute difference.
    pub mean_abs: f64,
    /// Cosine of the angle between both; 1 for two rows of zeros.
    pub cosine: f64,
}

impl Difference {
    /// Between what was computed and what was expected.
    pub fn between(got: &[f32], expected: &[f32]) -> Self {
        let (mut largest, mut sum) = (0.0_f32, 0.0);
        let (mut dot, mut norms) = (0.0, [0.0, 0.0]);
        for (&a, &b) in got.iter().zip(expected) {
            let difference = (a - b).abs();
            largest = largest.max(if difference.is_finite() { difference } else { f32::INFINITY });
            let (a, b) = (f64::from(a), f64::from(b));
            sum += (a - b).abs();
            dot += a * b;
            norms[0] += a * a;
            norms[1] += b * b;
        }
        let scale = (norms[0] * norms[1]).sqrt();
        let cosine = if norms == [0.0, 0.0] { 1.0 } else { dot / scale };
        Self { max_abs: largest, mean_abs: sum / got.len().max(1) as f64, cosine }
    }

    /// Why this is beyond `limit`, as the end of a sentence; `None` when it is within.
    pub fn beyond(&self, limit: &Limit) -> Option<String> {
        if !self.max_abs.is_finite() {
            return Some("it has numbers that are not finite".to_owned());
        }
        if let Some(most) = limit.max_abs.filter(|most| self.max_abs > *most) {
            return Some(format!("the largest difference is {:.3e}, and {most:e} is allowed", self.max_abs));
        }
        // A cosine that is not a number, of one row of zeros, is beyond every limit.
        let least = limit.cosine.filter(|least| self.cosine.is_nan() || self.cosine < *least)?;
        Some(format!("the cosine is {:.6}, and {least} is required", self.cosine))
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let max_abs = self.max_abs.map(|limit| format!("max {limit:e}"));
        let cosine = self.cosine.map(|limit| format!("cos {limit}"));
        let parts: Vec<String> = max_abs.into_iter().chain(cosine).collect();
        f.write_str(&parts.join(", "))
    }
}

/// A token judged by the reference's logits at its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The reference is sure, and the token is its own.
    Equal,
    /// The reference is not sure, and the token is one of those between which it could not choose.
    Undecided,
    /// Another token than any of those.
    Wrong,
}

/// Judges `token` where logits differ by up to `largest` in this case. The reference is sure when its best token
/// leads by more than twice that; otherwise the token must lie within twice that of the best.
pub fn judge(token: u32, reference: &[f32], largest: f32) -> Judgement {
    let best = reference.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let near = |logit: f32| logit >= best - 2.0 * largest;
    let chosen = reference.get(token as usize).is_some_and(|logit| near(*logit));
    match (chosen, reference.iter().filter(|logit| near(**logit)).count()) {
        (true, 1) => Judgement::Equal,
        (true, _) => Judgement::Undecided,
        (false, _) => Judgement::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_measured_and_judged() {
        let difference = Difference::between(&[1.0, 2.0, 2.0], &[1.0, 2.0, 2.5]);
        assert!((difference.max_abs - 0.5).abs() < 1e-6 && (difference.mean_abs - 0.5 / 3.0).abs() < 1e-9);
        assert!((difference.cosine - 10.0 / (9.0_f64 * 11.25).sqrt()).abs() < 1e-9);
        assert_eq!(difference.beyond(&max_abs(0.5)), None);
        assert!(difference.beyond(&max_abs(0.4)).unwrap().contains("4e-1"));
        assert_eq!(difference.beyond(&cosine(0.99)), None);
        assert!(difference.beyond(&cosine(0.999)).unwrap().contains("0.999"));
    }

    #[test]
    fn numbers_that_are_not_finite_are_beyond_every_limit() {
        for broken in [f32::NAN, f32::INFINITY] {
            for (got, expected) in
                [([broken, 1.0], [0.0, 1.0]), ([0.0, 1.0], [broken, 1.0]), ([broken; 2], [broken; 2])]
            {
                let difference = Difference::between(&got, &expected);
                assert!(difference.beyond(&cosine(0.0)).unwrap().contains("not finite"), "{got:?} {expected:?}");
            }
        }
        assert_eq!(Difference::between(&[0.0], &[0.0]).beyond(&cosine(0.999)), None);
        assert!(Difference::between(&[0.0], &[1.0]).beyond(&cosine(0.999)).is_some());
    }

    #[test]
    fn a_token_is_compared_where_the_reference_is_sure() {
        let reference = [0.0, 3.0, 2.5, -1.0];
        assert_eq!(judge(1, &reference, 0.2), Judgement::Equal);
        assert_eq!(judge(2, &reference, 0.2), Judgement::Wrong);
        assert_eq!(judge(1, &reference, 0.3), Judgement::Undecided);
        assert_eq!(judge(2, &reference, 0.3), Judgement::Undecided);
        assert_eq!(judge(0, &reference, 0.3), Judgement::Wrong);
        assert_eq!(judge(9, &reference, 9.0), Judgement::Wrong);
    }

    #[test]
    fn limits_are_written_in_full() {
        assert_eq!(BF16.to_string(), "max 9.8e-1, cos 0.9989");
        assert_eq!(PIXELS.to_string(), "max 1e-5");
        assert_eq!(features(DType::F32).to_string(), "max 5e-4");
    }

    #[test]
    fn quantised_logits_are_judged_by_what_they_are_compared_with() {
        assert_eq!(quantized_logits(Quantization::None, true), None);
        assert_eq!(quantized_logits(Quantization::Int4, true), Some(cosine(0.999)));
        assert_eq!(quantized_logits(Quantization::Int4, false), Some(cosine(0.9)));
        assert_eq!(features(DType::BF16), logits(DType::BF16));
    }

    #[test]
    fn keys_and_values_in_8_bits_ask_for_no_more_than_they_leave() {
        let of = |quantization, kv_cache, dequantized| {
            decoded(Precision { quantization, kv_cache, ..Precision::F32 }, dequantized)
        };
        assert_eq!(of(Quantization::None, KvCacheDtype::Auto, true), logits(DType::F32));
        assert_eq!(of(Quantization::Int8, KvCacheDtype::Auto, true), cosine(0.999));
        assert_eq!(of(Quantization::None, KvCacheDtype::Int8, false), cosine(INT8_KV));
        assert_eq!(of(Quantization::Int8, KvCacheDtype::Int8, false), cosine(0.998));
        assert_eq!(of(Quantization::Int8, KvCacheDtype::Fp8, true), cosine(FP8_KV));
        assert_eq!(of(Quantization::Int4, KvCacheDtype::Fp8, false), cosine(0.9));
    }
}
