//! `bench`: how fast this machine runs a model, and how near that is to what its memory allows. Reads as that list;
//! `bandwidth` measures memory, `prompts` makes requests, `load` sends them, `report` is what a person and a program read.

mod bandwidth;
mod load;
mod prompts;
mod report;

use std::path::Path;
use std::time::Instant;

use candle_core::Device;
use tokio::runtime::Builder;

use super::CommandError;
use crate::args::{BenchArgs, BenchMode};
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::device::{self, Demand};
use crate::diagnose::StartError;
use crate::engine::{ENCODER_CACHE_BYTES, Engine, EngineOptions};
use crate::models::VisionLanguage;
use crate::precision::Precision;
use load::{Arrivals, Load};
use prompts::Prompts;
use report::{Memory, Model, Report, Work};

/// Measures, prints a table, and writes JSON if a file was named.
///
/// # Errors
/// A device, a checkpoint or flags that cannot be used, a request that fails, a file that cannot be written.
pub fn run(args: &BenchArgs) -> Result<(), CommandError> {
    let device = device::open(args.how.device)?;
    progress(&format!("reading the memory of {}", device::name(&device)));
    let mut report = Report::new(args.mode.name(), device::name(&device), bandwidth::measure(&device)?);
    match (&args.model, args.mode) {
        (_, BenchMode::Bandwidth) => {}
        (Some(model), _) => measure(args, model, &device, &mut report)?,
        (None, mode) => {
            let sentence = format!("--model is missing; --mode {} measures a model", mode.name());
            return Err(StartError::Arguments(sentence).into());
        }
    }
    print!("{report}");
    let Some(path) = &args.json else { return Ok(()) };
    let json = serde_json::to_string_pretty(&report).map_err(|error| CommandError::write(path, &error))?;
    std::fs::write(path, json + "\n").map_err(|error| CommandError::write(path, &error))
}

fn measure(args: &BenchArgs, dir: &Path, device: &Device, report: &mut Report) -> Result<(), CommandError> {
    let checkpoint = if args.dummy_weights {
        Checkpoint::drawn(dir, device)?
    } else {
        Checkpoint::open_with(dir, &OpenOptions { vision_tower: args.how.vision_tower.clone() })?
    };
    let prompts = Prompts::new(&checkpoint, args)?;
    let precision = args.how.precision.on(device, checkpoint.stored());
    let max_tokens = prompts.tokens() + args.output_tokens as usize;
    let demand = Demand::of(&checkpoint, precision, max_tokens, args.batch as usize);
    let kv = args.kv_bytes.unwrap_or(demand.kv);
    device::check_memory(device, Demand { kv, ..demand })?;
    // Those of what was measured before do not count.
    device::peak_bytes(device)?;
    progress(&format!("loading {}", dir.display()));
    let begun = Instant::now();
    let model = VisionLanguage::load_on(&checkpoint, max_tokens, precision, device)?;
    let weights_bytes = model.weights().bytes;
    let engine = Engine::over(model, options(args, precision, max_tokens))?;
    let load_seconds = begun.elapsed().as_secs_f64();
    let load = Load { engine: &engine, prompts: &prompts, output_tokens: args.output_tokens as usize };
    let timings = send(args, &load)?;
    let work = Work {
        batch: args.batch as usize,
        prompt_tokens: prompts.tokens(),
        image_tokens: prompts.image_tokens(),
        images: args.images as usize,
        tiles: prompts.tiles(),
        output_tokens: args.output_tokens as usize,
        request_rate: args.request_rate,
    };
    let peak_bytes = device::peak_bytes(device)?;
    let memory = Memory { weights_bytes, predicted_weights_bytes: demand.weights, kv_bytes: kv, peak_bytes };
    let model = Model { config: checkpoint.config(), dir, precision, dummy_weights: args.dummy_weights };
    report.add(&model, load_seconds, memory, work, &timings);
    Ok(())
}

fn options(args: &BenchArgs, precision: Precision, max_tokens: usize) -> EngineOptions {
    EngineOptions {
        max_tokens,
        max_concurrency: args.batch as usize,
        max_queue: args.requests() + args.batch as usize,
        kv_bytes: args.kv_bytes,
        encoder_cache_bytes: ENCODER_CACHE_BYTES,
        precision,
    }
}

/// Sends the requests twice, the first time a few for kernels and buffers that are made on their first use.
fn send(args: &BenchArgs, load: &Load<'_>) -> Result<load::Timings, CommandError> {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|source| StartError::System { what: "the async runtime", source })?;
    let (batch, requests) = (args.batch as usize, args.requests());
    let arrivals = match (args.mode, args.request_rate) {
        (BenchMode::Latency | BenchMode::Bandwidth, _) => Arrivals::Batches(batch),
        (BenchMode::Throughput, _) => Arrivals::AtOnce,
        (BenchMode::Serving, None) => Arrivals::Clients(batch),
        (BenchMode::Serving, Some(rate)) => Arrivals::Random { rate, seed: args.seed },
    };
    progress("warming up");
    runtime.block_on(load.run(requests..requests + batch, Arrivals::AtOnce, &|_| {}))?;
    let step = requests.div_ceil(10).max(1);
    let shown = |done: usize| {
        if done.is_multiple_of(step) || done == requests {
            progress(&format!("{done} of {requests} requests answered"));
        }
    };
    runtime.block_on(load.run(0..requests, arrivals, &shown))
}

/// What a person who waits sees, beside the results.
fn progress(line: &str) {
    eprintln!("{line}");
}
