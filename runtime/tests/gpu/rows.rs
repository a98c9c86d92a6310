//! Ops on rows: norms, activations, sums, gathering, the first rows of a tower.

use candle_core::{DType, Device, Tensor};
use vlm_catalog::architecture::Activation;
use vlm_runtime::engine::uniform;
use vlm_runtime::ops::{
    Choice, LayerNorm, RmsNorm, activate, add, add_scaled, choose, finite, gather, normalise, patches, read, silu_mul,
    stem, upload,
};

use crate::gpu::{assert_near, assert_not_finite, few, gpu, random, rounded};

const SHAPES: [(usize, usize); 7] = [(1, 1), (3, 31), (7, 64), (2, 100), (5, 1025), (577, 1024), (3, 4096)];

#[test]
fn norms_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let there = |tensor: &Tensor| tensor.to_device(&gpu).unwrap();
    for (rows, width) in few(SHAPES) {
        let (x, w, b) = (random(&[rows, width]), random(&[width]), random(&[width]));
        let x = ((x * 3.0).unwrap() + 1.0).unwrap();
        let what = format!("{rows} x {width}");
        let (here, on_gpu) = (RmsNorm::new(w.clone(), 1e-5), RmsNorm::new(there(&w), 1e-5));
        assert_near(&on_gpu.forward(&there(&x)).unwrap(), &here.forward(&x).unwrap(), 2e-5, &what);
        let here = LayerNorm::new(w.clone(), b.clone(), 1e-5);
        let on_gpu = LayerNorm::new(there(&w), there(&b), 1e-5);
        assert_near(&on_gpu.forward(&there(&x)).unwrap(), &here.forward(&x).unwrap(), 2e-5, &what);
    }
}

/// What rounding a number of the size of `large` may change.
const ROUNDED: [(DType, f32); 2] = [(DType::F16, 1.0 / 2048.0), (DType::BF16, 1.0 / 256.0)];

#[test]
fn norms_and_activations_in_16_bits_are_those_of_the_cpu_rounded() {
    let Some(gpu) = gpu() else { return };
    let there = |tensor: &Tensor| tensor.to_device(&gpu).unwrap();
    for (rows, width) in few(SHAPES) {
        let (x, w, b) = (random(&[rows, width]), random(&[width]), random(&[width]));
        for (dtype, part) in ROUNDED {
            let what = format!("{rows} x {width} in {dtype:?}");
            let near = |got: Tensor, want: Tensor, what: &str| {
                assert_eq!(got.dtype(), dtype, "{what}");
                let large = want.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert_near(&got, &want, (large * part).max(1e-5), what);
            };
            let (here, on_gpu) = (RmsNorm::new(w.clone(), 1e-5), RmsNorm::new(there(&w), 1e-5));
            near(on_gpu.forward_as(&there(&x), dtype).unwrap(), here.forward(&x).unwrap(), &what);
            let here = LayerNorm::new(w.clone(), b.clone(), 1e-5);
            let on_gpu = LayerNorm::new(there(&w), there(&b), 1e-5);
            near(on_gpu.forward_as(&there(&x), dtype).unwrap(), here.forward(&x).unwrap(), &what);
            let both = random(&[rows, 2 * width]).to_dtype(dtype).unwrap();
            let wide = both.to_dtype(DType::F32).unwrap();
            near(silu_mul(&there(&both)).unwrap(), silu_mul(&wide).unwrap(), &format!("silu {what}"));
            for activation in [Activation::Gelu, Activation::QuickGelu] {
                let what = format!("{activation:?} {what}");
                near(activate(&there(&both), activation).unwrap(), activate(&wide, activation).unwrap(), &what);
            }
        }
    }
    let norm = RmsNorm::new(random(&[4]), 1e-5);
    assert!(norm.forward_as(&random(&[2, 4]), DType::F16).is_err(), "a CPU gave 16 bits");
}

#[test]
fn norms_take_parts_of_longer_rows_and_all_axes_before_the_last() {
    let Some(gpu) = gpu() else { return };
    let (all, w, b) = (random(&[6, 96]), random(&[32]), random(&[32]));
    let norms = |device: &Device| {
        let (w, b) = (w.to_device(device).unwrap(), b.to_device(device).unwrap());
        (RmsNorm::new(w.clone(), 1e-6), LayerNorm::new(w, b, 1e-6))
    };
    let ((rms, layer), (rms_gpu, layer_gpu)) = (norms(&Device::Cpu), norms(&gpu));
    let on_gpu = all.to_device(&gpu).unwrap();
    for part in 0..3 {
        let (x, y) = (all.narrow(1, part * 32, 32).unwrap(), on_gpu.narrow(1, part * 32, 32).unwrap());
        assert_near(&rms_gpu.forward(&y).unwrap(), &rms.forward(&x).unwrap(), 2e-5, "part of rows");
        assert_near(&layer_gpu.forward(&y).unwrap(), &layer.forward(&x).unwrap(), 2e-5, "part of rows");
    }
    let (x, y) = (all.reshape((2, 9, 32)).unwrap(), on_gpu.reshape((2, 9, 32)).unwrap());
    assert_near(&layer_gpu.forward(&y).unwrap(), &layer.forward(&x).unwrap(), 2e-5, "three axes");
    // A view that begins in the middle.
    let (x, y) = (all.narrow(0, 2, 3).unwrap(), on_gpu.narrow(0, 2, 3).unwrap());
    let wide = |device: &Device| RmsNorm::new(Tensor::ones(96, DType::F32, device).unwrap(), 1e-6);
    assert_near(&wide(&gpu).forward(&y).unwrap(), &wide(&Device::Cpu).forward(&x).unwrap(), 2e-5, "view");
    assert!(rms_gpu.forward(&y).is_err(), "rows of another width were taken");
    assert!(rms_gpu.forward(&on_gpu.t().unwrap()).is_err(), "columns were taken for rows");
}

#[test]
fn activations_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (rows, width) in few(SHAPES) {
        let x = (random(&[rows, 2 * width]) * 4.0).unwrap();
        let y = x.to_device(&gpu).unwrap();
        let what = format!("{rows} x {width}");
        assert_near(&silu_mul(&y).unwrap(), &silu_mul(&x).unwrap(), 1e-4, &what);
        for activation in [Activation::Gelu, Activation::QuickGelu] {
            let (got, want) = (activate(&y, activation).unwrap(), activate(&x, activation).unwrap());
            assert_near(&got, &want, 1e-5, &format!("{activation:?} {what}"));
        }
    }
    let broken = Tensor::new(&[[f32::NAN, 1.0, 1.0, 1.0]], &gpu).unwrap();
    assert_not_finite(&silu_mul(&broken).unwrap(), "silu");
}

#[test]
fn sums_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let there = |tensor: &Tensor| tensor.to_device(&gpu).unwrap();
    for (rows, width) in few(SHAPES) {
        let (x, y, scale) = (random(&[rows, width]), random(&[rows, width]), random(&[width]));
        let what = format!("{rows} x {width}");
        assert_near(&add(&there(&x), &there(&y)).unwrap(), &add(&x, &y).unwrap(), 0.0, &what);
        let got = add_scaled(&there(&x), &there(&y), &there(&scale)).unwrap();
        assert_near(&got, &add_scaled(&x, &y, &scale).unwrap(), 1e-6, &what);
        for dtype in [DType::F16, DType::BF16] {
            let y = rounded(&y, dtype);
            let got = add_scaled(&there(&x), &there(&y), &there(&scale)).unwrap();
            let want = add_scaled(&x, &rounded(&y, DType::F32), &scale).unwrap();
            assert_near(&got, &want, 1e-6, &format!("{what} in {dtype:?}"));
        }
    }
    assert!(add(&there(&random(&[2, 3])), &there(&random(&[3, 2]))).is_err());
    assert!(add_scaled(&there(&random(&[2, 3])), &there(&random(&[2, 3])), &there(&random(&[2]))).is_err());
}

#[test]
fn rows_are_gathered_from_every_number_format() {
    let Some(gpu) = gpu() else { return };
    for width in few([1, 3, 33, 4096]) {
        let table = random(&[50, width]);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let table = table.to_dtype(dtype).unwrap().narrow(0, 10, 30).unwrap();
            let ids = [29, 0, 7, 7, 1];
            let got = gather(&table.to_device(&gpu).unwrap(), &ids).unwrap();
            assert_near(&got, &gather(&table, &ids).unwrap(), 0.0, &format!("{dtype:?} {width}"));
            assert!(gather(&table.to_device(&gpu).unwrap(), &[30]).is_err());
        }
    }
    let none = gather(&random(&[2, 2]).to_device(&gpu).unwrap(), &[]).unwrap();
    assert_eq!(none.dims(), [0, 2]);
}

#[test]
fn the_first_rows_of_a_tower_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (tiles, patches, width) in few([(1, 1, 1), (2, 16, 32), (3, 9, 50), (5, 576, 64)]) {
        let parts = [random(&[tiles, patches, width]), random(&[width]), random(&[1 + patches, width])];
        let [p, c, s] = &parts;
        let [gp, gc, gs] = parts.each_ref().map(|part| part.to_device(&gpu).unwrap());
        assert_near(&stem(&gp, &gc, &gs).unwrap(), &stem(p, c, s).unwrap(), 0.0, &format!("{tiles} x {patches}"));
        assert!(stem(&gp, &gs, &gc).is_err() || patches == 0);
    }
}

#[test]
fn patches_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (tiles, side, patch) in few([(1, 2, 1_usize), (3, 28, 14), (2, 12, 4), (1, 336, 14)]) {
        let pixels = random(&[tiles, 3, side, side]);
        let length = (3 * patch * patch).next_multiple_of(8);
        let want = patches(&pixels, patch, length, DType::F32).unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let got = patches(&pixels.to_device(&gpu).unwrap(), patch, length, dtype).unwrap();
            assert_near(&got, &rounded(&want, dtype), 0.0, &format!("{tiles} of {side} by {patch} in {dtype:?}"));
        }
    }
}

#[test]
fn a_number_that_is_none_is_found_wherever_it_is() {
    let Some(gpu) = gpu() else { return };
    for count in few([1, 33, 5000, 1 << 20]) {
        let numbers: Vec<f32> = random(&[count]).to_vec1().unwrap();
        let there = |numbers: &[f32]| Tensor::new(numbers, &gpu).unwrap();
        assert!(finite(&there(&numbers)).unwrap(), "{count}");
        for (place, broken) in [(0, f32::NAN), (count / 2, f32::INFINITY), (count - 1, f32::NEG_INFINITY)] {
            let mut numbers = numbers.clone();
            numbers[place] = broken;
            assert!(!finite(&there(&numbers)).unwrap(), "{broken} at {place} of {count}");
        }
    }
    let broken = Tensor::new(&[[1f32, 2.0], [f32::NAN, 4.0], [5.0, 6.0]], &gpu).unwrap();
    assert!(finite(&broken.narrow(0, 0, 1).unwrap()).unwrap() && finite(&broken.narrow(0, 2, 1).unwrap()).unwrap());
}

#[test]
fn every_number_is_read() {
    let Some(gpu) = gpu() else { return };
    let bits = |x: &Tensor| read(x).unwrap().to_vec1::<u32>().unwrap();
    for count in few([4, 128, 4100, 1 << 20, (1 << 23) + 12]) {
        let x = random(&[count]);
        assert_eq!(bits(&x.to_device(&gpu).unwrap()), bits(&x), "{count} numbers");
    }
    let x = random(&[64]);
    let part = |x: &Tensor| x.narrow(0, 8, 40).unwrap();
    assert_eq!(bits(&part(&x.to_device(&gpu).unwrap())), bits(&part(&x)));
    assert!(read(&x.narrow(0, 0, 3).unwrap().to_device(&gpu).unwrap()).is_err());
}

#[test]
fn the_highest_of_each_row_is_that_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (rows, width) in few([(1, 1), (3, 31), (2, 1000), (64, 32_000), (5, 151_674)]) {
        let x = random(&[rows, width]);
        let highest = |x: &Tensor| choose(x, &vec![Choice::HIGHEST; rows]).unwrap();
        let there = |x: &Tensor| highest(&x.to_device(&gpu).unwrap());
        assert_eq!(there(&x), highest(&x), "{rows} x {width}");
        // Few different numbers, so that the highest stands in many places, of which the first counts.
        let even = x.round().unwrap().clamp(-1f32, 1f32).unwrap();
        assert_eq!(there(&even), highest(&even), "{rows} x {width} of few numbers");
        let mut numbers: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        numbers[rows / 2 * width + width - 1] = f32::NAN;
        let broken = Tensor::from_vec(numbers, (rows, width), &Device::Cpu).unwrap();
        let found = there(&broken);
        assert_eq!(found, highest(&broken));
        assert_eq!((found[rows / 2], found.iter().flatten().count()), (None, rows - 1));
    }
}

#[test]
fn tokens_are_drawn_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let mut seed = 0;
    let mut next = || {
        seed += 1;
        uniform(11, seed)
    };
    for (rows, width) in few([(1, 1), (7, 5), (16, 1000), (33, 2049), (6, 151_674), (8, 32_064)]) {
        let x = (random(&[rows, width]) * 3.0).unwrap();
        // Few different numbers, so that the border lies among equal ones.
        for x in [x.round().unwrap(), x] {
            for _ in 0..6 {
                let choice = |_| Choice {
                    temperature: [0.0, 0.3, 1.0, 1.7][(next() * 4.0) as usize],
                    top_p: [1.0, 0.0, 0.5, 0.95][(next() * 4.0) as usize],
                    min_p: [0.0, 0.0, 0.05, 1.0][(next() * 4.0) as usize],
                    top_k: [0, 1, 50, 1500][(next() * 4.0) as usize],
                    draw: next(),
                };
                let choices: Vec<Choice> = (0..rows).map(choice).collect();
                let there = choose(&x.to_device(&gpu).unwrap(), &choices).unwrap();
                let here = choose(&x, &choices).unwrap();
                let differ = there.iter().zip(&here).zip(&choices).filter(|((there, here), _)| there != here);
                assert_eq!(
                    differ.map(|(pair, choice)| format!("{pair:?} {choice:?}")).next(),
                    None,
                    "{rows} x {width}"
                );
            }
        }
    }
}

#[test]
fn parts_that_are_sent_to_a_gpu_arrive_in_order() {
    let Some(gpu) = gpu() else { return };
    // Shorter after longer, in the same memory.
    for sizes in [&[5usize, 200_000, 1][..], &[1 << 20], &[3, 4]] {
        let byte = |n: usize| (n * 31 % 251) as u8;
        let parts: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(byte).collect()).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let all = sizes.iter().sum::<usize>();
        assert_eq!(upload(&parts, all, &gpu).unwrap().to_vec1::<u8>().unwrap(), parts.concat());
        assert!(upload(&parts, all + 1, &gpu).is_err());
    }
}

#[test]
fn bytes_become_the_numbers_of_the_cpu_to_the_bit() {
    let Some(gpu) = gpu() else { return };
    for (tiles, height, width) in [(1, 1, 1), (2, 5, 7), (3, 448, 448)] {
        let bytes: Vec<u8> = (0..tiles * 3 * height * width).map(|n| (n * 97 % 256) as u8).collect();
        let bytes = Tensor::from_vec(bytes, (tiles, 3, height, width), &Device::Cpu).unwrap();
        let of = |x: &Tensor| normalise(x, [0.014_598_427, 0.015_007_1, 0.014_220_6], [-1.79, -1.75, -1.48]).unwrap();
        assert_near(&of(&bytes.to_device(&gpu).unwrap()), &of(&bytes), 0.0, &format!("{tiles} of {height}x{width}"));
    }
}
