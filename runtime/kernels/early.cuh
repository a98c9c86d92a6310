// Kernels that may start while the kernel before them still runs (programmatic dependent launch, from compute capability 9.0
// on). Such a kernel begins with `wait_for_last`, in every thread that reads or writes what others do, or fetches weights
// first: nobody writes those.
#pragma once

// Lets the next kernel start as soon as every block of this one has said so.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Until everything that was launched before has ended and can be read.
__device__ __forceinline__ void wait_for_last() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// As both, for kernels that fetch nothing before.
__device__ __forceinline__ void in_turn() {
    let_next_start();
    wait_for_last();
}
