//! Layers with quantised weights: few rows in integers, many with weights that are widened.

use candle_core::{Device, Tensor};
use vlm_catalog::quantization::BlockFormat;
use vlm_runtime::ops::{BlockBuilder, Blocks, Linear, Weight};

use crate::gpu::{assert_near, assert_not_finite, few, gpu, random};

const FORMATS: [BlockFormat; 3] = [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4_K];

/// Inputs and outputs: one chunk and many, of which the last may be a part, and more numbers than a block has in its memory
/// at a time; outputs that are whole tiles or not, and more tiles than blocks.
const SHAPES: [(usize, usize); 9] =
    [(256, 17), (2048, 40), (1024, 1000), (4096, 129), (768, 50), (96, 8), (352, 33), (1024, 4608), (18_944, 24)];

/// Rows of kernels of each size, and more than any takes.
const ROWS: [usize; 10] = [1, 2, 3, 8, 9, 16, 31, 33, 64, 130];

/// Rows that are rounded to 8 bits on a processor as well, and on a GPU alone.
const ROUNDED_ON_BOTH: usize = 32;
const ROUNDED_ON_GPU: usize = 64;

/// How far products of `inner` normal numbers may be from those of the CPU: where both round the rows alike, by the order of
/// sums alone; where one does, by the rounding.
fn limit(rows: usize, inner: usize) -> f32 {
    let of_each = if rows <= ROUNDED_ON_BOTH {
        1e-5
    } else if rows <= ROUNDED_ON_GPU {
        1e-1
    } else {
        4e-3
    };
    (inner as f32).sqrt() * of_each
}

/// A layer of the same weights on any device.
fn layers(format: BlockFormat, inner: usize, outer: usize) -> Option<impl Fn(&Device, Option<&Tensor>) -> Linear> {
    let weights = format.fits(inner).then(|| random(&[outer, inner]))?;
    Some(move |device: &Device, bias: Option<&Tensor>| {
        let mut builder = BlockBuilder::new(format, outer, inner).unwrap();
        builder.append(&weights).unwrap();
        let bias = bias.map(|bias| bias.to_device(device).unwrap());
        Linear::new(Weight::Blocks(builder.finish(device).unwrap()), bias)
    })
}

#[test]
fn quantised_layers_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (inner, outer) in few(SHAPES) {
        for format in FORMATS {
            let Some(layer) = layers(format, inner, outer) else { continue };
            let bias = random(&[outer]);
            for bias in [None, Some(&bias)] {
                let (there, here) = (layer(&gpu, bias), layer(&Device::Cpu, bias));
                for rows in ROWS {
                    let x = random(&[rows, inner]);
                    let got = there.forward(&x.to_device(&gpu).unwrap()).unwrap();
                    let what = format!("{rows} rows, {inner} to {outer} in {format}, bias {}", bias.is_some());
                    assert_near(&got, &here.forward(&x).unwrap(), limit(rows, inner), &what);
                }
            }
        }
    }
}

#[test]
fn quantised_products_are_added_and_gated_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    // Gates whose partners begin with a tile, and in the middle of one.
    for (inner, outer) in few([(256, 16), (2048, 80), (768, 20), (352, 2128), (18_944, 48), (768, 80)]) {
        for format in FORMATS {
            let Some(layer) = layers(format, inner, outer) else { continue };
            let (there, here) = (layer(&gpu, None), layer(&Device::Cpu, None));
            for rows in ROWS {
                let (x, to) = ((random(&[rows, inner]) / (inner as f64).sqrt()).unwrap(), random(&[rows, outer]));
                let (on_gpu, what) =
                    (x.to_device(&gpu).unwrap(), format!("{rows} rows, {inner} to {outer} in {format}"));
                let limit = limit(rows, inner) / (inner as f32).sqrt() + 1e-6;
                let got = there.forward_added(&on_gpu, to.to_device(&gpu).unwrap()).unwrap();
                assert_near(&got, &here.forward_added(&x, to).unwrap(), 2.0 * limit, &format!("added {what}"));
                // Two factors, each of them a few.
                let (got, want) = (there.forward_gated(&on_gpu).unwrap(), here.forward_gated(&x).unwrap());
                assert_near(&got, &want, 10.0 * limit, &format!("gated {what}"));
            }
        }
    }
}

#[test]
fn quantised_layers_take_rows_from_anywhere_in_a_tensor() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let layer = layers(format, 256, 17).unwrap();
        let (there, here) = (layer(&gpu, None), layer(&Device::Cpu, None));
        let all = random(&[40 * 256 + 1]);
        // Of the rows from the second on the first numbers are no multiple of 16 bytes away from the tensor's.
        for (first, rows) in [(0, 1), (256, 3), (1, 1), (1, 3), (257, 33)] {
            let part = |all: &Tensor| all.narrow(0, first, rows * 256).unwrap().reshape((rows, 256)).unwrap();
            let got = there.forward(&part(&all.to_device(&gpu).unwrap())).unwrap();
            let want = here.forward(&part(&all)).unwrap();
            assert_near(&got, &want, limit(rows, 256), &format!("{rows} rows from {first} on in {format}"));
        }
        assert!(there.forward(&random(&[1, 512]).to_device(&gpu).unwrap()).is_err(), "rows of another length");
    }
}

#[test]
fn numbers_that_are_none_are_not_lost_beside_quantised_weights() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let layer = layers(format, 512, 16).unwrap()(&gpu, None);
        for rows in [1, 3, 20, 64, 70] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = vec![1f32; rows * 512];
                x[300] = bad;
                let x = Tensor::from_vec(x, (rows, 512), &gpu).unwrap();
                assert_not_finite(&layer.forward(&x).unwrap(), &format!("{rows} rows in {format}"));
            }
        }
    }
}

#[test]
fn weights_that_are_widened_in_parts_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    // A part, and eight rows of the next; the head of a large vocabulary, whose last part is short as well.
    for (inner, outer) in few([(4096, 8200), (1024, 65_600)]) {
        let (x, bias) = (random(&[70, inner]), random(&[outer]));
        for format in [BlockFormat::Q8_0, BlockFormat::Q4_K] {
            let layer = |device: &Device, bias: Option<&Tensor>| {
                let blocks = Blocks::drawn(format, (outer, inner), 0.02, 7, device).unwrap();
                let bias = bias.map(|bias| bias.to_device(device).unwrap());
                Linear::new(Weight::Blocks(blocks), bias)
            };
            for bias in [None, Some(&bias)] {
                let got = layer(&gpu, bias).forward(&x.to_device(&gpu).unwrap()).unwrap();
                let want = layer(&Device::Cpu, bias).forward(&x).unwrap();
                assert_near(&got, &want, 1e-2, &format!("{inner} to {outer} in {format}"));
            }
        }
    }
}

#[test]
fn blocks_are_drawn_and_held_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        for dims in [(1, 256), (17, 768), (1000, 1024), (9, 1280)] {
            let drawn = |device: &Device| Blocks::drawn(format, dims, 0.02, 5, device).unwrap();
            let (there, here) = (drawn(&gpu), drawn(&Device::Cpu));
            assert!(there.bytes().unwrap() == here.bytes().unwrap(), "{format} {dims:?}");
        }
    }
}
