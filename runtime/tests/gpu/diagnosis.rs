//! What the program says of drivers and GPUs that it cannot use, shown by drivers that are made for it.

use std::path::Path;
use std::process::{Command, Output};

use vlm_contract::diagnosis::{Cause, Diagnosis};

use crate::gpu::gpu;

/// Writes a driver that has CUDA `version`, starts with `start` and has a GPU of `capability`, and its folder.
fn driver(version: u32, start: u32, capability: (u32, u32)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (major, minor) = capability;
    let code = format!(
        "#include <string.h>
         int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}
         int cuInit(unsigned flags) {{ return {start}; }}
         int cuDeviceGet(int *device, int n) {{ *device = 0; return 0; }}
         int cuDeviceGetName(char *name, int size, int device) {{ strncpy(name, \"Made Up\", size); return 0; }}
         int cuDeviceGetAttribute(int *v, int which, int device) {{ *v = which == 75 ? {major} : {minor}; return 0; }}"
    );
    std::fs::write(dir.path().join("driver.c"), code).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so.1", "driver.c"]);
    assert!(compiler.current_dir(dir.path()).status().unwrap().success());
    dir
}

fn case() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/llava15_llama_hub").to_owned()
}

fn run(driver: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_vlm-runtime");
    Command::new(program).args(arguments).env("LD_LIBRARY_PATH", driver).output().unwrap()
}

/// The sentence with which `verify` ends on the GPU, for `cause`.
#[track_caller]
fn fails(driver: &Path, cause: Cause) -> String {
    let ended = run(driver, &["verify", &case(), "--device", "cuda"]);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(i32::from(cause.exit_code())), "{error}");
    assert!(error.starts_with(cause.reason()) && error.trim_end().ends_with(cause.mend()), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    error
}

#[track_caller]
fn runs_on_the_cpu(driver: &Path) {
    let ended = run(driver, &["verify", &case(), "--dtype", "f32"]);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn without_a_driver_the_cpu_computes_unless_a_gpu_is_asked_for() {
    if gpu().is_some() {
        eprintln!("not tested, there is a driver here");
        return;
    }
    let nothing = tempfile::tempdir().unwrap();
    assert!(fails(nothing.path(), Cause::NoGpu).contains("libcuda.so.1"));
    runs_on_the_cpu(nothing.path());
}

#[test]
fn a_driver_without_a_gpu_is_no_reason_not_to_compute() {
    let driver = driver(13_000, 100, (9, 0));
    assert!(fails(driver.path(), Cause::NoGpu).contains("shows no GPU"));
    runs_on_the_cpu(driver.path());
}

#[test]
fn an_old_driver_is_named_with_what_is_needed() {
    let driver = driver(12_040, 0, (9, 0));
    let error = fails(driver.path(), Cause::DriverTooOld);
    assert!(["12.4", "13.0", "580"].iter().all(|part| error.contains(part)), "{error}");
    // Nobody pays for a GPU to compute on its host.
    let ended = run(driver.path(), &["verify", &case()]);
    assert_eq!(ended.status.code(), Some(i32::from(Cause::DriverTooOld.exit_code())));
}

#[test]
fn an_old_gpu_is_named_with_what_is_needed() {
    let driver = driver(13_000, 0, (7, 5));
    let error = fails(driver.path(), Cause::UnsupportedGpu);
    assert!(["Made Up", "7.5", "8.0"].iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn a_missing_library_is_named() {
    if gpu().is_some() {
        eprintln!("not tested, the libraries are here");
        return;
    }
    let driver = driver(13_000, 0, (8, 9));
    assert!(fails(driver.path(), Cause::CudaLibraryMissing).contains("libcublasLt.so.13"));
}

#[test]
fn a_driver_that_does_not_start_is_quoted() {
    let driver = driver(13_000, 803, (9, 0));
    assert!(fails(driver.path(), Cause::StartFailed).contains("803"));
}

#[test]
fn the_server_leaves_the_diagnosis_where_the_cluster_reads_it() {
    let (driver, dir) = (driver(12_080, 0, (9, 0)), tempfile::tempdir().unwrap());
    let log = dir.path().join("termination");
    let (case, log_path) = (case(), log.display().to_string());
    let ended = run(
        driver.path(),
        &["serve", "--model", &case, "--device", "cuda", "--port", "0", "--termination-log", &log_path],
    );
    assert_eq!(ended.status.code(), Some(i32::from(Cause::DriverTooOld.exit_code())));
    let written: Diagnosis = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    assert_eq!(written.reason, Cause::DriverTooOld);
    assert!(written.message.contains("12.8"), "{}", written.message);
}

#[test]
fn a_server_without_room_ends_with_its_own_code_and_both_numbers() {
    let Some(_turn) = gpu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (log, case) = (dir.path().join("termination"), case());
    let most = (1u64 << 50).to_string();
    let words = ["serve", "--model", &case, "--device", "cuda", "--port", "0", "--kv-bytes", &most];
    let mut server = Command::new(env!("CARGO_BIN_EXE_vlm-runtime"));
    let ended = server.args(words).arg("--termination-log").arg(&log).output().unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(i32::from(Cause::GpuOutOfMemory.exit_code())), "{error}");
    let written: Diagnosis = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    assert_eq!(written.reason, Cause::GpuOutOfMemory);
    assert!(written.message.contains(&most) && written.message.contains("are free"), "{}", written.message);
    assert!(written.message.ends_with(Cause::GpuOutOfMemory.mend()), "{}", written.message);
}
