//! Operations of candle that are wrong or coarse on a CPU, for which the models have their own: as long as
//! these tests pass, they must not be used.

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;

fn sum_of_uniform_softmax(dtype: DType, columns: usize) -> f32 {
    let row = Tensor::zeros((1, columns), dtype, &Device::Cpu).unwrap();
    let weights = softmax_last_dim(&row).unwrap().to_dtype(DType::F32).unwrap();
    weights.sum_all().unwrap().to_scalar().unwrap()
}

/// It adds in the row's own number format: a sum of ones stands still where the next number is 2 away.
#[test]
fn softmax_in_16_bits_stops_adding_in_long_rows() {
    for (dtype, last_right) in [(DType::BF16, 256), (DType::F16, 2048)] {
        let [right, wrong] = [last_right, 4 * last_right].map(|columns| sum_of_uniform_softmax(dtype, columns));
        assert!((right - 1.0).abs() < 1e-2, "{dtype:?}: {right}");
        assert!(wrong > 2.0, "{dtype:?}: the weights of a row of {} add up to {wrong}", 4 * last_right);
        let f32 = sum_of_uniform_softmax(DType::F32, 4 * last_right);
        assert!((f32 - 1.0).abs() < 1e-4, "{f32}");
    }
}

/// `Tensor::gelu` is the approximation by tanh; projectors and `InternViT` have the exact one.
#[test]
fn gelu_is_the_approximation() {
    let x = Tensor::arange_step(-4f32, 4.0, 0.01, &Device::Cpu).unwrap();
    let apart = (x.gelu().unwrap() - x.gelu_erf().unwrap()).unwrap().abs().unwrap().max_all().unwrap();
    assert!(apart.to_scalar::<f32>().unwrap() > 2e-4);
}

/// Rotary angles must be made in f32: bf16 has no position 3001.
#[test]
fn positions_in_bf16_are_not_whole_numbers() {
    let position = Tensor::new(3000f32, &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap();
    let kept: f32 = position.to_dtype(DType::F32).unwrap().to_scalar().unwrap();
    assert!((kept - 3008.0).abs() < 1e-3, "{kept}");
}
