//! Attention without a mask among the rows of each tile of a picture, softmax in f32 (Vaswani et al. 2017).

use candle_core::{D, DType, Result, Tensor, bail};

/// Queries, keys and values `[tiles · rows, width]` each, to the same in `out`: f32, or on a GPU 16 bits, in which it then
/// multiplies. They are in f32, or in `out`. Rows may be parts of longer ones.
pub fn tile_attention(qkv: [&Tensor; 3], tiles: usize, heads: usize, out: DType) -> Result<Tensor> {
    let (all, width) = qkv[0].dims2()?;
    if tiles == 0 || heads == 0 || all % tiles != 0 || width % heads != 0 {
        bail!("{all} rows of {width} numbers are not those of {tiles} tiles and {heads} heads")
    }
    #[cfg(feature = "cuda")]
    if qkv[0].device().is_cuda() {
        return qkv[0].apply_op3_no_bwd(qkv[1], qkv[2], &on_gpu::TileAttention { tiles, heads, out });
    }
    if out != DType::F32 {
        bail!("attention within tiles on a CPU gives f32 and not {out:?}")
    }
    let (rows, head_dim) = (all / tiles, width / heads);
    let split = |x: &Tensor| x.reshape((tiles, rows, heads, head_dim))?.transpose(1, 2)?.contiguous();
    let [q, k, v] = [split(qkv[0])?, split(qkv[1])?, split(qkv[2])?];
    let scores = (q.matmul(&k.transpose(D::Minus1, D::Minus2)?)? * (head_dim as f64).sqrt().recip())?;
    let mixed = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)?;
    mixed.transpose(1, 2)?.reshape((all, width))
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use candle_core::backend::BackendStorage;
    use candle_core::{CpuStorage, CudaStorage, CustomOp3, DType, Layout, Result, Shape, bail};
    use half::{bf16, f16};

    use crate::ops::cuda::{self, FLASH_QUERIES, Flash, Format, Kernel, QUERIES, TILE_ATTENTION, launch, tile_memory};

    /// The same where the scores never leave the chip.
    pub struct TileAttention {
        pub tiles: usize,
        pub heads: usize,
        pub out: DType,
    }

    impl CustomOp3 for TileAttention {
        fn name(&self) -> &'static str {
            "tile-attention"
        }

        fn cpu_fwd(
            &self,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
        ) -> Result<(CpuStorage, Shape)> {
            bail!("queries, keys and values are not on one GPU")
        }

        fn cuda_fwd(
            &self,
            q: &CudaStorage,
            q_layout: &Layout,
            k: &CudaStorage,
            k_layout: &Layout,
            v: &CudaStorage,
            v_layout: &Layout,
        ) -> Result<(CudaStorage, Shape)> {
            let qkv = [(q, q_layout), (k, k_layout), (v, v_layout)];
            match (q.dtype(), self.out) {
                (DType::F32, DType::F16) => self.launch::<f32, f16>(qkv),
                (DType::F32, DType::BF16) => self.launch::<f32, bf16>(qkv),
                (_, DType::F16) => self.launch::<f16, f16>(qkv),
                (_, DType::BF16) => self.launch::<bf16, bf16>(qkv),
                _ => self.launch::<f32, f32>(qkv),
            }
        }
    }

    impl TileAttention {
        fn launch<In: Format, Out: Format>(
            &self,
            [(q, q_layout), (k, k_layout), (v, v_layout)]: [(&CudaStorage, &Layout); 3],
        ) -> Result<(CudaStorage, Shape)> {
            let (device, (all, width)) = (&q.device, q_layout.shape().dims2()?);
            if k_layout.shape() != q_layout.shape() || v_layout.shape() != q_layout.shape() {
                bail!("keys {k_layout:?} or values {v_layout:?} are not as many as queries {q_layout:?}")
            }
            let (q, q_stride) = cuda::rows::<In>(q, q_layout)?;
            let (k, k_stride) = cuda::rows::<In>(k, k_layout)?;
            let (v, v_stride) = cuda::rows::<In>(v, v_layout)?;
            let (rows, head_dim) = (all / self.tiles, width / self.heads);
            let strides = [q_stride as u32, k_stride as u32, v_stride as u32];
            let [of_tile, heads, columns] = [rows as u32, self.heads as u32, head_dim as u32];
            let mut out = cuda::room::<Out>(device, all * width)?;
            let (name, config) = if Out::DTYPE == DType::F32 {
                let grid = [rows.div_ceil(4 * QUERIES), self.heads, self.tiles];
                ("tile_attention".to_owned(), cuda::blocks(grid, 128, tile_memory(4 * QUERIES, head_dim)?)?)
            } else {
                let Flash { head, config } =
                    Flash::new([rows.div_ceil(FLASH_QUERIES), self.heads, self.tiles], head_dim)?;
                (format!("tile_attention_{}_{}_{head}", In::name(), Out::name()), config)
            };
            let kernel = Kernel::of(device, &TILE_ATTENTION, &name)?;
            let [q_stride, k_stride, v_stride] = &strides;
            launch!(kernel, config, &q, &k, &v, &mut out, q_stride, k_stride, v_stride, &of_tile, &heads, &columns)?;
            Ok((cuda::storage(out, device), (all, width).into()))
        }
    }
}
