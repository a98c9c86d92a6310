//! Products of many rows by cuBLASLt, which adds the bias on their way out: without a pass over them of its own.

use std::collections::BTreeMap;
use std::mem::size_of_val;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda::cudarc::cublas::sys::{cublasComputeType_t, cublasOperation_t};
use candle_core::cuda::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda::cudarc::cublaslt::sys;
use candle_core::cuda::cudarc::driver::DevicePtr;
use candle_core::{CudaDevice, DType, Error, Result};

use crate::ops::cuda::{self, Format};

/// Bytes that NVIDIA recommends for the products of a Hopper.
const WORKSPACE: usize = 32 << 20;

/// The handles, by GPU. They live as long as the process, as the contexts do.
static HANDLES: Mutex<BTreeMap<usize, Handle>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy)]
struct Handle(sys::cublasLtHandle_t);

#[expect(unsafe_code, reason = "any thread may use a handle of cuBLASLt, which keeps no state between calls")]
unsafe impl Send for Handle {}

/// Addresses on a GPU of weights `[outer, inner]`, rows `[rows, inner]`, a bias of `outer` numbers in the format of the
/// products, and the products.
#[derive(Clone, Copy)]
pub struct Places {
    pub weights: u64,
    pub x: u64,
    pub bias: u64,
    pub out: u64,
}

/// Sizes of a product.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub rows: usize,
    pub inner: usize,
    pub outer: usize,
}

/// Something of cuBLASLt's that is to be given back.
struct Owned<T: Copy>(T, unsafe fn(T) -> std::result::Result<(), CublasError>);

impl<T: Copy> Drop for Owned<T> {
    #[expect(unsafe_code, reason = "it was made with this and is given back once")]
    fn drop(&mut self) {
        // What cannot be given back is lost.
        let _ = unsafe { self.1(self.0) };
    }
}

/// `out` becomes products and bias, added to `keep` times what it is.
///
/// # Errors
/// What cuBLASLt has no kernel for.
#[expect(
    unsafe_code,
    reason = "the caller's tensors were checked to be of these sizes, and everything lives until the call"
)]
pub fn product<T: Format, O: Format>(
    device: &CudaDevice,
    places: Places,
    Sizes { rows, inner, outer }: Sizes,
    compute: cublasComputeType_t,
    keep: f32,
) -> Result<()> {
    // cuBLAS counts matrices by columns: theirs is the transpose of ours.
    let layout = |of, length: usize, count: usize| {
        let stride = i64::try_from(length).map_err(Error::wrap)?;
        let made = result::create_matrix_layout(of, length as u64, count as u64, stride).map_err(failed)?;
        Ok::<_, Error>(Owned(made, result::destroy_matrix_layout))
    };
    let (weights, x) = (layout(data_type::<T>(), inner, outer)?, layout(data_type::<T>(), inner, rows)?);
    let out = layout(data_type::<O>(), outer, rows)?;
    let description = Owned(
        result::create_matmul_desc(compute_type(compute), data_type::<f32>()).map_err(failed)?,
        result::destroy_matmul_desc,
    );
    let transposed = cublasOperation_t::CUBLAS_OP_T;
    let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
    describe(&description, sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, &transposed)?;
    describe(&description, sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
    describe(&description, sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &places.bias)?;
    let wishes = wishes(places)?;
    let handle = handle(device)?.0;
    // The same memory is read and written.
    let found =
        unsafe { result::get_matmul_algo_heuristic(handle, description.0, weights.0, x.0, out.0, out.0, wishes.0) };
    let found = found.map_err(failed)?;
    let (stream, one) = (device.cuda_stream(), 1f32);
    let workspace = cuda::room::<u8>(device, WORKSPACE)?;
    let (room, _room) = workspace.device_ptr(&stream);
    let done = unsafe {
        result::matmul(
            handle,
            description.0,
            (&raw const one).cast(),
            (&raw const keep).cast(),
            places.weights as *const _,
            weights.0,
            places.x as *const _,
            x.0,
            places.out as *const _,
            out.0,
            places.out as *mut _,
            out.0,
            &raw const found.algo,
            room as *mut _,
            WORKSPACE,
            stream.cu_stream().cast(),
        )
    };
    done.map_err(failed)
}

/// What kernel is looked for: one that needs no more room, nor addresses that are more even, than there is.
#[expect(unsafe_code, reason = "each attribute gets a number of the type that it is of")]
fn wishes(places: Places) -> Result<Owned<sys::cublasLtMatmulPreference_t>> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let wishes = Owned(result::create_matmul_pref().map_err(failed)?, result::destroy_matmul_pref);
    let room = WORKSPACE;
    let attribute = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    unsafe { result::set_matmul_pref_attribute(wishes.0, attribute, (&raw const room).cast(), size_of_val(&room)) }
        .map_err(failed)?;
    for (attribute, place) in [
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, places.weights),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, places.x),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, places.out),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, places.out),
    ] {
        let even = 1u32 << place.trailing_zeros().min(8);
        unsafe { result::set_matmul_pref_attribute(wishes.0, attribute, (&raw const even).cast(), size_of_val(&even)) }
            .map_err(failed)?;
    }
    Ok(wishes)
}

#[expect(unsafe_code, reason = "the attribute is of the type of `value`")]
fn describe<V>(
    description: &Owned<sys::cublasLtMatmulDesc_t>,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &V,
) -> Result<()> {
    let value: *const V = value;
    unsafe { result::set_matmul_desc_attribute(description.0, attribute, value.cast(), size_of::<V>()) }.map_err(failed)
}

fn handle(device: &CudaDevice) -> Result<Handle> {
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    let ordinal = device.cuda_stream().context().ordinal();
    if let Some(handle) = handles.get(&ordinal) {
        return Ok(*handle);
    }
    let handle = Handle(result::create_handle().map_err(failed)?);
    handles.insert(ordinal, handle);
    Ok(handle)
}

fn data_type<T: Format>() -> sys::cudaDataType {
    match T::DTYPE {
        DType::F16 => sys::cudaDataType::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
        _ => sys::cudaDataType::CUDA_R_32F,
    }
}

fn compute_type(of_cublas: cublasComputeType_t) -> sys::cublasComputeType_t {
    match of_cublas {
        cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    }
}

fn failed(error: CublasError) -> Error {
    Error::Cuda(Box::new(error))
}
