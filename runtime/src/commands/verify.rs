//! `verify`: runs the prompt of a reference and compares what every part gives with what the reference gave. Reads
//! as that list; `expected` reads the reference, `compare` compares, `report` is what a person reads.

mod compare;
mod expected;
mod report;

use std::path::Path;

pub use report::{Report, Row};

use super::CommandError;
use super::trace::{load, positions, prepare};
use crate::args::VerifyArgs;
use crate::device;
use expected::Expected;

/// Prints each comparison.
///
/// # Errors
/// [`CommandError::Off`] names the first quantity that is off; the others say why nothing could be compared.
pub fn run(args: &VerifyArgs) -> Result<(), CommandError> {
    let mut report = Report::default();
    let compared = verify(args, &mut report);
    print!("{report}");
    compared?;
    match report.first_off() {
        Some(sentence) => Err(CommandError::Off(sentence)),
        None => Ok(()),
    }
}

/// Compares, each comparison becoming a row of `report`; those before an error stay there.
///
/// # Errors
/// What keeps the prompt from being run. A quantity that is off is a row and no error.
pub fn verify(args: &VerifyArgs, report: &mut Report) -> Result<(), CommandError> {
    let device = device::open(args.how.device)?;
    let model: &Path = args.model.as_deref().unwrap_or(&args.expected);
    let expected = Expected::read(&args.expected, args.how.precision.quantization)?;
    let (checkpoint, processor) = super::open(model, &args.how)?;
    let precision = args.how.precision.on(&device, checkpoint.stored());
    let prompt = prepare(&processor, expected.prompt(), expected.json(), expected.images())?;
    let answer = expected.greedy_ids().len();
    let own = positions(&processor, &prompt, answer)?;
    let kv = precision.own_kv_cache_dtype().map(|dtype| format!(", keys and values {dtype}")).unwrap_or_default();
    report.title = format!(
        "{} ({}, {}{kv}) against {}",
        model.display(),
        precision.dtype.as_str(),
        precision.quantization,
        expected.source().display()
    );
    let Some(fed) = compare::inputs(&expected, &prompt, report)? else { return Ok(()) };
    expected.check_ids(checkpoint.config(), fed.image_token)?;
    let longest = own.max(positions(&processor, &fed, answer)?);
    let model = load(&checkpoint, longest, precision, &device)?;
    compare::outputs(&expected, model, [&prompt, &fed], precision, report)
}
