//! A checkpoint on the hub: configuration, card and headers by ranges. Owns where address and token come from.

use std::env::{self, VarError};

use vlm_contract::diagnosis::Cause;
use vlm_contract::flags;
use vlm_contract::uri::{ModelUri, Repository};
use vlm_hub::hf::{PUBLIC, Place};
use vlm_hub::index::MAX_BYTES;
use vlm_hub::patience::Patience;
use vlm_hub::{Hub, HubError, Settings, Token, facts, needed};

use super::{CARD, Checkpoint, CheckpointError, Read, known};

/// Reads what is known of the model at `uri`, of a repository at `revision`, from the hub that the environment names.
///
/// # Errors
/// When it is on a volume, the hub does not show it, or it is not what is served.
pub async fn of_uri(uri: &str, revision: &str) -> Result<Checkpoint, CheckpointError> {
    let repository = match uri.parse().map_err(CheckpointError::Uri)? {
        ModelUri::Hub(repository) => repository,
        claim @ ModelUri::Claim(_) => return Err(CheckpointError::Claim(claim)),
    };
    let found = ask(&repository, revision).await.map_err(CheckpointError::Hub)?;
    known(found, &format!("{} of {repository}", needed::CONFIG))
}

async fn ask(repository: &Repository, revision: &str) -> Result<Read, HubError> {
    let hub = Hub::new(&settings()?)?;
    let commit = hub.resolve(repository, revision).await?;
    let facts = facts::of_repository(&hub, repository, &commit).await?;
    let card = match hub.read(Place { repository, commit: &commit, path: CARD }, MAX_BYTES).await {
        Ok(card) => Some(card),
        Err(HubError::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Read {
        config: facts.config,
        tensors: facts.tensors,
        weight_bytes: Some(facts.weight_bytes),
        revision: facts.revision,
        card,
    })
}

fn settings() -> Result<Settings, HubError> {
    let endpoint = variable(flags::HUB_ENDPOINT_VARIABLE)?.unwrap_or_else(|| PUBLIC.to_owned());
    let token = variable(flags::HUB_TOKEN_VARIABLE)?.map(|text| Token::parse(&text)).transpose()?;
    Ok(Settings { endpoint, token, patience: Patience::LOOK })
}

/// A variable of the environment. The error does not quote it: it may be the token.
fn variable(name: &str) -> Result<Option<String>, HubError> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(HubError::Settings(format!("the variable {name} is no text"))),
    }
}

/// Cause, what is wrong, and the mend.
pub(super) fn said(error: &HubError) -> String {
    format!("{}: {error}; {}", error.cause().reason(), mend(error.cause()))
}

/// What a person does about it here, where no cluster and no Secret is; as the end of a sentence.
const fn mend(cause: Cause) -> &'static str {
    match cause {
        Cause::ModelNotFound => "check spec.model.uri and spec.model.revision",
        Cause::ModelAccessDenied => {
            "check the name in spec.model.uri, accept the model's terms on the hub, and set HF_TOKEN to a token that may \
             read it"
        }
        Cause::WeightsDownloadFailed => {
            "check that HF_ENDPOINT can be reached from here, or name a copy of the model's directory with --checkpoint"
        }
        Cause::InvalidArguments => "correct HF_ENDPOINT, HF_TOKEN or spec.model.revision",
        other => other.mend(),
    }
}
