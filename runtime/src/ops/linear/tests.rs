//! Every number format against f64 over the numbers that it holds, and few rows against many.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module};
use vlm_catalog::quantization::BlockFormat;

use super::activations::Activations;
use super::kernels::{BlockProducts, Kernels};
use super::*;

const FORMATS: [(BlockFormat, GgmlDType); 3] =
    [(BlockFormat::Q8_0, GgmlDType::Q8_0), (BlockFormat::Q4_0, GgmlDType::Q4_0), (BlockFormat::Q4_K, GgmlDType::Q4K)];

fn random(shape: (usize, usize)) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

fn blocks(weights: &Tensor, format: BlockFormat) -> Blocks {
    let (rows, row_length) = weights.dims2().unwrap();
    let mut builder = BlockBuilder::new(format, rows, row_length).unwrap();
    builder.append(weights).unwrap();
    builder.finish(&Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `x · Wᵀ + b` in f64.
fn reference(x: &Tensor, weights: &Tensor, bias: &Tensor) -> Vec<f64> {
    let (inner, outer) = (x.dim(1).unwrap(), weights.dim(0).unwrap());
    let (x, weights, bias) = (values(x), values(weights), values(bias));
    let dot = |x: &[f64], o: usize| x.iter().zip(&weights[o * inner..]).map(|(x, w)| x * w).sum::<f64>() + bias[o];
    x.chunks_exact(inner).flat_map(|x| (0..outer).map(|o| dot(x, o)).collect::<Vec<_>>()).collect()
}

/// Root mean square of the differences, relative to what products of `inner` normal numbers have.
fn error(got: &[f64], want: &[f64], inner: usize) -> f64 {
    assert_eq!(got.len(), want.len());
    let square: f64 = got.iter().zip(want).map(|(a, b)| (a - b) * (a - b)).sum();
    (square / (got.len() * inner) as f64).sqrt()
}

/// The layer in every number format that its shape allows, with the f32 values of what it holds and the error that
/// 8-bit activations may add.
fn layers(inner: usize, outer: usize, bias: &Tensor) -> Vec<(String, Linear, Tensor, f64)> {
    let weights = random((outer, inner));
    let mut layers = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let held = weights.to_dtype(dtype).unwrap();
        let linear = Linear::new(Weight::Dense(held.clone()), Some(bias.clone()));
        layers.push((format!("{dtype:?}"), linear, held.to_dtype(DType::F32).unwrap(), 1e-6));
    }
    for (format, dtype) in FORMATS {
        if format.fits(inner) {
            let held = QTensor::quantize(&weights, dtype).unwrap().dequantize(&Device::Cpu).unwrap();
            let linear = Linear::new(Weight::Blocks(blocks(&weights, format)), Some(bias.clone()));
            layers.push((format.to_string(), linear, held, 4e-2));
        }
    }
    layers
}

#[test]
fn every_format_is_what_f64_makes_of_its_numbers() {
    for (inner, outer) in [(64, 96), (7, 5), (130, 33), (256, 17), (768, 50), (2048, 40), (96, 1)] {
        let bias = Tensor::randn(0f32, 1.0, outer, &Device::Cpu).unwrap();
        for (name, layer, held, few_error) in layers(inner, outer, &bias) {
            let x = random((layer.weight.few_rows() + 3, inner));
            let many = error(&values(&layer.forward(&x).unwrap()), &reference(&x, &held, &bias), inner);
            assert!(many < 1e-6, "many rows of {name} {inner}x{outer}: {many}");
            for rows in (1..=FEW_ROWS).chain([layer.weight.few_rows()]) {
                let x = x.narrow(0, 1, rows).unwrap();
                let few = error(&values(&layer.forward(&x).unwrap()), &reference(&x, &held, &bias), inner);
                assert!(few < few_error, "{rows} rows of {name} {inner}x{outer}: {few}");
            }
        }
    }
}

#[test]
fn weights_that_are_widened_in_parts_give_every_product() {
    let (inner, outer) = (4096, 300);
    let bias = Tensor::zeros(outer, DType::F32, &Device::Cpu).unwrap();
    for (name, layer, held, _) in layers(inner, outer, &bias) {
        let x = random((layer.weight.few_rows() + 1, inner));
        let error = error(&values(&layer.forward(&x).unwrap()), &reference(&x, &held, &bias), inner);
        assert!(error < 1e-6, "{name}: {error}");
    }
}

#[test]
fn blocks_are_those_of_candle_however_the_rows_come() {
    let weights = random((600, 768));
    for (format, dtype) in FORMATS {
        let whole = QTensor::quantize(&weights, dtype).unwrap();
        let mut builder = BlockBuilder::new(format, 600, 768).unwrap();
        builder.append(&weights.narrow(0, 0, 590).unwrap()).unwrap();
        builder.append(&weights.narrow(0, 590, 10).unwrap()).unwrap();
        let made = builder.finish(&Device::Cpu).unwrap();
        assert!(made.bytes().unwrap() == whole.data().unwrap(), "{format}");
        assert_eq!(made.byte_len(), whole.storage_size_in_bytes());
        let mut widened = vec![0f32; 600 * 768];
        made.widen(0, &mut widened).unwrap();
        let want: Vec<f32> = whole.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(widened == want, "{format}");
        assert!(BlockBuilder::new(format, 1, 112).is_err());
    }
}

#[test]
fn sixteen_bit_rows_are_quantised_as_the_numbers_that_they_are() {
    let weights = random((5, 256)).to_dtype(DType::BF16).unwrap();
    for (format, dtype) in FORMATS {
        let want = QTensor::quantize(&weights.to_dtype(DType::F32).unwrap(), dtype).unwrap();
        assert!(blocks(&weights, format).bytes().unwrap() == want.data().unwrap(), "{format}");
    }
}

#[test]
fn quantised_products_are_near_those_of_candle() {
    let (weights, x) = (random((48, 1024)), random((3, 1024)));
    for (format, dtype) in FORMATS {
        let theirs = QMatMul::from_qtensor(QTensor::quantize(&weights, dtype).unwrap()).unwrap().forward(&x).unwrap();
        let ours = Linear::new(Weight::Blocks(blocks(&weights, format)), None).forward(&x).unwrap();
        // On some machines candle quantises activations in longer blocks.
        let error = error(&values(&ours), &values(&theirs), 1024);
        assert!(error < 1.5e-2, "{format}: {error}");
    }
}

#[test]
fn quantisation_costs_what_the_table_says() {
    let (weights, x) = (random((256, 2048)), random((4, 2048)));
    let bias = Tensor::zeros(256, DType::F32, &Device::Cpu).unwrap();
    let exact = reference(&x, &weights, &bias);
    for (format, least, most) in
        [(BlockFormat::Q8_0, 0.004, 0.011), (BlockFormat::Q4_0, 0.075, 0.097), (BlockFormat::Q4_K, 0.065, 0.088)]
    {
        let got = Linear::new(Weight::Blocks(blocks(&weights, format)), None).forward(&x).unwrap();
        let error = error(&values(&got), &exact, 2048);
        assert!((least..most).contains(&error), "{format}: {error}");
    }
}

#[test]
fn portable_products_are_those_of_wide_instructions() {
    let (weights, x) = (random((9, 1280)), random((7, 1280)));
    let x: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    for (format, _) in FORMATS {
        let blocks = blocks(&weights, format);
        let run = |kernels: Kernels| {
            let activations = Activations::new(&x, 1280, format);
            let mut columns = vec![0f32; 9 * 7];
            let (weights, row_bytes) = (blocks.bytes().unwrap(), blocks.row_bytes());
            kernels.run(BlockProducts {
                format,
                weights: &weights,
                row_bytes,
                activations: &activations,
                columns: &mut columns,
            });
            columns
        };
        for (a, b) in run(Kernels::Portable).iter().zip(run(Kernels::new())) {
            assert!((a - b).abs() < 1e-3, "{format}: {a} vs {b}");
        }
    }
}

#[test]
fn large_activations_and_those_that_are_not_finite_are_not_lost() {
    for (_, layer, held, _) in layers(256, 4, &Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap()) {
        for rows in [1, layer.weight.few_rows() + 1] {
            let x = (random((rows, 256)) * 1e6).unwrap();
            let bias = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
            let error = error(&values(&layer.forward(&x).unwrap()), &reference(&x, &held, &bias), 256);
            assert!(error < 2e4, "{error}");
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
                x[77] = bad;
                let x = Tensor::from_vec(x, (rows, 256), &Device::Cpu).unwrap();
                let y = values(&layer.forward(&x).unwrap());
                assert!(y[..4].iter().all(|y| !y.is_finite()), "{y:?}");
            }
        }
    }
}

#[test]
fn rows_of_another_length_are_refused() {
    for (name, layer, _, _) in layers(256, 4, &Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap()) {
        assert!(layer.forward(&random((1, 255))).is_err() && layer.forward(&random((20, 512))).is_err(), "{name}");
    }
}
