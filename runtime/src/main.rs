//! `vlm-runtime`: serves vision-language models over the `OpenAI` API.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::ffi::OsString;
use std::process::ExitCode;

use vlm_runtime::args::{self, Cli, Command, LogFormat, NoCommand};
use vlm_runtime::commands::{self, CommandError};
use vlm_runtime::diagnose::{self, StartError};
use vlm_runtime::telemetry;

fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    let result = match args::parse(&line) {
        Ok(cli) => run(cli),
        Err(NoCommand::Text(text)) => {
            println!("{text}");
            Ok(())
        }
        Err(NoCommand::Wrong(sentence)) => Err(StartError::Arguments(sentence).into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Start(error)) => {
            let diagnosis = error.diagnosis();
            diagnose::report(&diagnosis, args::termination_log(&line).as_deref());
            ExitCode::from(diagnosis.reason.exit_code())
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), CommandError> {
    match cli.command {
        Command::Serve(args) => {
            telemetry::init(args.log_format);
            Ok(commands::serve::run(args)?)
        }
        Command::Fetch(args) => {
            telemetry::init(args.log_format);
            commands::fetch::run(&args)
        }
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Trace(args) => commands::trace::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Bench(args) => {
            // Among the results it would only be in the way, unless it is asked for: `trace` says how long each step takes.
            if std::env::var_os("RUST_LOG").is_some() {
                telemetry::init(LogFormat::Text);
            }
            commands::bench::run(&args)
        }
    }
}
