//! Products on a GPU: few rows by the project's own kernels, many by cuBLAS. Sums are f32. Rows are rounded to the weights'
//! 16 bits first, as the checkpoints were trained, if they do not come so; beside quantised weights few rows to 8 bits, and many
//! to the 11 bits of tensor cores (TF32), so that a prompt is read more exactly.

mod biased;
mod few;
mod few_quantised;
mod packed;
mod quantised;
pub mod ring;

use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::cublas::{result, sys};
use candle_core::cuda::cudarc::driver::{CudaView, DevicePtr, DevicePtrMut};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp2, DType, InplaceOp3, Layout, Result, Shape, Storage, Tensor, bail,
};
use half::{bf16, f16};

use self::biased::{Places, Sizes};
use self::few::{Plan, What};
pub(super) use self::packed::Packed;
use self::quantised::{Few, Widened};
use super::{Blocks, FEW_ROWS, Weight};
use crate::ops::activation::gated;
use crate::ops::cuda::{self, Format, Kernel, LINEAR, Limits, launch};

/// `[rows, in]` to `[rows, out]` in the format `out`, with the bias.
pub fn forward(x: &Tensor, weight: &Weight, bias: Option<&Tensor>, out: DType) -> Result<Tensor> {
    match weight {
        Weight::Dense(weight) => x.apply_op2_no_bwd(weight, &Dense { bias, out }),
        Weight::Blocks(blocks) => match few_quantised(x, blocks, bias, What::Plain)? {
            Some(few) => x.apply_op1_no_bwd(&few),
            None => x.apply_op1_no_bwd(&Widened { blocks, bias }),
        },
    }
}

/// Products of few rows with quantised weights, or what becomes of them, if these are such.
fn few_quantised<'a>(x: &Tensor, blocks: &'a Blocks, bias: Option<&'a Tensor>, what: What) -> Result<Option<Few<'a>>> {
    Few::new(blocks, bias, x.dim(0)?, what, x.device().as_cuda_device()?)
}

/// Adds the products of few rows with quantised weights, and the bias, to `to`; says whether there is a kernel for that.
pub fn add_quantised_to(to: &Tensor, x: &Tensor, blocks: &Blocks, bias: Option<&Tensor>) -> Result<bool> {
    let few = few_quantised(x, blocks, bias, What::Added)?;
    few.map(|few| to.inplace_op2(x, &few)).transpose().map(|added| added.is_some())
}

/// As [`forward_gated`], of few rows with quantised weights, if there is a kernel for that: in f32.
pub fn forward_quantised_gated(x: &Tensor, blocks: &Blocks) -> Result<Option<Tensor>> {
    few_quantised(x, blocks, None, What::Gated)?.map(|few| x.apply_op1_no_bwd(&few)).transpose()
}

/// Adds the products of many rows, and the bias, to `to`.
pub fn add_to(to: &Tensor, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    to.inplace_op3(x, weight, &Added(bias))
}

/// `SiLU` of the first half of the products times the second, in the weights' 16 bits: `[rows, in]` to `[rows, out / 2]`.
pub fn forward_gated(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    x.apply_op2_no_bwd(weight, &Gated(bias))
}

/// Calls `use_it` with the numbers of a bias.
fn with_bias<R>(bias: &Tensor, outer: usize, use_it: impl FnOnce(&CudaView<'_, f32>) -> Result<R>) -> Result<R> {
    let (storage, layout) = bias.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("the bias is not on the GPU") };
    let bias = cuda::slice::<f32>(storage, layout)?;
    if bias.len() != outer {
        bail!("a bias of {} numbers does not fit {outer} outputs", bias.len())
    }
    use_it(&bias)
}

struct Dense<'a> {
    bias: Option<&'a Tensor>,
    out: DType,
}

impl CustomOp2 for Dense<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the rows and the weights are not on one GPU")
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, w: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        match w.dtype() {
            DType::F16 => Products::<f16>::of(x, xl, w, wl)?.times(self.bias, self.out),
            DType::BF16 => Products::<bf16>::of(x, xl, w, wl)?.times(self.bias, self.out),
            _ => Products::<f32>::of(x, xl, w, wl)?.times(self.bias, self.out),
        }
    }
}

struct Added<'a>(Option<&'a Tensor>);

impl InplaceOp3 for Added<'_> {
    fn name(&self) -> &'static str {
        "linear-added"
    }

    fn cpu_fwd(
        &self,
        _: &mut CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<()> {
        bail!("the rows and the weights are not on one GPU")
    }

    fn cuda_fwd(
        &self,
        to: &mut CudaStorage,
        tl: &Layout,
        x: &CudaStorage,
        xl: &Layout,
        w: &CudaStorage,
        wl: &Layout,
    ) -> Result<()> {
        match w.dtype() {
            DType::F16 => Products::<f16>::of(x, xl, w, wl)?.add(self.0, to, tl),
            DType::BF16 => Products::<bf16>::of(x, xl, w, wl)?.add(self.0, to, tl),
            _ => Products::<f32>::of(x, xl, w, wl)?.add(self.0, to, tl),
        }
    }
}

struct Gated<'a>(Option<&'a Tensor>);

impl CustomOp2 for Gated<'_> {
    fn name(&self) -> &'static str {
        "linear-gated"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the rows and the weights are not on one GPU")
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, w: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        match w.dtype() {
            DType::F16 => Products::<f16>::of(x, xl, w, wl)?.gated(self.0),
            DType::BF16 => Products::<bf16>::of(x, xl, w, wl)?.gated(self.0),
            _ => Products::<f32>::of(x, xl, w, wl)?.gated(self.0),
        }
    }
}

/// What cuBLAS calls a format.
fn of_cublas<T: Format>() -> sys::cudaDataType_t {
    match T::DTYPE {
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
        _ => sys::cudaDataType_t::CUDA_R_32F,
    }
}

/// Rows as they come.
enum Rows<'a, T> {
    Exact(CudaView<'a, f32>),
    /// In the format of the weights.
    Rounded(CudaView<'a, T>),
}

/// Rows and weights of one product.
struct Products<'a, T> {
    device: &'a CudaDevice,
    x: Rows<'a, T>,
    w: CudaView<'a, T>,
    rows: usize,
    inner: usize,
    outer: usize,
    /// From a row of products to the next; more than `outer` where these are some columns of many.
    stride: usize,
    /// How exact many rows are.
    compute: sys::cublasComputeType_t,
    /// Whether each row of weights, and of `x`, begins at a multiple of 16 bytes.
    whole: bool,
}

impl<'a, T: Format> Products<'a, T> {
    fn of(x: &'a CudaStorage, xl: &Layout, w: &'a CudaStorage, wl: &Layout) -> Result<Self> {
        let ((rows, inner), (outer, _)) = (xl.shape().dims2()?, wl.shape().dims2()?);
        let aligned = |length: usize, bytes: usize| (length * bytes).is_multiple_of(16);
        let whole = [inner, wl.start_offset()].into_iter().all(|length| aligned(length, size_of::<T>()))
            && [inner, xl.start_offset()].into_iter().all(|length| aligned(length, size_of::<f32>()));
        let device = &x.device;
        let (x, w) = match x.dtype() {
            DType::F32 => (Rows::Exact(cuda::slice(x, xl)?), cuda::slice(w, wl)?),
            _ => (Rows::Rounded(cuda::slice(x, xl)?), cuda::slice(w, wl)?),
        };
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        Ok(Self { device, x, w, rows, inner, outer, stride: outer, compute, whole })
    }

    fn times(&self, bias: Option<&Tensor>, out: DType) -> Result<(CudaStorage, Shape)> {
        let storage = match &self.x {
            _ if out == T::DTYPE && out != DType::F32 => self.products::<T>(bias)?,
            Rows::Exact(x) if T::DTYPE == DType::F32 && (1..=FEW_ROWS).contains(&self.rows) => {
                self.few_exact(x, bias)?
            }
            _ => match self.plan(What::Plain, self.outer)? {
                Some(plan) => {
                    let mut out = cuda::room::<f32>(self.device, self.rows * self.outer)?;
                    self.few(&plan, bias, &mut out)?;
                    cuda::storage(out, self.device)
                }
                None => self.products::<f32>(bias)?,
            },
        };
        Ok((storage, (self.rows, self.outer).into()))
    }

    fn gated(&self, bias: Option<&Tensor>) -> Result<(CudaStorage, Shape)> {
        let width = self.outer / 2;
        if bias.is_none()
            && self.outer.is_multiple_of(2)
            && let Some(plan) = self.plan(What::Gated, width)?
        {
            let mut out = cuda::room::<T>(self.device, self.rows * width)?;
            self.few(&plan, None, &mut out)?;
            return Ok((cuda::storage(out, self.device), (self.rows, width).into()));
        }
        gated::<T>(&self.products::<T>(bias)?, &Layout::contiguous((self.rows, self.outer)))
    }

    /// How few rows in 16 bits are multiplied, if these are such.
    fn plan(&self, what: What, outer: usize) -> Result<Option<Plan>> {
        if T::DTYPE == DType::F32 || !self.whole || self.rows > few::MOST_ROWS {
            return Ok(None);
        }
        let sizes = few::Sizes { rows: self.rows, inner: self.inner, outer };
        Ok(Plan::new(sizes, what, Limits::of(self.device)?))
    }

    fn few<O: Format>(&self, plan: &Plan, bias: Option<&Tensor>, out: &mut impl DevicePtrMut<O>) -> Result<()> {
        let stream = self.device.cuda_stream();
        let (out, _out) = out.device_ptr_mut(&stream);
        self.with_bias::<f32, _>(bias, |bias| {
            self.rounded(|x| plan.launch(self.device, &self.w, x, bias.unwrap_or_default(), out))
        })
    }

    /// Calls `use_it` with the rows in the format of the weights.
    fn rounded<R>(&self, use_it: impl FnOnce(&CudaView<'_, T>) -> Result<R>) -> Result<R> {
        match &self.x {
            Rows::Rounded(x) => use_it(x),
            Rows::Exact(x) => {
                let count = self.rows * self.inner;
                let mut narrowed = cuda::room::<T>(self.device, count)?;
                let kernel = Kernel::of(self.device, &LINEAR, &format!("narrow_{}", T::name()))?;
                launch!(kernel, cuda::each(count)?, x, &mut narrowed, &count)?;
                use_it(&narrowed.slice(..))
            }
        }
    }

    fn few_exact(&self, x: &CudaView<'_, f32>, bias: Option<&Tensor>) -> Result<CudaStorage> {
        let mut out = cuda::room::<f32>(self.device, self.rows * self.outer)?;
        let (inner, outer, whole) = (self.inner as u32, self.outer as u32, u32::from(self.whole));
        // Four warps a block; the kernel says how many outputs each has.
        let outputs = match self.rows {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        let config = cuda::blocks([self.outer.div_ceil(4 * outputs), 1, 1], 128, 0)?;
        let kernel = Kernel::of(self.device, &LINEAR, &format!("few_rows_f32_{}", self.rows))?;
        if let Some(bias) = bias {
            with_bias(bias, self.outer, |bias| {
                launch!(kernel, config, &self.w, x, bias, &mut out, &inner, &outer, &whole)
            })?;
        } else {
            let none = 0u64;
            launch!(kernel, config, &self.w, x, &none, &mut out, &inner, &outer, &whole)?;
        }
        Ok(cuda::storage(out, self.device))
    }

    /// The products of any number of rows in the format `O`.
    fn products<O: Format>(&self, bias: Option<&Tensor>) -> Result<CudaStorage> {
        let mut out = cuda::room::<O>(self.device, self.rows * self.outer)?;
        if self.rows > 0 {
            self.with_bias::<O, _>(bias, |bias| self.many(bias, 0.0, &mut out))?;
        }
        Ok(cuda::storage(out, self.device))
    }

    /// Adds the products to `to`.
    fn add(&self, bias: Option<&Tensor>, to: &mut CudaStorage, layout: &Layout) -> Result<()> {
        if layout.shape().dims2()? != (self.rows, self.outer) {
            bail!("products of {} rows and {} columns cannot be added to {:?}", self.rows, self.outer, layout.shape())
        }
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("expected whole rows, got {layout:?}") };
        let mut to = to.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
        if let Some(plan) = self.plan(What::Added, self.outer)? {
            return self.few(&plan, bias, &mut to);
        }
        self.with_bias::<f32, _>(bias, |bias| self.many(bias, 1.0, &mut to))
    }

    /// Calls `use_it` with where the numbers of a bias are in the format `O`, if there is one.
    fn with_bias<O: Format, R>(
        &self,
        bias: Option<&Tensor>,
        use_it: impl FnOnce(Option<u64>) -> Result<R>,
    ) -> Result<R> {
        let (Some(bias), stream) = (bias, self.device.cuda_stream()) else { return use_it(None) };
        with_bias(bias, self.outer, |bias| {
            if O::DTYPE == DType::F32 {
                let (place, _bias) = bias.device_ptr(&stream);
                return use_it(Some(place));
            }
            let (count, name) = (self.outer, format!("narrow_{}", O::name()));
            let mut narrowed = cuda::room::<O>(self.device, count)?;
            launch!(Kernel::of(self.device, &LINEAR, &name)?, cuda::each(count)?, bias, &mut narrowed, &count)?;
            let (place, _narrowed) = narrowed.device_ptr(&stream);
            use_it(Some(place))
        })
    }

    /// `out` becomes the products, and the bias where there is one, added to `keep` times what it is.
    fn many<O: Format>(&self, bias: Option<u64>, keep: f32, out: &mut impl DevicePtrMut<O>) -> Result<()> {
        match &self.x {
            Rows::Exact(x) if T::DTYPE == DType::F32 => self.gemm::<f32, O>(x, bias, keep, out),
            _ => self.rounded(|x| self.gemm::<T, O>(x, bias, keep, out)),
        }
    }

    fn gemm<X, O: Format>(
        &self,
        x: &impl DevicePtr<X>,
        bias: Option<u64>,
        keep: f32,
        out: &mut impl DevicePtrMut<O>,
    ) -> Result<()> {
        let size = |size: usize| i32::try_from(size).map_err(candle_core::Error::wrap);
        let [rows, inner, outer, stride] = [self.rows, self.inner, self.outer, self.stride].map(size);
        let (rows, inner, outer, stride) = (rows?, inner?, outer?, stride?);
        let (handle, stream, one) = (self.device.cublas_handle(), self.device.cuda_stream(), 1f32);
        let ((w, _w), (x, _x), (out, _out)) =
            (self.w.device_ptr(&stream), x.device_ptr(&stream), out.device_ptr_mut(&stream));
        if let Some(bias) = bias {
            let sizes = Sizes { rows: self.rows, inner: self.inner, outer: self.outer, stride: self.stride };
            let places = Places { weights: w, x, bias, out };
            return biased::product::<T, O>(self.device, places, sizes, self.compute, keep);
        }
        // cuBLAS counts matrices by columns: theirs is the transpose of ours.
        #[expect(unsafe_code, reason = "the matrices are the tensors that were checked, on the stream of the handle")]
        let done = unsafe {
            result::gemm_ex(
                *handle.handle(),
                sys::cublasOperation_t::CUBLAS_OP_T,
                sys::cublasOperation_t::CUBLAS_OP_N,
                outer,
                rows,
                inner,
                (&raw const one).cast(),
                w as *const _,
                of_cublas::<T>(),
                inner,
                x as *const _,
                of_cublas::<T>(),
                inner,
                (&raw const keep).cast(),
                out as *mut _,
                of_cublas::<O>(),
                stride,
                self.compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(cuda::failed_blas)
    }
}
