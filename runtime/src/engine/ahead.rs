//! Steps that are begun before it is known what the last of them gave: tokens go from one to the next on the GPU, and to
//! the host through locked memory, in the order of their steps.

use std::collections::VecDeque;

use candle_core::cuda::cudarc::driver::{CudaEvent, PinnedHostSlice};
use candle_core::{CudaDevice, Result, Storage, Tensor, bail};

use crate::ops::{chosen_ids, feed};

/// The tokens of steps that are under way.
#[derive(Default)]
pub struct Ahead {
    /// Those of the last step, where the next finds them.
    last: Option<Tensor>,
    /// Those on their way to the host.
    sent: VecDeque<Sent>,
    /// Locked memory, which takes long, for the next: as many as steps were under way together.
    spare: Vec<PinnedHostSlice<u32>>,
}

struct Sent {
    ids: PinnedHostSlice<u32>,
    count: usize,
    came: CudaEvent,
}

impl Ahead {
    /// The tokens that follow from `rows` of the last step, to be fed to a vocabulary of `vocabulary`.
    pub fn follow(&self, rows: &[usize], vocabulary: usize) -> Result<Tensor> {
        let Some(last) = &self.last else { bail!("nothing has been begun that tokens could follow from") };
        let rows: Vec<u32> = rows.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX)).collect();
        feed(last, &rows, vocabulary)
    }

    /// Sends the tokens of a step (`[rows]` in u32) on their way.
    #[expect(unsafe_code, reason = "the memory that is locked is read where it was written alone")]
    pub fn send(&mut self, chosen: Tensor, device: &CudaDevice) -> Result<()> {
        let (stream, count) = (device.cuda_stream(), chosen.dim(0)?);
        let spare = self.spare.pop().filter(|spare| spare.len() >= count);
        let room = count.next_power_of_two();
        let mut ids: PinnedHostSlice<u32> = match spare {
            Some(spare) => spare,
            None => unsafe { stream.context().alloc_pinned_with_flags(room, 0) }.map_err(failed)?,
        };
        {
            let (storage, layout) = chosen.storage_and_layout();
            let Storage::Cuda(storage) = &*storage else { bail!("the tokens are not on the GPU") };
            let Some((start, end)) = layout.contiguous_offsets() else { bail!("the tokens are apart") };
            let to = &mut ids.as_mut_slice().map_err(failed)?[..count];
            stream.memcpy_dtoh(&storage.as_cuda_slice::<u32>()?.slice(start..end), to).map_err(failed)?;
        }
        let came = stream.record_event(None).map_err(failed)?;
        self.sent.push_back(Sent { ids, count, came });
        self.last = Some(chosen);
        Ok(())
    }

    /// Waits for the tokens of the first step that nobody has asked for.
    pub fn next(&mut self) -> Result<Vec<Option<u32>>> {
        let Some(Sent { ids, count, came }) = self.sent.pop_front() else { bail!("no step has been begun") };
        came.synchronize().map_err(failed)?;
        let chosen = chosen_ids(&ids.as_slice().map_err(failed)?[..count]);
        self.spare.push(ids);
        if self.sent.is_empty() {
            self.last = None;
        }
        Ok(chosen)
    }
}

fn failed(error: candle_core::cuda::cudarc::driver::DriverError) -> candle_core::Error {
    candle_core::Error::Cuda(Box::new(error))
}
