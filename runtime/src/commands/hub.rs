//! What `fetch` and `inspect` share: a client of the hub, out of flags and environment.

use vlm_contract::flags;
use vlm_contract::uri::{ModelUri, Repository};
use vlm_hub::patience::Patience;
use vlm_hub::{Hub, HubError, Settings, Token};

use crate::args::HubArgs;
use crate::diagnose::StartError;

/// The hub that `args` describe.
pub(super) fn client(args: &HubArgs) -> Result<Hub, HubError> {
    let token = match &args.token_file {
        Some(file) => Some(Token::read(file)?),
        // No flag takes the token itself: every process of the machine can read those.
        None => std::env::var(flags::HUB_TOKEN_VARIABLE).ok().map(|text| Token::parse(&text)).transpose()?,
    };
    Hub::new(&Settings { endpoint: args.endpoint.clone(), token, patience: Patience::FETCH })
}

/// The repository of a URI; what is on a claim is a directory to whoever has mounted it.
pub(super) fn repository(uri: &ModelUri) -> Result<&Repository, StartError> {
    match uri {
        ModelUri::Hub(repository) => Ok(repository),
        ModelUri::Claim(_) => Err(StartError::Arguments(format!(
            "--uri {uri} is on a volume, which has to be mounted; only hf:// is fetched"
        ))),
    }
}
