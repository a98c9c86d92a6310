//! `plan`: whether the models of a file fit, on which GPUs, and what they cost. Pure, apart from reading
//! files and asking the hub.

mod cost;
mod report;
mod table;

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use vlm_catalog::footprint::{Device, Model, fit, suggest};
use vlm_catalog::gpu::GpuTypes;

use crate::args::{LoadArgs, Output, PlanArgs};
use crate::checkpoint::{self, Checkpoint};
use crate::manifest::{self, Manifest};

pub use cost::{ApiCost, Cost, Rate};
pub use report::{FitReport, GpuRow, ModelReport, Report};

/// The catalogue that comes with the chart.
const SHIPPED: &str = include_str!("../../charts/vlm-operator/gpu-types.yaml");
/// Bytes of a file that a person names.
const MAX_FILE: u64 = 8 << 20;

/// The plan in the wished form, and whether all models fit.
///
/// # Errors
/// A file or a repository that cannot be read or is not what it must be, an unknown GPU type, a context that the model
/// does not take.
pub async fn run(args: &PlanArgs) -> anyhow::Result<(String, bool)> {
    let named = |path: &Path| format!("cannot plan {}", path.display());
    let manifests = manifest::read(&text(&args.filename)?).with_context(|| named(&args.filename))?;
    let types = match &args.gpu_types {
        None => GpuTypes::parse(SHIPPED)?,
        Some(path) => GpuTypes::parse(&text(path)?).with_context(|| path.display().to_string())?,
    };
    let unknown = "the checkpoint is not known";
    let given = args.checkpoint.as_deref().map(checkpoint::of_directory).transpose().context(unknown)?;
    let mut reports = Vec::new();
    for manifest in &manifests {
        let checkpoint = match &given {
            Some(checkpoint) => checkpoint.clone(),
            None => checkpoint::of_uri(&manifest.uri, &manifest.revision)
                .await
                .with_context(|| format!("{}: {unknown}", manifest.name))?,
        };
        reports.push(plan(manifest, &checkpoint, &types, &args.load)?);
    }
    let fits = reports.iter().all(|report| report.fit.verdict != "DoesNotFit");
    let text = match args.output {
        Output::Table => reports.iter().map(table::render).collect::<Vec<_>>().join("\n"),
        Output::Json => {
            serde_json::to_string_pretty(&reports).map(|json| json + "\n").context("cannot write the plan as JSON")?
        }
    };
    Ok((text, fits))
}

/// The plan of one model.
///
/// # Errors
/// An unknown GPU type, a context that the model does not take.
pub fn plan(manifest: &Manifest, checkpoint: &Checkpoint, types: &GpuTypes, load: &LoadArgs) -> anyhow::Result<Report> {
    let inspection = &checkpoint.inspection;
    let model = Model { config: inspection.config(), size: inspection.size() };
    let named = || manifest.name.clone();
    let gpu = manifest.gpu_type.as_deref().map(|name| types.get(name).map(|gpu| (name, gpu)));
    let gpu = gpu.transpose().with_context(named)?;
    let device = match gpu {
        Some((_, gpu)) => Device::Gpu { memory_bytes: gpu.memory_bytes },
        None => Device::Cpu { memory_bytes: manifest.memory_limit_bytes },
    };
    let fitted = fit(model, manifest.wish, device).with_context(named)?;
    let suggestion = (!fitted.may_start()).then(|| suggest(model, manifest.wish, device, types));
    let mut rows = Vec::new();
    for (name, gpu) in types.by_price() {
        let fit = fit(model, manifest.wish, Device::Gpu { memory_bytes: gpu.memory_bytes }).with_context(named)?;
        let rate = gpu.speed.filter(|_| fit.may_start()).map(|speed| cost::estimate(model, &fit, speed, load));
        rows.push(GpuRow::new(name, gpu, &fit, rate));
    }
    let measured = load.tokens_per_second.map(Rate::measured);
    let rate = measured
        .or_else(|| gpu.and_then(|(_, gpu)| gpu.speed).map(|speed| cost::estimate(model, &fitted, speed, load)));
    let price = gpu.and_then(|(_, gpu)| gpu.price.as_ref()).filter(|_| fitted.may_start());
    let cost = price.map(|price| cost::cost(price, rate, load));
    Ok(Report {
        name: manifest.name.clone(),
        model: ModelReport::new(manifest, checkpoint),
        gpu_type: gpu.map(|(name, _)| name.to_owned()),
        fit: FitReport::new(&fitted, device, suggestion.as_ref()),
        gpu_types: rows,
        cost,
    })
}

/// A file that a person names, or standard input.
fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = |reader: &mut dyn Read, text: &mut String| reader.take(MAX_FILE + 1).read_to_string(text);
    let what = || format!("cannot read {}", path.display());
    if path == Path::new("-") {
        read(&mut std::io::stdin(), &mut text).with_context(what)?;
    } else {
        read(&mut std::fs::File::open(path).with_context(what)?, &mut text).with_context(what)?;
    }
    if text.len() as u64 > MAX_FILE {
        bail!("{} has more than the {MAX_FILE} bytes that are read", path.display());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
