//! The arithmetic of both passes, portable and with 256-bit instructions where the processor has them. Sums
//! wrap at 32 bits: the halves of the weights may overflow on the way, the whole sum never does.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;

use super::GROUP;
use super::taps::{Pair, Taps};

/// Two neighbouring pixels of a row: red, red, green, green, blue, blue, nothing, nothing.
type Couple = [i16; 8];

/// Which instructions to use.
#[derive(Clone, Copy, Debug)]
pub enum Passes {
    /// Those of every processor.
    Portable,
    /// 256 bits wide.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
}

/// [`GROUP`] rows of the source, in couples of pixels.
#[derive(Debug)]
pub struct Strip {
    /// The rows as bytes, with room behind each for a whole load.
    lines: Vec<u8>,
    stride: usize,
    couples: Vec<[Couple; GROUP]>,
}

impl Strip {
    /// An empty group of rows of `width` pixels.
    pub fn new(width: usize) -> Self {
        // Two couples are read at a time, 16 bytes of which 12 count.
        let couples = width.div_ceil(4) * 2;
        let stride = couples * 6 + 16;
        Self { lines: vec![0; GROUP * stride], stride, couples: vec![[[0; 8]; GROUP]; couples] }
    }

    /// Has `read` write row `row` of the group.
    pub fn fill(&mut self, row: usize, read: impl FnOnce(&mut [u8])) {
        read(&mut self.lines[row * self.stride..][..self.stride]);
    }

    fn line(&self, row: usize) -> &[u8] {
        &self.lines[row * self.stride..][..self.stride]
    }
}

impl Passes {
    /// The fastest that this processor can do.
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Self::Avx2(simd);
        }
        Self::Portable
    }

    /// Resamples a group of rows horizontally into `out`: for each row three planes of `plane` bytes.
    pub fn across(self, strip: &mut Strip, taps: &Taps, plane: usize, out: &mut [u8]) {
        match self {
            Self::Portable => portable::across(strip, taps, plane, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => avx2::across(simd, strip, taps, plane, out),
        }
    }

    /// Resamples rows of `out.len()` bytes vertically, two for every pair.
    pub fn down(self, rows: &[u8], pairs: &[Pair], out: &mut [u8]) {
        match self {
            Self::Portable => portable::down(rows, pairs, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => avx2::down(simd, rows, pairs, out),
        }
    }
}
