//! Compiles the CUDA kernels, for the feature `cuda` alone: each `kernels/*.cu` becomes a fat binary with machine code
//! for compute capabilities 8.0 and 9.0 and PTX of 8.0 behind both.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGETS: [&str; 3] = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90a,code=sm_90a",
    "-gencode=arch=compute_80,code=compute_80",
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    match kernels().and_then(|kernels| kernels.iter().try_for_each(|kernel| compile(kernel))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn kernels() -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir("kernels").map_err(|error| format!("kernels: {error}"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| format!("kernels: {error}")));
    let paths: Vec<PathBuf> = paths.collect::<Result<_, _>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "cu")).collect())
}

fn compile(kernel: &Path) -> Result<(), String> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let home = variable("CUDA_HOME").map(|home| home.join("bin/nvcc"));
    let nvcc = variable("NVCC").or(home).unwrap_or_else(|| "nvcc".into());
    let out = variable("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let out = out.join(kernel.with_extension("fatbin").file_name().unwrap_or_default());
    let mut command = Command::new(&nvcc);
    command.args(["-fatbin", "-O3", "-std=c++17", "--compress-mode=size"]).args(TARGETS);
    let status = command.arg("-o").arg(out).arg(kernel).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} does not compile: {status}", kernel.display())),
        Err(error) => Err(format!(
            "the CUDA compiler {} cannot be run: {error}; build with `make cuda`, which brings it",
            nvcc.display()
        )),
    }
}
