//! Keys and values of a layer in main memory, in whatever format they are kept.

use super::super::element::Element;
use super::shape::{KvShape, Place};
use super::{BLOCK_TOKENS, EightBits};

/// What is written to.
pub trait Keep {
    /// Keeps the numbers of a head.
    fn put(&mut self, shape: &KvShape, place: Place, numbers: &[f32]);
}

/// What is read.
pub trait Kept: Copy + Send + Sync {
    /// `rows` heads in f32, that at `place` and those of the tokens behind it in its block, in `scratch` where they are kept
    /// in another format; and the stride from one to the next in what is given.
    fn rows<'a>(&'a self, shape: &KvShape, place: Place, rows: usize, scratch: &'a mut Vec<f32>) -> (&'a [f32], usize);
}

impl<E: Element> Keep for &mut [E] {
    fn put(&mut self, shape: &KvShape, place: Place, numbers: &[f32]) {
        for (out, number) in self[shape.numbers(place)..].iter_mut().zip(numbers) {
            *out = E::narrow(*number);
        }
    }
}

impl<E: Element> Kept for &[E] {
    #[inline(always)]
    fn rows<'a>(&'a self, shape: &KvShape, place: Place, rows: usize, scratch: &'a mut Vec<f32>) -> (&'a [f32], usize) {
        E::widen_rows(&self[shape.numbers(place)..], (rows, shape.head_dim, shape.head_dim), scratch)
    }
}

/// Numbers in 8 bits and their scales.
#[derive(Clone, Copy)]
pub struct Bytes<B> {
    pub bytes: B,
    pub format: EightBits,
}

impl Keep for Bytes<&mut [u8]> {
    fn put(&mut self, shape: &KvShape, place: Place, numbers: &[f32]) {
        let scale = self.format.round(numbers, &mut self.bytes[shape.numbers(place)..][..shape.head_dim]);
        self.bytes[shape.scale(place)..][..shape.scale].copy_from_slice(&scale.to_le_bytes());
    }
}

impl Kept for Bytes<&[u8]> {
    #[inline(always)]
    fn rows<'a>(&'a self, shape: &KvShape, place: Place, rows: usize, scratch: &'a mut Vec<f32>) -> (&'a [f32], usize) {
        debug_assert!(place.token + rows <= BLOCK_TOKENS);
        scratch.resize(rows * shape.head_dim, 0.0);
        let held = self.bytes[shape.numbers(place)..].chunks(shape.head_dim);
        let scales = self.bytes[shape.scale(place)..].chunks(shape.scale);
        for ((held, scale), wide) in held.zip(scales).zip(scratch.chunks_exact_mut(shape.head_dim)) {
            let scale = scale.first_chunk().map_or(f32::NAN, |bytes| f32::from_le_bytes(*bytes));
            self.format.widen(&held[..shape.head_dim], scale, wide);
        }
        (scratch, shape.head_dim)
    }
}
