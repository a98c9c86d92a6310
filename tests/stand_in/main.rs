//! Stands in for the model server for GPUs on a node without one, and ends as that does when it can use none: the variable
//! `FAILS_AS` names the reason. What it has to do with a real driver is tested where the model server is.

use std::process::ExitCode;

use vlm_contract::diagnosis::{Cause, Diagnosis};

fn main() -> ExitCode {
    let wanted = std::env::var("FAILS_AS").unwrap_or_default();
    let Some(cause) = Cause::ALL.into_iter().find(|cause| cause.reason() == wanted) else {
        eprintln!("FAILS_AS is {wanted:?}, no reason of the table");
        return ExitCode::FAILURE;
    };
    let diagnosis = Diagnosis::new(cause, "a stand-in was told to end so");
    eprintln!("{diagnosis}");
    let written = serde_json::to_vec(&diagnosis).map_err(std::io::Error::other);
    if let Err(error) = written.and_then(|text| std::fs::write("/dev/termination-log", text)) {
        eprintln!("cannot write the termination log: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::from(cause.exit_code())
}
