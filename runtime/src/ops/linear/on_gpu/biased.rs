//! Products of many rows by cuBLASLt, which adds the bias on their way out: without a pass over them of its own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem::size_of_val;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda::cudarc::cublas::sys::{cublasComputeType_t, cublasOperation_t};
use candle_core::cuda::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda::cudarc::cublaslt::sys;
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{CudaDevice, DType, Error, Result};

use crate::ops::cuda::{self, Format};

/// Bytes that NVIDIA recommends for the products of a Hopper.
const WORKSPACE: usize = 32 << 20;
/// Most choices that are kept.
const MOST_CHOSEN: usize = 1 << 14;

/// One of each GPU. They live as long as the process, as the contexts do.
static HANDLES: Mutex<BTreeMap<usize, Handle>> = Mutex::new(BTreeMap::new());

/// What all products of a GPU share: they follow each other on its one stream.
struct Handle {
    library: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    /// Which kernel is taken for what; to look it up takes as long as to launch it.
    chosen: BTreeMap<Kind, sys::cublasLtMatmulAlgo_t>,
}

#[expect(unsafe_code, reason = "any thread may use a handle of cuBLASLt, and this one is used under a lock")]
unsafe impl Send for Handle {}

/// Everything on which it depends which kernel is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    sizes: Sizes,
    /// Numbers of weights and rows, and of products, by the bytes of one and whether they are bf16.
    formats: [(usize, bool); 2],
    /// At multiples of how many bytes weights, rows and products begin.
    even: [u32; 3],
    /// Whether products are added to what is there.
    keeps: bool,
    /// Whether f32 is rounded to 11 bits.
    rounds: bool,
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sizes {
    pub rows: usize,
    pub inner: usize,
    pub outer: usize,
    /// From a row of products to the next.
    pub stride: usize,
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

/// A product as cuBLASLt wants it told.
struct Described {
    product: Owned<sys::cublasLtMatmulDesc_t>,
    weights: Owned<sys::cublasLtMatrixLayout_t>,
    x: Owned<sys::cublasLtMatrixLayout_t>,
    out: Owned<sys::cublasLtMatrixLayout_t>,
}

impl Described {
    fn new<T: Format, O: Format>(
        Sizes { rows, inner, outer, stride }: Sizes,
        bias: u64,
        compute: cublasComputeType_t,
    ) -> Result<Self> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        // cuBLAS counts matrices by columns: theirs is the transpose of ours.
        let layout = |of, length: usize, count: usize, stride: usize| {
            let stride = i64::try_from(stride).map_err(Error::wrap)?;
            let made = result::create_matrix_layout(of, length as u64, count as u64, stride).map_err(failed)?;
            Ok::<_, Error>(Owned(made, result::destroy_matrix_layout))
        };
        let product = result::create_matmul_desc(compute_type(compute), data_type::<f32>()).map_err(failed)?;
        let product = Owned(product, result::destroy_matmul_desc);
        let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        describe(&product, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &cublasOperation_t::CUBLAS_OP_T)?;
        describe(&product, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        describe(&product, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        Ok(Self {
            product,
            weights: layout(data_type::<T>(), inner, outer, inner)?,
            x: layout(data_type::<T>(), inner, rows, inner)?,
            out: layout(data_type::<O>(), outer, rows, stride)?,
        })
    }
}

impl Handle {
    /// The best kernel for products of `kind`.
    #[expect(unsafe_code, reason = "everything that is named lives until the call")]
    fn choose(&mut self, kind: Kind, of: &Described) -> Result<sys::cublasLtMatmulAlgo_t> {
        if let Some(chosen) = self.chosen.get(&kind) {
            return Ok(*chosen);
        }
        let (wishes, out) = (wishes(kind.even)?, of.out.0);
        // The same memory is read and written.
        let found = unsafe {
            result::get_matmul_algo_heuristic(self.library, of.product.0, of.weights.0, of.x.0, out, out, wishes.0)
        };
        let chosen = found.map_err(failed)?.algo;
        if self.chosen.len() >= MOST_CHOSEN {
            self.chosen.clear();
        }
        self.chosen.insert(kind, chosen);
        Ok(chosen)
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
    sizes: Sizes,
    compute: cublasComputeType_t,
    keep: f32,
) -> Result<()> {
    let of = Described::new::<T, O>(sizes, places.bias, compute)?;
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    let handle = handle(&mut handles, device)?;
    let kind = Kind {
        sizes,
        formats: [format_of::<T>(), format_of::<O>()],
        even: [places.weights, places.x, places.out].map(even),
        keeps: keep != 0.0,
        rounds: compute == cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
    };
    let chosen = handle.choose(kind, &of)?;
    let (stream, one) = (device.cuda_stream(), 1f32);
    let (room, _room) = handle.workspace.device_ptr(&stream);
    let done = unsafe {
        result::matmul(
            handle.library,
            of.product.0,
            (&raw const one).cast(),
            (&raw const keep).cast(),
            places.weights as *const _,
            of.weights.0,
            places.x as *const _,
            of.x.0,
            places.out as *const _,
            of.out.0,
            places.out as *mut _,
            of.out.0,
            &raw const chosen,
            room as *mut _,
            WORKSPACE,
            stream.cu_stream().cast(),
        )
    };
    done.map_err(failed)
}

/// What kernel is looked for: one that needs no more room, nor addresses that are more even, than there is.
#[expect(unsafe_code, reason = "each attribute gets a number of the type that it is of")]
fn wishes([weights, x, out]: [u32; 3]) -> Result<Owned<sys::cublasLtMatmulPreference_t>> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let wishes = Owned(result::create_matmul_pref().map_err(failed)?, result::destroy_matmul_pref);
    let room = WORKSPACE;
    let attribute = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    unsafe { result::set_matmul_pref_attribute(wishes.0, attribute, (&raw const room).cast(), size_of_val(&room)) }
        .map_err(failed)?;
    for (attribute, even) in [
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, weights),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
    ] {
        unsafe { result::set_matmul_pref_attribute(wishes.0, attribute, (&raw const even).cast(), size_of_val(&even)) }
            .map_err(failed)?;
    }
    Ok(wishes)
}

/// At a multiple of how many bytes something begins, up to the most that any kernel asks for.
fn even(place: u64) -> u32 {
    1 << place.trailing_zeros().min(8)
}

/// Bytes of a number of a format, and whether it is bf16.
fn format_of<T: Format>() -> (usize, bool) {
    (size_of::<T>(), T::DTYPE == DType::BF16)
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

/// That of `device`, made on its first use.
fn handle<'a>(handles: &'a mut BTreeMap<usize, Handle>, device: &CudaDevice) -> Result<&'a mut Handle> {
    match handles.entry(device.cuda_stream().context().ordinal()) {
        Entry::Occupied(held) => Ok(held.into_mut()),
        Entry::Vacant(vacant) => {
            let (library, workspace) = (result::create_handle().map_err(failed)?, cuda::room::<u8>(device, WORKSPACE)?);
            Ok(vacant.insert(Handle { library, workspace, chosen: BTreeMap::new() }))
        }
    }
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
