//! Bytes from main memory to where a model computes. On their way to a GPU they go through memory that the driver need not
//! copy from once more, filled by all cores: pictures are the only large thing that a request brings.

use candle_core::{Device, Result, Shape, Tensor};

/// `parts` one after another as one tensor of `shape` on `device`.
pub fn upload(parts: &[&[u8]], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return on_gpu::upload(parts, shape.into(), device);
    }
    Tensor::from_vec(parts.concat(), shape, device)
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use std::sync::{Mutex, PoisonError};

    use candle_core::cuda::cudarc::driver::{CudaEvent, PinnedHostSlice};
    use candle_core::op::BackpropOp;
    use candle_core::{CudaDevice, Result, Shape, Storage, Tensor, bail};
    use rayon::prelude::*;

    use crate::ops::cuda::{self, failed};

    /// Bytes that one core copies at a time.
    const PART: usize = 1 << 18;

    /// Memory that is locked, which takes long, and what was sent from it last.
    struct Stage {
        bytes: PinnedHostSlice<u8>,
        sent: Option<CudaEvent>,
    }

    /// Kept for the next pictures.
    static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

    #[expect(unsafe_code, reason = "the bytes of the memory that is locked are written before they are read")]
    pub fn upload(parts: &[&[u8]], shape: Shape, device: &CudaDevice) -> Result<Tensor> {
        let (stream, count) = (device.cuda_stream(), parts.iter().map(|part| part.len()).sum());
        if shape.elem_count() != count {
            bail!("{count} bytes are no tensor of {shape:?}")
        }
        let mut held = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
        // What was sent before may be under way.
        if let Some(sent) = held.as_mut().and_then(|stage| stage.sent.take()) {
            sent.synchronize().map_err(failed)?;
        }
        if held.as_ref().is_none_or(|stage| stage.bytes.len() < count) {
            *held = None;
        }
        let stage = match &mut *held {
            Some(stage) => stage,
            none => {
                let bytes = unsafe { stream.context().alloc_pinned_with_flags(count, 0) }.map_err(failed)?;
                none.insert(Stage { bytes, sent: None })
            }
        };
        let bytes = stage.bytes.as_mut_slice().map_err(failed)?;
        let mut rest = &mut bytes[..count];
        for part in parts {
            let (to, behind) = rest.split_at_mut(part.len());
            to.par_chunks_mut(PART).zip(part.par_chunks(PART)).for_each(|(to, from)| to.copy_from_slice(from));
            rest = behind;
        }
        let mut out = cuda::room::<u8>(device, count)?;
        stream.memcpy_htod(&bytes[..count], &mut out).map_err(failed)?;
        stage.sent = Some(stream.record_event(None).map_err(failed)?);
        let storage = Storage::Cuda(cuda::storage(out, device));
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_fill_the_shape() {
        let parts: [&[u8]; 2] = [&[1, 2], &[3, 4, 5, 6]];
        let rows: Vec<Vec<u8>> = upload(&parts, (2, 3), &Device::Cpu).unwrap().to_vec2().unwrap();
        assert_eq!(rows, [[1, 2, 3], [4, 5, 6]]);
        assert!(upload(&parts, (2, 2), &Device::Cpu).is_err());
    }
}
