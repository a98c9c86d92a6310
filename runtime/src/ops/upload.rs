//! Numbers from main memory to where a model computes. On their way to a GPU they go through memory that the driver need not
//! copy from once more, filled by all cores: pictures are the only large thing that a request brings.

use candle_core::{Device, Result, Shape, Tensor};

/// `parts` one after another as one tensor of `shape` on `device`.
pub fn upload(parts: &[&[f32]], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return on_gpu::upload(parts, shape.into(), device);
    }
    Tensor::from_vec(parts.concat(), shape, device)
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use std::sync::{Mutex, PoisonError};

    use candle_core::cuda::cudarc::driver::PinnedHostSlice;
    use candle_core::op::BackpropOp;
    use candle_core::{CudaDevice, Result, Shape, Storage, Tensor, bail};
    use rayon::prelude::*;

    use crate::ops::cuda::{self, failed};

    /// Numbers that one core copies at a time.
    const PART: usize = 1 << 16;

    /// Memory that is locked, which takes long; kept for the next pictures.
    static STAGE: Mutex<Option<PinnedHostSlice<f32>>> = Mutex::new(None);

    #[expect(unsafe_code, reason = "the numbers of the memory that is locked are written before they are read")]
    pub fn upload(parts: &[&[f32]], shape: Shape, device: &CudaDevice) -> Result<Tensor> {
        let (stream, count) = (device.cuda_stream(), parts.iter().map(|part| part.len()).sum());
        if shape.elem_count() != count {
            bail!("{count} numbers are no tensor of {shape:?}")
        }
        let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
        // What was sent before may be under way.
        stream.synchronize().map_err(failed)?;
        if stage.as_ref().is_none_or(|stage| stage.len() < count) {
            *stage = None;
        }
        let stage = match &mut *stage {
            Some(stage) => stage,
            none => none.insert(unsafe { stream.context().alloc_pinned_with_flags(count, 0) }.map_err(failed)?),
        };
        let numbers = stage.as_mut_slice().map_err(failed)?;
        let mut rest = &mut numbers[..count];
        for part in parts {
            let (to, behind) = rest.split_at_mut(part.len());
            to.par_chunks_mut(PART).zip(part.par_chunks(PART)).for_each(|(to, from)| to.copy_from_slice(from));
            rest = behind;
        }
        let mut out = cuda::room::<f32>(device, count)?;
        stream.memcpy_htod(&numbers[..count], &mut out).map_err(failed)?;
        let storage = Storage::Cuda(cuda::storage(out, device));
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_fill_the_shape() {
        let parts: [&[f32]; 2] = [&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0]];
        let rows: Vec<Vec<f32>> = upload(&parts, (2, 3), &Device::Cpu).unwrap().to_vec2().unwrap();
        assert_eq!(rows, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        assert!(upload(&parts, (2, 2), &Device::Cpu).is_err());
    }
}
