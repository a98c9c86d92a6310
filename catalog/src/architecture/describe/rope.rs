//! Rotary positions: base, kind of scaling, and up to which length they are the model's own.

use super::super::raw::{RawRope, RawText};
use super::super::{ArchitectureError, LongRope};
use super::fields::{Fields, invalid, shortened, unsupported};

/// Rotary positions of a decoder.
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Factors on the frequencies.
    pub long: Option<LongRope>,
    /// Longest sequence.
    pub max_positions: usize,
}

/// The rotary positions of `raw`, for heads of `head_dim` and sequences of up to `positions` tokens.
pub fn describe(raw: &RawText, at: Fields, head_dim: usize, positions: usize) -> Result<Rope, ArchitectureError> {
    let none = RawRope::default();
    let (place, parameters) = match (&raw.rope_parameters, &raw.rope_scaling) {
        (Some(parameters), _) => ("rope_parameters", parameters),
        (None, Some(scaling)) => ("rope_scaling", scaling),
        (None, None) => ("rope_scaling", &none),
    };
    let theta = parameters.rope_theta.or(raw.rope_theta).unwrap_or(10_000.0);
    if !(theta > 1.0 && theta <= 1e12) {
        return Err(invalid(&at.path("rope_theta"), &theta, "between 1 and 1e12"));
    }
    let share = parameters.partial_rotary_factor.or(raw.partial_rotary_factor).unwrap_or(1.0);
    if (share - 1.0).abs() > f64::EPSILON {
        return Err(unsupported(&format!("{} = {share}", at.path("partial_rotary_factor")), "1"));
    }
    let original = parameters.original_max_position_embeddings;
    match parameters.rope_type.as_deref().or(parameters.kind.as_deref()) {
        None | Some("default") => Ok(Rope { theta, long: None, max_positions: positions }),
        // Acts only on longer sequences than the model was trained on, which are not served: cached keys would
        // keep the angles of a shorter one.
        Some("dynamic") => {
            let original = at.number("original_max_position_embeddings", original, 1 << 22, 1 << 22)?;
            Ok(Rope { theta, long: None, max_positions: positions.min(original) })
        }
        Some("su" | "longrope") => {
            let original = original.or(raw.original_max_position_embeddings);
            let original = at.number("original_max_position_embeddings", original, 4096, 1 << 22)?;
            let long = long_rope(parameters, (at, place), head_dim / 2, positions, original)?;
            Ok(Rope { theta, long: Some(long), max_positions: positions })
        }
        Some(other) => {
            let what = format!("the rotary scaling {other:?} ({})", at.path(place));
            Err(unsupported(&what, "default, dynamic, longrope, su"))
        }
    }
}

/// Phi-3's factors, `count` in each list (Ding et al. 2024).
fn long_rope(
    raw: &RawRope,
    (at, place): (Fields, &str),
    count: usize,
    positions: usize,
    original: usize,
) -> Result<LongRope, ArchitectureError> {
    let factors = |name: &str, list: &Option<Vec<f64>>| {
        let field = || at.path(&format!("{place}.{name}"));
        let list = list.as_deref().unwrap_or_default();
        if list.len() == count && list.iter().all(|factor| (1e-6..=1e6).contains(factor)) {
            Ok(list.to_vec())
        } else {
            let expected = format!("{count} numbers between 1e-6 and 1e6, half the width of a head");
            Err(invalid(&field(), &shortened(list), &expected))
        }
    };
    if original < 2 {
        return Err(invalid(&at.path("original_max_position_embeddings"), &original, "at least 2"));
    }
    let extension = positions as f64 / original as f64;
    let derived = if extension <= 1.0 { 1.0 } else { (1.0 + extension.ln() / (original as f64).ln()).sqrt() };
    let attention_factor = raw.attention_factor.unwrap_or(derived);
    if !(attention_factor > 0.0 && attention_factor <= 1e3) {
        return Err(invalid(&at.path(&format!("{place}.attention_factor")), &attention_factor, "between 0 and 1000"));
    }
    Ok(LongRope {
        short: factors("short_factor", &raw.short_factor)?,
        long: factors("long_factor", &raw.long_factor)?,
        original_positions: original,
        attention_factor,
    })
}
