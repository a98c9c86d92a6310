//! Decode steps as CUDA graphs: the launches of one step recorded once for a number of rows and a length of context, and
//! replayed over buffers that stay where they are. A small model's step is otherwise bound by its launches.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;

use candle_core::cuda::cudarc::driver::CudaGraph;
use candle_core::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::{CudaDevice, DType, Device, Result, Tensor, bail};
use vlm_catalog::footprint::GPU_PADDED_ROWS;

use crate::models::Language;
use crate::ops::cuda::{failed, no_memory, recording, with_room};
use crate::ops::{Batch, DeviceRows, KvCache, Segment};

/// Tokens of context of the smallest graph.
const SHORTEST: usize = 256;
/// Rows up to which there is a graph for every number of them: the kernels for few rows are made for each.
const EACH: usize = 8;
/// Above, rows are padded to a multiple of this.
const ROWS: usize = GPU_PADDED_ROWS as usize;

/// Rows of the steps that are recorded before any of them is asked for, as far as sequences may be that many.
const AT_START: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Steps that are computed as they are, once there was no memory to record one, before that is tried again.
const PAUSE: u64 = 256;

/// The environment's variable by which nothing is recorded, if it is 0: for tools that watch each access to memory, which take
/// that of recorded steps for given back (`ops/cuda/recording.rs`).
const SWITCH: &str = "VLM_CUDA_GRAPHS";

/// What a graph is recorded for: at least the rows and the longest sequence of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Size {
    rows: usize,
    tokens: usize,
}

impl Size {
    fn of(segments: &[Segment<'_>]) -> Self {
        let longest = segments.iter().map(|segment| segment.start + segment.rows).max().unwrap_or_default();
        Self::around(segments.len(), longest)
    }

    fn around(rows: usize, tokens: usize) -> Self {
        let rows = if rows <= EACH { rows } else { rows.next_multiple_of(ROWS) };
        Self { rows, tokens: tokens.next_power_of_two().max(SHORTEST) }
    }

    /// Those of the first steps of up to `rows` sequences of up to `tokens` tokens.
    fn at_start(rows: usize, tokens: usize) -> Vec<Self> {
        let longest = Self::around(1, tokens).tokens;
        let lengths =
            || std::iter::successors(Some(SHORTEST), |tokens| Some(2 * tokens)).take_while(|tokens| *tokens <= longest);
        let most = Some(Self::around(rows, 1).rows).filter(|most| *most <= AT_START[AT_START.len() - 1]);
        let fewer = AT_START.into_iter().filter(|some| *some < rows && most != Some(*some));
        fewer.chain(most).flat_map(|rows| lengths().map(move |tokens| Self { rows, tokens })).collect()
    }
}

/// All graphs so far. They refer to the weights and the cache with which they were recorded.
pub struct Graphs {
    recorded: HashMap<Size, Recorded>,
    /// Where all of them leave their logits, a step after the other: `[most rows so far, vocabulary]`.
    logits: Option<Tensor>,
    /// Steps that were replayed, and steps for which nothing was recorded.
    counts: (u64, u64),
    /// Nothing is recorded before so many of the latter.
    pause: u64,
}

/// One graph and what it reads and writes.
struct Recorded {
    graph: Owned,
    rows: Arc<DeviceRows>,
    /// `[rows]` in u32.
    ids: Tensor,
    /// `[rows, vocabulary]`.
    logits: Tensor,
}

/// A graph that moves to another thread with everything else of the engine, and is used by one at a time.
struct Owned(CudaGraph);

#[expect(unsafe_code, reason = "a graph may be used by any thread, if by one at a time; it is never shared")]
unsafe impl Send for Owned {}

impl Default for Graphs {
    fn default() -> Self {
        Self::switched(std::env::var_os(SWITCH).as_deref())
    }
}

impl Graphs {
    /// None yet; none ever if `switch` is 0.
    fn switched(switch: Option<&OsStr>) -> Self {
        let pause = if switch.is_some_and(|switch| switch == "0") { u64::MAX } else { 0 };
        Self { recorded: HashMap::new(), logits: None, counts: (0, 0), pause }
    }

    /// Records the steps of up to `rows` sequences of up to `tokens` tokens that come first, so that none waits for that.
    pub fn prepare(&mut self, language: &Language, cache: &KvCache, rows: usize, tokens: usize) -> Result<()> {
        if self.pause == u64::MAX {
            return Ok(());
        }
        let Device::Cuda(device) = cache.device() else { bail!("the KV cache is not on a GPU") };
        let most = (rows.next_multiple_of(ROWS), language.vocabulary()?);
        self.logits = Some(Tensor::zeros(most, DType::F32, cache.device())?);
        for size in Size::at_start(rows, tokens) {
            if !self.recorded.contains_key(&size) {
                self.record(size, language, cache, device)?;
            }
        }
        Ok(())
    }

    /// One more token for each sequence, its segment being one row, fed with `ids` (`[sequences]` in u32, of the
    /// vocabulary): logits `[sequences, vocabulary]`. The first step of a size is computed as it is, and recorded for the
    /// next, where there is room.
    pub fn next(
        &mut self,
        language: &Language,
        cache: &KvCache,
        segments: &[Segment<'_>],
        ids: &Tensor,
    ) -> Result<Tensor> {
        let size = Size::of(segments);
        let Device::Cuda(device) = cache.device() else { bail!("the KV cache is not on a GPU") };
        if let Some(recorded) = self.recorded.get_mut(&size) {
            match recorded.replay(language, cache, segments, ids) {
                // Computed as it is, it may have room.
                Err(error) if no_memory(&error) => {}
                done => {
                    self.counts.0 += 1;
                    return done;
                }
            }
        }
        self.counts.1 += 1;
        let batch = Batch::new(segments);
        let hidden = language.forward(&language.embed_at(ids)?, &batch, cache)?;
        let logits = language.logits(&hidden, batch.last_rows())?;
        if !self.recorded.contains_key(&size) && self.counts.1 > self.pause {
            match self.record(size, language, cache, device) {
                Err(error) if no_memory(&error) => {
                    tracing::warn!(rows = size.rows, tokens = size.tokens, "no memory to record a decode step");
                    self.pause = self.counts.1 + PAUSE;
                }
                done => done?,
            }
        }
        Ok(logits)
    }

    fn record(&mut self, size: Size, language: &Language, cache: &KvCache, device: &CudaDevice) -> Result<()> {
        let shared = &mut self.logits;
        let recorded = with_room(device, || Recorded::new(size, language, cache, device, shared))?;
        self.recorded.insert(size, recorded);
        Ok(())
    }

    /// Steps so far that were replayed, and those that were not.
    pub fn counts(&self) -> (u64, u64) {
        self.counts
    }
}

impl Recorded {
    /// `shared` is where the logits go, which becomes larger where there is no room.
    fn new(
        size: Size,
        language: &Language,
        cache: &KvCache,
        device: &CudaDevice,
        shared: &mut Option<Tensor>,
    ) -> Result<Self> {
        let on_device = Device::Cuda(device.clone());
        let rows = Arc::new(DeviceRows::room_for(size.rows, size.tokens, device)?);
        let ids = Tensor::zeros(size.rows, DType::U32, &on_device)?;
        // What is made on first use, buffers of cuBLAS for these sizes among it, cannot be while it is recorded.
        let batch = Batch::placed(size.rows, Arc::clone(&rows));
        let step = || language.all_logits(&language.forward(&language.embed_at(&ids)?, &batch, cache)?);
        let vocabulary = recording(device, step)?.dim(1)?;
        let held = match shared.take() {
            Some(held) if held.dim(0)? >= size.rows => held,
            _ => Tensor::zeros((size.rows, vocabulary), DType::F32, &on_device)?,
        };
        let logits = shared.insert(held).narrow(0, 0, size.rows)?;
        let whole = || logits.slice_set(&step()?, 0, 0);
        recording(device, whole)?;
        let stream = device.cuda_stream();
        on_device.synchronize()?;
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(failed)?;
        let done = recording(device, whole);
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        // The stream is to be usable again whether the step can be recorded or not.
        let graph = stream.end_capture(flags);
        done?;
        let Some(graph) = graph.map_err(failed)? else { bail!("nothing of a decode step was recorded") };
        graph.upload().map_err(failed)?;
        tracing::debug!(rows = size.rows, tokens = size.tokens, "recorded a decode step");
        Ok(Self { graph: Owned(graph), rows, ids, logits })
    }

    fn replay(
        &mut self,
        language: &Language,
        cache: &KvCache,
        segments: &[Segment<'_>],
        ids: &Tensor,
    ) -> Result<Tensor> {
        let batch = Batch::padded(segments, self.ids.dim(0)?);
        language.check(&[], &batch, cache)?;
        let Device::Cuda(device) = cache.device() else { bail!("the KV cache is not on a GPU") };
        let Some(rows) = Arc::get_mut(&mut self.rows) else { bail!("the rows of a recorded step are in use") };
        language.place(&batch, rows)?;
        // Rows that only fill up the step keep what they were fed last.
        self.ids.slice_set(ids, 0, 0)?;
        with_room(device, || self.graph.0.launch().map_err(failed))?;
        // The next step writes to the same place.
        self.logits.narrow(0, 0, segments.len())?.force_contiguous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_have_their_own_graph_and_many_share_one() {
        let blocks = [1u32; 40];
        let size = |rows: usize, start: usize| {
            let segments = vec![Segment { blocks: &blocks, start, rows: 1, long: false }; rows];
            let Size { rows, tokens } = Size::of(&segments);
            (rows, tokens)
        };
        assert_eq!(size(1, 0), (1, 256));
        assert_eq!(size(8, 255), (8, 256));
        assert_eq!(size(9, 256), (16, 512));
        assert_eq!(size(33, 1000), (48, 1024));
    }

    #[test]
    fn the_first_steps_of_as_many_sequences_as_there_may_be_are_recorded_ahead() {
        let sizes = |rows, tokens| {
            Size::at_start(rows, tokens).into_iter().map(|Size { rows, tokens }| (rows, tokens)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(1, 300), [(1, 256), (1, 512)]);
        let rows = |most| sizes(most, 256).into_iter().map(|(rows, _)| rows).collect::<Vec<_>>();
        assert_eq!(rows(8), [1, 2, 4, 8]);
        assert_eq!(rows(20), [1, 2, 4, 8, 16, 32]);
        assert_eq!(rows(100), AT_START);
    }

    #[test]
    fn nothing_is_recorded_where_the_environment_says_so() {
        let pause = |switch: Option<&str>| Graphs::switched(switch.map(OsStr::new)).pause;
        assert_eq!([None, Some("1"), Some(""), Some("0")].map(pause), [0, 0, 0, u64::MAX]);
    }
}
