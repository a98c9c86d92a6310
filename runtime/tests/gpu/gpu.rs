//! The GPU of a test, numbers to compute with, and the comparison.

use std::ops::Deref;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use vlm_runtime::device::{DeviceChoice, DeviceError, open};

static GPU: LazyLock<Result<Device, DeviceError>> = LazyLock::new(|| open(DeviceChoice::Cuda));

/// Whose turn it is: while a step is recorded on one thread, others cannot do everything.
static TURN: Mutex<()> = Mutex::new(());

/// The GPU, of one test at a time.
pub struct Gpu {
    device: Device,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Gpu {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

/// The GPU; `None`, with a word, where there is none. A GPU that cannot be used fails the test.
pub fn gpu() -> Option<Gpu> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*GPU {
        Ok(device) => Some(Gpu { device: device.clone(), _turn: turn }),
        Err(reason @ (DeviceError::NoDriver(_) | DeviceError::NoGpu(_))) => {
            eprintln!("not tested, there is no GPU here: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// All of `cases`, or the last of them where a tool that watches every access has no time for more.
pub fn few<T, const N: usize>(cases: [T; N]) -> impl Iterator<Item = T> {
    cases.into_iter().skip(if std::env::var_os("VLM_TEST_FEW").is_some() { N - 1 } else { 0 })
}

/// Normal numbers in main memory.
pub fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

/// As `tensor`, rounded to `dtype`.
pub fn rounded(tensor: &Tensor, dtype: DType) -> Tensor {
    tensor.to_dtype(dtype).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Asserts that no two numbers differ by more than `limit`.
#[track_caller]
pub fn assert_near(got: &Tensor, want: &Tensor, limit: f32, what: &str) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let pairs = values(got).into_iter().zip(values(want));
    let worst = pairs.map(|(a, b)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() }).fold(0.0, f32::max);
    assert!(worst <= limit, "{what}: numbers differ by {worst}, and {limit} is allowed");
}

/// Asserts that a number of `tensor` is not finite.
#[track_caller]
pub fn assert_not_finite(tensor: &Tensor, what: &str) {
    assert!(values(tensor).iter().any(|value| !value.is_finite()), "{what}: a number that is none was lost");
}
