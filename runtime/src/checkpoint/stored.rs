//! Where and how one tensor lies in a weight file, whatever kind of file that is, and the tensor out of it.

use std::ops::Range;

use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use thiserror::Error;
pub(super) use vlm_hub::header::{MAX_AXES, MAX_NAME, elements};

/// Numbers that one thread copies at a time.
const COPIED: usize = 1 << 16;

/// What is wrong with the inside of a weight file, without a full stop.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// It is cut short or garbled.
    #[error("{0}")]
    Malformed(String),
    /// It is of a kind that is not read.
    #[error("{0}")]
    Unsupported(String),
}

impl Fault {
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed(reason.into())
    }

    pub fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }
}

/// One tensor of a weight file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Elements from one to the next along each axis; `None` where the elements follow each other.
    pub strides: Option<Vec<usize>>,
    /// Bytes of the file, from the first element to the last.
    pub bytes: Range<usize>,
}

impl Stored {
    /// The tensor out of the bytes of its file, in the number format in which it is stored.
    ///
    /// # Errors
    /// What candle says; a number format that is not computed with is to be refused before.
    pub fn tensor(&self, file: &[u8], dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let bytes = file.get(self.bytes.clone()).unwrap_or_default();
        match &self.strides {
            None if device.is_cpu() => copied(bytes, dtype, &self.shape),
            None => Tensor::from_raw_buffer(bytes, dtype, &self.shape, device),
            Some(strides) => {
                let bytes = gather(bytes, &self.shape, strides, dtype.size_in_bytes());
                Tensor::from_raw_buffer(&bytes, dtype, &self.shape, device)
            }
        }
    }
}

/// The numbers that follow each other in `bytes`, copied by all threads: pages that are touched for the first time, in the
/// file and in memory, take most of the time.
fn copied(bytes: &[u8], dtype: DType, shape: &[usize]) -> candle_core::Result<Tensor> {
    fn of<const N: usize, E: WithDType>(
        bytes: &[u8],
        shape: &[usize],
        read: fn([u8; N]) -> E,
    ) -> candle_core::Result<Tensor> {
        let (numbers, _) = bytes.as_chunks::<N>();
        let numbers: Vec<E> = numbers.par_iter().with_min_len(COPIED).map(|bytes| read(*bytes)).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu)
    }
    match dtype {
        DType::F16 => of(bytes, shape, f16::from_le_bytes),
        DType::BF16 => of(bytes, shape, bf16::from_le_bytes),
        DType::F32 => of(bytes, shape, f32::from_le_bytes),
        _ => Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu),
    }
}

/// Elements of `size` bytes in the order of the axes. `bytes` has the last of them ([`extent`]).
pub(super) fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..count {
        out.extend_from_slice(bytes.get(at * size..(at + 1) * size).unwrap_or_default());
        for axis in (0..shape.len()).rev().filter(|axis| shape[*axis] > 1) {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * index[axis];
            index[axis] = 0;
        }
    }
    out
}

/// Numbers from the first element to behind the last; `None` beyond what a machine can count.
pub(super) fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(0usize, |sum, (side, stride)| sum.checked_add(side.checked_sub(1)?.checked_mul(*stride)?))?;
    last.checked_add(1)
}

/// Whether the elements follow each other; the stride of an axis of one element does not matter.
pub(super) fn contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().all(|(side, stride)| {
            let fits = *side == 1 || *stride == expected;
            expected = expected.saturating_mul(*side);
            fits
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_gathered_along_their_strides() {
        let bytes: Vec<u8> = (0..6).flat_map(|n| [n, 100 + n]).collect();
        // The transpose of 2 rows of 3.
        assert_eq!(gather(&bytes, &[3, 2], &[1, 3], 2), [0, 100, 3, 103, 1, 101, 4, 104, 2, 102, 5, 105]);
        // Every second column.
        assert_eq!(gather(&bytes, &[2, 2], &[3, 2], 2), [0, 100, 2, 102, 3, 103, 5, 105]);
        assert_eq!(gather(&bytes, &[], &[], 2), [0, 100]);
        // The stride of a single row is never walked.
        assert_eq!(gather(&bytes, &[1, 2], &[usize::MAX, 3], 2), [0, 100, 3, 103]);
    }

    #[test]
    fn what_follows_each_other_is_known() {
        assert!(contiguous(&[2, 3], &[3, 1]) && contiguous(&[], &[]) && contiguous(&[1, 3], &[99, 1]));
        assert!(contiguous(&[0, 3], &[5, 5]));
        assert!(!contiguous(&[3, 2], &[1, 3]) && !contiguous(&[2, 2], &[3, 1]) && !contiguous(&[4], &[0]));
    }

    #[test]
    fn counts_do_not_overflow() {
        assert_eq!(elements(&[usize::MAX, 2]), None);
        assert_eq!(elements(&[usize::MAX, 2, 0]), Some(0));
        assert_eq!(extent(&[2, 3], &[3, 1]), Some(6));
        assert_eq!(extent(&[3], &[usize::MAX]), None);
        assert_eq!(extent(&[2, 1], &[usize::MAX, 1]), None);
        assert_eq!(extent(&[0], &[7]), Some(0));
    }
}
