//! Linear layers in every number format, few rows and many.

use candle_core::{DType, Device, Tensor};
use vlm_runtime::ops::{Linear, Weight};

use crate::gpu::{assert_near, assert_not_finite, few, gpu, random, rounded};

/// Inputs and outputs: none, some and all multiples of what a vector or a warp takes.
const SHAPES: [(usize, usize); 8] =
    [(64, 96), (7, 5), (130, 33), (256, 17), (2048, 40), (96, 1), (1024, 1000), (768, 50)];

/// More of them than a block of few rows in 16 bits has in its memory at a time, and more outputs than a tile for each block.
const LARGE: [(usize, usize); 5] = [(1024, 4608), (5120, 9000), (11_008, 4096), (18_944, 24), (9224, 8)];

/// Rows of which large products are made: of a few, and of some dozen.
const SOME: [usize; 6] = [1, 8, 13, 16, 33, 64];

/// Rows that are the same in `dtype`, in f32. Products with weights as large as 1 are about as large.
fn rows_of(dtype: DType, rows: usize, inner: usize) -> Tensor {
    let x = (random(&[rows, inner]) / (inner as f64).sqrt()).unwrap();
    rounded(&x, dtype).to_dtype(DType::F32).unwrap()
}

#[test]
fn dense_layers_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (inner, outer) in few(SHAPES).chain(few(LARGE)) {
        let (weights, bias) = (random(&[outer, inner]), random(&[outer]));
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let weights = rounded(&weights, dtype);
            let layer = |device: &Device, bias: Option<&Tensor>| {
                let there = |tensor: &Tensor| tensor.to_device(device).unwrap();
                Linear::new(Weight::Dense(there(&weights)), bias.map(there))
            };
            let rows =
                (1..=17).chain([33, 48, 49, 64, 65, 200]).filter(|rows| inner * outer < 1 << 20 || SOME.contains(rows));
            for rows in rows {
                let x = rows_of(dtype, rows + 1, inner).narrow(0, 1, rows).unwrap();
                for bias in [None, Some(&bias)] {
                    let got = layer(&gpu, bias).forward(&x.to_device(&gpu).unwrap()).unwrap();
                    let want = layer(&Device::Cpu, bias).forward(&x).unwrap();
                    let what = format!("{rows} rows, {inner} to {outer} in {dtype:?}, bias {}", bias.is_some());
                    assert_near(&got, &want, 1e-4, &what);
                }
            }
        }
    }
}

#[test]
fn rounded_rows_and_sums_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (inner, outer) in few(SHAPES).chain(few(LARGE)) {
        let (weights, bias) = (random(&[outer, inner]), random(&[outer]));
        for (dtype, limit) in [(DType::F32, 1e-5), (DType::F16, 4e-3), (DType::BF16, 3e-2)] {
            let weights = rounded(&weights, dtype);
            let layer = |device: &Device, bias: Option<&Tensor>| {
                let there = |tensor: &Tensor| tensor.to_device(device).unwrap();
                Linear::new(Weight::Dense(there(&weights)), bias.map(there))
            };
            for rows in
                [1, 8, 9, 16, 33, 64, 65, 200].into_iter().filter(|rows| inner * outer < 1 << 20 || SOME.contains(rows))
            {
                let (x, to) = (rows_of(dtype, rows, inner), random(&[rows, outer]));
                for bias in [None, Some(&bias)] {
                    let (here, there) = (layer(&Device::Cpu, bias), layer(&gpu, bias));
                    let what = format!("{rows} rows, {inner} to {outer} in {dtype:?}, bias {}", bias.is_some());
                    assert_eq!((there.takes(), here.takes()), (dtype, DType::F32), "{what}");
                    let x_there = rounded(&x, dtype).to_device(&gpu).unwrap();
                    let got = there.forward_rounded(&x_there).unwrap();
                    assert_eq!(got.dtype(), dtype);
                    assert_near(&got, &here.forward_rounded(&x).unwrap(), 2.0 * limit, &what);
                    let got = there.forward_added(&x_there, to.to_device(&gpu).unwrap()).unwrap();
                    assert_near(&got, &here.forward_added(&x, to.clone()).unwrap(), 1e-4, &what);
                    if outer % 2 == 0 {
                        let got = there.forward_gated(&x_there).unwrap();
                        assert_eq!(got.dtype(), dtype);
                        // A gate, its partner and their product are rounded, each by as much as it is large.
                        let want = here.forward_gated(&x).unwrap();
                        let size = (want.abs().unwrap() + 1.0).unwrap();
                        let of_size = |y: Tensor| {
                            (y.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap() / &size).unwrap()
                        };
                        let limit = 2.0 * limit.max(2e-5);
                        assert_near(&of_size(got), &of_size(want), limit, &format!("gated, {what}"));
                    }
                }
            }
        }
    }
    let there = Linear::new(Weight::Dense(rounded(&random(&[4, 64]), DType::F16).to_device(&gpu).unwrap()), None);
    let rows = |rows, width| random(&[rows, width]).to_device(&gpu).unwrap();
    assert!(there.forward_added(&rows(20, 64), rows(19, 4)).is_err(), "sums of other shapes were taken");
    assert!(there.forward_added(&rows(20, 63), rows(20, 4)).is_err(), "rows of another width were taken");
}

#[test]
fn layers_take_rows_from_the_middle_of_a_tensor() {
    let Some(gpu) = gpu() else { return };
    for inner in [20, 64] {
        let (weights, all) = (random(&[12, inner]), random(&[30, inner]));
        for dtype in [DType::F32, DType::BF16] {
            let weights = rounded(&weights, dtype).narrow(0, 3, 9).unwrap();
            let here = Linear::new(Weight::Dense(weights.clone()), None);
            let there = rounded(&random(&[12, inner]), dtype).to_device(&gpu).unwrap();
            there.slice_set(&weights.to_device(&gpu).unwrap(), 0, 3).unwrap();
            let there = Linear::new(Weight::Dense(there.narrow(0, 3, 9).unwrap()), None);
            for (first, rows) in [(5, 3), (7, 20)] {
                let x = all.to_device(&gpu).unwrap().narrow(0, first, rows).unwrap();
                let want = here.forward(&all.narrow(0, first, rows).unwrap()).unwrap();
                assert_near(&there.forward(&x).unwrap(), &want, 0.15, &format!("{rows} of {inner} in {dtype:?}"));
            }
        }
    }
}

#[test]
fn numbers_that_are_none_are_not_lost() {
    let Some(gpu) = gpu() else { return };
    for dtype in [DType::F32, DType::BF16] {
        let layer = Linear::new(Weight::Dense(rounded(&random(&[4, 64]), dtype).to_device(&gpu).unwrap()), None);
        for rows in [1, 20] {
            let mut x = vec![1f32; rows * 64];
            x[5] = f32::NAN;
            let y = layer.forward(&Tensor::from_vec(x, (rows, 64), &gpu).unwrap()).unwrap();
            assert_not_finite(&y, "linear");
        }
        assert!(layer.forward(&random(&[1, 63]).to_device(&gpu).unwrap()).is_err());
    }
}
