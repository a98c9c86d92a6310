//! Numbers as weights and caches hold them, in 32 or 16 bits. Arithmetic is never done in 16 bits: numbers are
//! widened to f32 first.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::cpu;

/// 2¹¹², between the exponents of f16 and of f32.
const F16_SCALE: f32 = f32::from_bits((127 + 112) << 23);

/// Numbers that one thread compares at a time.
const COMPARED: usize = 1 << 18;

/// What a tensor in main memory may hold.
pub trait Stored: Copy + Send + Sync + 'static {
    /// Its name in candle.
    const DTYPE: DType;

    /// The elements of a storage; `None` when it has another format.
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;

    /// As [`Self::slice`], to write.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! stored {
    ($($element:ty: $variant:ident),+) => {$(
        impl Stored for $element {
            const DTYPE: DType = DType::$variant;

            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                if let CpuStorage::$variant(data) = storage { Some(data) } else { None }
            }

            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                if let CpuStorage::$variant(data) = storage { Some(data) } else { None }
            }
        }
    )+};
}
stored!(f32: F32, f16: F16, bf16: BF16, u8: U8);

/// A number format of weights and of cached keys and values.
pub trait Element: Stored {
    /// The same number in f32. Free of branches, so that loops over it become vector instructions.
    fn widen(self) -> f32;

    /// As [`Self::widen`], for a number that is known to be finite.
    #[inline(always)]
    fn widen_finite(self) -> f32 {
        self.widen()
    }

    /// The nearest number of this format; infinite beyond its range.
    fn narrow(value: f32) -> Self;

    /// `rows` rows of `width` numbers, one every `stride`, in f32, in `scratch` where that is another format; and the
    /// stride of the rows in what is given.
    #[inline(always)]
    fn widen_rows<'a>(
        stored: &'a [Self],
        (rows, width, stride): (usize, usize, usize),
        scratch: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        scratch.resize(rows * width, 0.0);
        for (row, wide) in stored.chunks(stride).zip(scratch.chunks_exact_mut(width)) {
            for (value, wide) in row[..width].iter().zip(wide) {
                *wide = value.widen();
            }
        }
        (scratch, width)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn widen_rows<'a>(
        stored: &'a [Self],
        (_, _, stride): (usize, usize, usize),
        _scratch: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        (stored, stride)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        widen_f16(self.to_bits())
    }

    #[inline(always)]
    fn widen_finite(self) -> f32 {
        widen_finite_f16(self.to_bits())
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// The finite f16 of these bits in f32: a multiplication mends the exponent, that of subnormal numbers as well.
#[inline(always)]
pub fn widen_finite_f16(bits: u16) -> f32 {
    // The sign stays where it is, three places in between are cleared.
    f32::from_bits((i32::from(bits.cast_signed()) << 13).cast_unsigned() & 0x8fff_e000) * F16_SCALE
}

/// The f16 of these bits in f32. Numbers with the highest exponent, which are infinite or none, keep the highest.
#[inline(always)]
fn widen_f16(bits: u16) -> f32 {
    let highest = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(widen_finite_f16(bits).to_bits() | highest)
}

/// The largest magnitude in a tensor of f32, f16 or bf16; not finite when it has a number that is not.
pub fn largest(tensor: &Tensor) -> Result<f32> {
    fn of<E: Element>(values: &[E]) -> u32 {
        values.par_chunks(COMPARED).map(|part| cpu::vectorised(Largest(part))).max().unwrap_or(0)
    }
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("the tensor is not in main memory") };
    let bits = match tensor.dtype() {
        DType::F16 => of(cpu::stored::<f16>(storage, layout)?),
        DType::BF16 => of(cpu::stored::<bf16>(storage, layout)?),
        _ => of(cpu::stored::<f32>(storage, layout)?),
    };
    Ok(f32::from_bits(bits))
}

/// Magnitudes are ordered as their bits are; the highest exponent stands for what is not finite.
struct Largest<'a, E>(&'a [E]);

impl<E: Element> WithSimd for Largest<'_, E> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> u32 {
        self.0.iter().map(|value| value.widen().to_bits() & 0x7fff_ffff).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_16_bits_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (f16::from_bits(bits).widen(), f16::from_bits(bits).to_f32_const());
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}: {got} vs {want}");
            let (got, want) = (bf16::from_bits(bits).widen(), bf16::from_bits(bits).to_f32_const());
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}: {got} vs {want}");
        }
    }

    #[test]
    fn the_largest_magnitude_says_when_a_number_is_not_finite() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let of = |values: &[f32]| largest(&Tensor::new(values, &Device::Cpu)?.to_dtype(dtype)?);
            assert_eq!(of(&[1.0, -2.5, 0.0]).unwrap().to_bits(), 2.5_f32.to_bits(), "{dtype:?}");
            assert!(!of(&[1.0, f32::NAN, 3.0]).unwrap().is_finite(), "{dtype:?}");
            assert!(!of(&[f32::NEG_INFINITY, 3.0]).unwrap().is_finite(), "{dtype:?}");
        }
        assert!(largest(&Tensor::new(&[1u32], &Device::Cpu).unwrap()).is_err());
    }
}
