//! `bench`: how fast this machine runs a model, and how near that is to what its memory allows. Reads as that list;
//! `bandwidth` measures memory, `prompts` and `mix` make requests, `load` sends them, `soak` for long, `figures` and
//! `report` say what that gave, `table` shows it to people.

mod bandwidth;
mod figures;
mod load;
mod mix;
mod profile;
mod prompts;
mod report;
mod soak;
mod start;
mod table;

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use candle_core::Device;
use tokio::runtime::{Builder, Runtime};
use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::footprint::{self, Wish, fit};
use vlm_catalog::quantization::QuantizationChoice;

use super::CommandError;
use crate::args::{BenchArgs, BenchMode};
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::device::{self, Demand};
use crate::diagnose::StartError;
use crate::engine::scheduler::Counts;
use crate::engine::{ENCODER_CACHE_BYTES, Engine, EngineOptions};
use crate::models::VisionLanguage;
use crate::ops::{BLOCK_TOKENS, room_for};
use crate::precision::Precision;
use load::{Arrivals, Ask, Load, Timings};
use mix::Mix;
use prompts::Prompts;
use report::{Measured, Memory, Model, Report, Run, Settings, step_bytes};
use start::{StartSeconds, seconds};

/// Measures, prints tables, and writes JSON if a file was named.
///
/// # Errors
/// A device, a checkpoint or flags that cannot be used, a request that fails, a file that cannot be written.
pub fn run(args: &BenchArgs) -> Result<(), CommandError> {
    args.check().map_err(StartError::Arguments)?;
    // Nobody wants to hear of a wrong name after the measurement.
    let file = args.json.as_deref().map(|path| create(path).map(|file| (path, file))).transpose()?;
    let (device, opened) = seconds(|| device::open(args.how.device)).map_err(StartError::from)?;
    let ((), code) = seconds(|| device::load_code(&device)).map_err(StartError::from)?;
    let start = StartSeconds { device: opened, code, ..StartSeconds::default() };
    progress(&format!("reading the memory of {}", device::name(&device)));
    let mut report = Report::new(args.mode, device::name(&device), bandwidth::measure(&device)?);
    if let (Some(model), false) = (&args.model, args.mode == BenchMode::Bandwidth) {
        report.model = Some(measure(args, model, &device, report.read_bytes_per_second, start)?);
    }
    print!("{report}");
    let Some((path, mut file)) = file else { return Ok(()) };
    let json = serde_json::to_string_pretty(&report).map_err(|error| unwritten(path, &error))?;
    writeln!(file, "{json}").map_err(|error| unwritten(path, &error))
}

fn create(path: &Path) -> Result<File, CommandError> {
    File::create(path).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, reason: &impl ToString) -> CommandError {
    let mend = "name a file that can be written with --json";
    CommandError::Write { path: path.to_owned(), reason: reason.to_string(), mend }
}

fn measure(
    args: &BenchArgs,
    path: &Path,
    device: &Device,
    read: f64,
    start: StartSeconds,
) -> Result<Measured, CommandError> {
    let (checkpoint, opened) = seconds(|| open(args, path, device))?;
    let prompts = Prompts::new(&checkpoint, args)?;
    let mix = (args.mode == BenchMode::Soak).then(|| Mix::new(&checkpoint, args)).transpose()?;
    let settings = Settings::of(args, &prompts);
    let precision = args.how.precision.on(device, checkpoint.stored());
    let longest = mix.as_ref().map_or(settings.prompt_tokens + settings.output_tokens, Mix::longest);
    let demand = room(args, &checkpoint, precision, device, longest)?;
    progress(&format!("loading {}", path.display()));
    let model = VisionLanguage::load_on(&checkpoint, longest, precision, device)?;
    let (times, weights_bytes) = (model.load_times(), model.weights().bytes);
    let (engine, warm_up) = seconds(|| Engine::over(model, options(args, precision, longest)))?;
    let start = StartSeconds { checkpoint: opened, warm_up, ..start }.with(times);
    // What is drawn takes more for a moment than what is read.
    device::taken(device)?;
    let asks = |n| Some(Ask { prompt: prompts.nth(n), output_tokens: settings.output_tokens, cancel_after: None });
    let load = Load { engine: &engine, asks: &asks };
    let (mut runs, mut sent) = (Vec::new(), 0);
    for (batch, count) in args.batches().filter(|_| mix.is_none()) {
        let (timings, counts) = send(args, &load, batch, sent..sent + batch + count)?;
        sent += batch + count;
        let run = Run::of(batch, &settings, &timings, counts);
        let run = if args.mode == BenchMode::Latency { run.with_decode(&timings) } else { run };
        let context = settings.prompt_tokens + settings.output_tokens / 2;
        let bytes = step_bytes(checkpoint.config(), precision, batch, context);
        // At random moments nobody knows how many are computed together.
        runs.push(if args.request_rate.is_none() { run.with_limit(bytes, read) } else { run });
    }
    if args.profile {
        let asks = (sent..=sent + args.largest_batch()).filter_map(asks).collect();
        progress(&format!("batch {}: shown to a profiler", args.largest_batch()));
        profile::run(&engine, device, &async_runtime()?, asks)?;
    }
    let soak = mix.map(|mix| soak::run(args, &mix, &engine, device)).transpose()?;
    let predicted = predicted_bytes(&checkpoint, precision, longest, args.largest_batch());
    let memory = Memory::of(demand, weights_bytes, device::taken(device)?, predicted);
    let model = Model::new(path, args.dummy_weights, precision, start);
    Ok(Measured { model, memory, settings, runs, soak })
}

fn open(args: &BenchArgs, path: &Path, device: &Device) -> Result<Checkpoint, CommandError> {
    Ok(if args.dummy_weights {
        Checkpoint::drawn(path, device)?
    } else {
        Checkpoint::open_with(path, &OpenOptions { vision_tower: args.how.vision_tower.clone(), progress: None })?
    })
}

/// What the catalogue reckons on a GPU for everything but keys and values, pictures of the largest kind among it, beside
/// `batch` sequences of up to `longest` tokens.
pub fn predicted_bytes(checkpoint: &Checkpoint, precision: Precision, longest: usize, batch: usize) -> u64 {
    let config = checkpoint.config();
    let size = CheckpointSize::of(config, Head::Stored);
    let wish = Wish {
        quantization: QuantizationChoice::Fixed(precision.quantization),
        max_tokens: Some(longest as u64),
        max_concurrency: Some(batch as u64),
        kv_cache_dtype: precision.kv_cache,
    };
    let fit = fit(footprint::Model { config, size: &size }, wish, footprint::Device::Gpu { memory_bytes: 0 });
    fit.map_or(0, |fit| fit.breakdown.fixed_bytes())
}

/// What the model will take, if the model can be so long and there is so much.
fn room(
    args: &BenchArgs,
    checkpoint: &Checkpoint,
    precision: Precision,
    device: &Device,
    longest: usize,
) -> Result<Demand, CommandError> {
    let (text, output, batch) = (&checkpoint.config().text, args.output_tokens as usize, args.largest_batch());
    if longest > text.max_positions {
        return Err(StartError::Arguments(format!(
            "{} tokens of a prompt with its pictures (--prompt-tokens, --images, --image-size) and {output} of an answer \
             (--output-tokens) are more than the model's {} positions; lower one of them",
            longest - output,
            text.max_positions
        ))
        .into());
    }
    let block = precision.kv_bytes_per_token(text).saturating_mul(BLOCK_TOKENS as u64);
    let needed = block.saturating_mul(room_for(batch, longest) as u64);
    let kv = args.kv_bytes.unwrap_or(needed);
    // Serving goes on with less: sequences wait, or are read again.
    if kv < needed && !matches!(args.mode, BenchMode::Serving | BenchMode::Soak) {
        return Err(StartError::Arguments(format!(
            "--kv-bytes {kv} does not hold --batch {batch} sequences of {longest} tokens, which take {needed}; raise the \
             one or lower the other"
        ))
        .into());
    }
    let demand = Demand { kv, ..Demand::of(checkpoint, precision, longest, batch) };
    device::check_memory(device, demand)?;
    if device.is_cpu() {
        device::check_host_memory(demand).map_err(CommandError::HostMemory)?;
    }
    Ok(demand)
}

fn options(args: &BenchArgs, precision: Precision, max_tokens: usize) -> EngineOptions {
    let batch = args.largest_batch();
    EngineOptions {
        max_tokens,
        max_concurrency: batch,
        // As a server has it.
        max_queue: (8 * batch).max(64),
        kv_bytes: args.kv_bytes,
        encoder_cache_bytes: ENCODER_CACHE_BYTES,
        precision,
    }
}

/// Sends the requests of some numbers, the first `batch` of them for kernels and buffers that are made on their first
/// use: they do not count. What came of the others, and what the engine did for them.
fn send(
    args: &BenchArgs,
    load: &Load<'_>,
    batch: usize,
    requests: Range<usize>,
) -> Result<(Timings, Counts), CommandError> {
    let runtime = async_runtime()?;
    let (first, count) = (requests.start + batch, requests.len() - batch);
    let arrivals = match (args.mode, args.request_rate) {
        (BenchMode::Latency | BenchMode::Bandwidth, _) => Arrivals::Batches(batch),
        (BenchMode::Throughput, _) | (BenchMode::Serving | BenchMode::Soak, None) => Arrivals::Clients(batch),
        (BenchMode::Serving | BenchMode::Soak, Some(rate)) => Arrivals::Random { rate, seed: args.seed },
    };
    progress(&format!("batch {batch}: warming up"));
    load.run(&runtime, requests.start..first, Arrivals::Batches(batch), &|_| {})?;
    let before = load.engine.snapshot().counts;
    let step = count.div_ceil(10).max(1);
    let shown = |done: usize| {
        if done.is_multiple_of(step) || done == count {
            progress(&format!("batch {batch}: {done} of {count} requests answered"));
        }
    };
    let timings = load.run(&runtime, first..requests.end, arrivals, &shown)?;
    Ok((timings, load.engine.snapshot().counts - before))
}

fn async_runtime() -> Result<Runtime, StartError> {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.map_err(|source| StartError::System { what: "the async runtime", source })
}

/// What a person who waits sees, beside the results.
fn progress(line: &str) {
    eprintln!("{line}");
}
