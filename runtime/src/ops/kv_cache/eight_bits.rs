//! Numbers in 8 bits that share a scale: those of one head of one token. The kernels have the same in
//! `kernels/eight_bits.cuh`, to the bit.

/// 2¹²⁰, between the exponents of E4M3 and of f32.
const FP8_SCALE: f32 = f32::from_bits((127 + 120) << 23);
/// 2⁻⁶⁴. A scale is no smaller, so that its inverse is a number too: what is that small becomes zero.
const LEAST_SCALE: f32 = f32::from_bits((127 - 64) << 23);

/// A format of 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EightBits {
    /// Signed integers up to 127.
    Int8,
    /// E4M3 (Micikevicius et al. 2022), up to 448.
    Fp8,
}

impl EightBits {
    /// The name that kernels have for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
        }
    }

    /// Largest number that it holds.
    const fn largest(self) -> f32 {
        match self {
            Self::Int8 => 127.0,
            Self::Fp8 => 448.0,
        }
    }

    /// The nearest of its numbers, ties to even ones, and the scale that they are times. A scale that is no number where one
    /// of `values` is none or infinite.
    pub fn round(self, values: &[f32], out: &mut [u8]) -> f32 {
        // Magnitudes are ordered as their bits are; the highest exponent stands for what is not finite.
        let highest = values.iter().map(|value| value.to_bits() & 0x7fff_ffff).max().unwrap_or_default();
        if highest >= 0x7f80_0000 {
            out.fill(0);
            return f32::NAN;
        }
        let scale = (f32::from_bits(highest) / self.largest()).max(LEAST_SCALE);
        let inverse = 1.0 / scale;
        for (value, out) in values.iter().zip(out) {
            let value = (value * inverse).clamp(-self.largest(), self.largest());
            *out = match self {
                Self::Int8 => (value.round_ties_even() as i8).cast_unsigned(),
                Self::Fp8 => round_fp8(value),
            };
        }
        scale
    }

    /// What is held, in f32.
    #[inline(always)]
    pub fn widen(self, held: &[u8], scale: f32, out: &mut [f32]) {
        match self {
            Self::Int8 => held.iter().zip(out).for_each(|(byte, out)| *out = f32::from(byte.cast_signed()) * scale),
            Self::Fp8 => held.iter().zip(out).for_each(|(byte, out)| *out = widen_fp8(*byte) * scale),
        }
    }
}

/// The nearest E4M3 of a number up to 448. The lowest bits of its exponent are those of f32 when 2⁻¹²⁰ is taken off, and
/// numbers without an exponent are then such there too; what is behind three bits of it is rounded off.
fn round_fp8(value: f32) -> u8 {
    let bits = (value.abs() * FP8_SCALE.recip()).to_bits();
    let rounded = (bits + 0x7_ffff + (bits >> 20 & 1)) >> 20;
    rounded as u8 | (value.to_bits() >> 24) as u8 & 0x80
}

#[inline(always)]
fn widen_fp8(byte: u8) -> f32 {
    // The sign stays where it is, four places in between are cleared.
    f32::from_bits((i32::from(byte.cast_signed()) << 20).cast_unsigned() & 0x87f0_0000) * FP8_SCALE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of E4M3, as its authors define them: bias 7, no infinities, one pattern of each sign that is no number.
    fn fp8() -> Vec<(u8, f64)> {
        let of = |byte: u8| {
            let (exponent, fraction) = (i32::from(byte >> 3 & 15), f64::from(byte & 7) / 8.0);
            let magnitude =
                if exponent == 0 { fraction * 2f64.powi(-6) } else { (1.0 + fraction) * 2f64.powi(exponent - 7) };
            if byte < 0x80 { magnitude } else { -magnitude }
        };
        (0..=u8::MAX).filter(|byte| byte & 0x7f != 0x7f).map(|byte| (byte, of(byte))).collect()
    }

    #[test]
    fn every_number_of_8_bits_is_what_it_is_and_its_own_nearest() {
        for (byte, want) in fp8() {
            assert_eq!(f64::from(widen_fp8(byte)).to_bits(), want.to_bits(), "{byte:#x}");
            assert_eq!(round_fp8(want as f32), byte);
        }
        let mut out = [0f32; 1];
        for byte in 0..=u8::MAX {
            EightBits::Int8.widen(&[byte], 0.5, &mut out);
            assert_eq!(out[0].to_bits(), (f32::from(byte.cast_signed()) / 2.0).to_bits());
        }
    }

    #[test]
    fn what_lies_between_goes_to_the_nearest_and_to_even_ones() {
        let mut all: Vec<(u8, f64)> = fp8().into_iter().filter(|(byte, _)| *byte < 0x80).collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        for pair in all.windows(2) {
            let [(low, below), (high, above)] = pair else { unreachable!() };
            let middle = f64::midpoint(*below, *above);
            let even = if low & 1 == 0 { *low } else { *high };
            let step = (above - below) / 1024.0;
            for (value, want) in [(middle - step, *low), (middle, even), (middle + step, *high)] {
                assert_eq!(round_fp8(value as f32), want, "{value} between {below} and {above}");
                assert_eq!(round_fp8(-value as f32), want | 0x80, "-{value}");
            }
        }
    }

    #[test]
    fn a_row_is_as_near_as_its_largest_number_allows() {
        let values: Vec<f32> = (-60..68).map(|n| (n as f32 * 0.37).sin() * 1e3).collect();
        for (format, relative, absolute) in [(EightBits::Int8, 0.0, 0.5 / 127.0), (EightBits::Fp8, 1.0 / 16.0, 1e-5)] {
            for magnitude in [1.0, 1e-12, 1e30] {
                let values: Vec<f32> = values.iter().map(|value| value * magnitude).collect();
                let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                let (mut held, mut got) = (vec![0; values.len()], vec![0f32; values.len()]);
                let scale = format.round(&values, &mut held);
                format.widen(&held, scale, &mut got);
                for (got, want) in got.iter().zip(&values) {
                    let most = relative * want.abs() + absolute * largest * 1.001;
                    assert!((got - want).abs() <= most, "{format:?}, times {magnitude}: {got} vs {want}");
                }
            }
        }
    }

    #[test]
    fn zeros_stay_and_what_is_no_number_is_not_lost() {
        for format in [EightBits::Int8, EightBits::Fp8] {
            let (mut held, mut got) = ([1u8; 3], [1f32; 3]);
            let scale = format.round(&[0.0, -0.0, 1e-30], &mut held);
            assert!(scale.recip().is_finite());
            format.widen(&held, scale, &mut got);
            assert!(got.iter().all(|number| number.abs() < f32::MIN_POSITIVE), "{got:?}");
            for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let scale = format.round(&[0.0, broken, 1.0], &mut held);
                format.widen(&held, scale, &mut got);
                assert!(got.iter().all(|number| number.is_nan()), "{format:?} of {broken}: {got:?}");
            }
        }
    }
}
