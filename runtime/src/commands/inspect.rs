//! `inspect`: what has to be known of a checkpoint to tell whether it fits, as one line that a termination message
//! can hold. Reads `config.json` and headers; no weights.

use tokio::runtime::Builder;
use vlm_catalog::architecture::raw::RawConfig;
use vlm_catalog::inspection::{Found, Inspection, InspectionError, MAX_BYTES};
use vlm_hub::facts::{self, Facts};
use vlm_hub::{HubError, needed, volume};

use super::{CommandError, hub};
use crate::args::InspectArgs;
use crate::checkpoint::CheckpointError;
use crate::diagnose::StartError;

/// Writes the inspection to standard output and, if named, to the termination log.
///
/// # Errors
/// Why nothing can be told of the checkpoint.
pub fn run(args: &InspectArgs) -> Result<(), CommandError> {
    let facts = match (&args.model, &args.uri) {
        (Some(dir), _) => volume::facts(dir).map_err(StartError::from)?,
        (None, Some(uri)) => {
            let repository = hub::repository(uri)?;
            let runtime = Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|source| StartError::System { what: "the async runtime", source })?;
            let look = async {
                let client = hub::client(&args.hub)?;
                let commit = client.resolve(repository, &args.hub.revision).await?;
                facts::of_repository(&client, repository, &commit).await
            };
            runtime.block_on(look).map_err(StartError::from)?
        }
        (None, None) => return Err(StartError::Arguments("either --uri or --model is needed".to_owned()).into()),
    };
    let line = serde_json::to_string(&inspect(&facts)?).map_err(|e| malformed(&e))?;
    if line.len() > MAX_BYTES {
        return Err(malformed(&format!("its description has {} bytes, more than {MAX_BYTES}", line.len())));
    }
    println!("{line}");
    if let Some(path) = &args.termination_log {
        std::fs::write(path, &line).map_err(|source| StartError::System { what: "the termination log", source })?;
    }
    Ok(())
}

fn inspect(facts: &Facts) -> Result<Inspection, CommandError> {
    let raw: RawConfig = facts::parse_config(&facts.config, needed::CONFIG).map_err(StartError::from)?;
    let found =
        Found { revision: facts.revision.clone(), weight_bytes: Some(facts.weight_bytes), tensors: facts.shapes() };
    Inspection::new(&raw, found).map_err(|error| match error {
        InspectionError::Architecture(error) => CheckpointError::from(error).into(),
        error => malformed(&error),
    })
}

fn malformed(reason: &impl ToString) -> CommandError {
    let file = "config.json".to_owned();
    StartError::from(HubError::Malformed { file, reason: reason.to_string() }).into()
}
