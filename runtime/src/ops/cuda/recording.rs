//! Memory of a step that is recorded as a graph. It is taken from a pool of its own and not by the step: a graph that takes and
//! gives back memory itself does so between its kernels, none of which then starts before the last has ended. The pool keeps what
//! it has: graphs go on with it, one at a time, as their kernels follow each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda::cudarc::driver::sys::{
    self, CUmemAllocationHandleType, CUmemAllocationType, CUmemLocationType, CUmemPool_attribute, CUmemPoolProps,
};
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DeviceRepr};
use candle_core::{CudaDevice, Error, Result};

use super::failed;

/// That of each GPU, by its number. They live as long as the process, as its context does.
static POOLS: Mutex<BTreeMap<usize, Pool>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The pool from which this thread takes memory, if it is recording.
    static TAKES: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

/// Memory, and the stream in whose order it is taken and given back. Nothing else happens on that.
#[derive(Clone)]
struct Pool {
    handle: sys::CUmemoryPool,
    stream: Arc<CudaStream>,
}

#[expect(unsafe_code, reason = "any thread may take from a pool, and this one is never given back")]
unsafe impl Send for Pool {}

impl Pool {
    #[expect(unsafe_code, reason = "the description is complete, and the GPU is open")]
    fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let mut what = unsafe { MaybeUninit::<CUmemPoolProps>::zeroed().assume_init() };
        what.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        what.handleTypes = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
        what.location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        what.location.id = i32::try_from(stream.context().ordinal()).map_err(Error::wrap)?;
        let (mut handle, mut kept) = (MaybeUninit::uninit(), u64::MAX);
        let keep = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let made = unsafe { sys::cuMemPoolCreate(handle.as_mut_ptr(), &raw const what).result() };
        made.map_err(failed)?;
        let handle = unsafe { handle.assume_init() };
        unsafe { sys::cuMemPoolSetAttribute(handle, keep, (&raw mut kept).cast()).result() }.map_err(failed)?;
        Ok(Self { handle, stream: stream.context().new_stream().map_err(failed)? })
    }

    fn of(device: &CudaDevice) -> Result<Self> {
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        let ordinal = device.cuda_stream().context().ordinal();
        if let Some(pool) = pools.get(&ordinal) {
            return Ok(pool.clone());
        }
        let fresh = Self::new(device)?;
        pools.insert(ordinal, fresh.clone());
        Ok(fresh)
    }
}

/// Does `work`, which takes its memory from the pool as long as it does so by [`room`].
pub fn recording<T>(device: &CudaDevice, work: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            TAKES.with_borrow_mut(Option::take);
        }
    }
    let pool = Pool::of(device)?;
    TAKES.with_borrow_mut(|takes| *takes = Some(pool));
    let _ends = Ends;
    work()
}

/// Room for `count` numbers, to be written by the next kernel.
#[expect(unsafe_code, reason = "the kernel that gets it writes every number of it before anything reads it")]
pub fn room<T: DeviceRepr>(device: &CudaDevice, count: usize) -> Result<CudaSlice<T>> {
    // No room at all cannot be had.
    let count = count.max(1);
    let Some(pool) = TAKES.with_borrow(Clone::clone) else { return unsafe { device.alloc::<T>(count) } };
    let (mut place, bytes) = (0, count * size_of::<T>());
    let taken = unsafe { sys::cuMemAllocFromPoolAsync(&raw mut place, bytes, pool.handle, pool.stream.cu_stream()) };
    taken.result().map_err(failed)?;
    Ok(unsafe { pool.stream.upgrade_device_ptr(place, count) })
}
