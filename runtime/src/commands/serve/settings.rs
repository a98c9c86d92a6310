//! From flags and environment to what the server's owner has set.

use std::sync::Arc;
use std::time::Duration;

use vlm_contract::flags;

use crate::args::ServeArgs;
use crate::diagnose::StartError;
use crate::image::ImageLimits;
use crate::image::fetch::{FetchLimits, Fetcher, Networks, SystemLookup};
use crate::image::file::ImageRoot;
use crate::server::app::{Limits, Settings};
use crate::server::auth::Keys;
use crate::server::cors::Origins;
use crate::server::sources::Sources;

/// Reads them.
///
/// # Errors
/// Keys, a directory or certificates that cannot be used.
pub fn read(args: &ServeArgs) -> Result<Settings, StartError> {
    let limits = Limits {
        image: ImageLimits { max_pixels: args.max_image_pixels, max_bytes: args.max_image_bytes },
        images: args.max_images_per_request as usize,
        body_bytes: args.max_body_bytes as usize,
        body_time: Duration::from_secs(args.web.body_timeout_seconds),
        keep_alive: Duration::from_secs(args.web.keep_alive_seconds),
    };
    Ok(Settings {
        limits,
        names: args.names(),
        sources: sources(args)?,
        keys: keys(args)?,
        origins: Origins::new(args.web.cors_origin.clone()),
        gateway_key: args.web.continuation_public_key.clone(),
    })
}

fn sources(args: &ServeArgs) -> Result<Sources, StartError> {
    let web = &args.web;
    let limits = FetchLimits { bytes: args.max_image_bytes, time: Duration::from_secs(web.image_url_timeout_seconds) };
    let fetcher = web.allow_image_urls.then(|| {
        let networks = Networks(web.image_url_network.clone());
        Fetcher::new(limits, networks, Arc::new(SystemLookup))
            .map_err(|error| StartError::System { what: "fetching of pictures", source: std::io::Error::other(error) })
    });
    let root = web.image_root.as_ref().map(|root| {
        let what = || format!("{} {}", flags::IMAGE_ROOT, root.display());
        ImageRoot::new(root).map_err(|error| StartError::Arguments(format!("{} cannot be used: {error}", what())))
    });
    Ok(Sources::new(fetcher.transpose()?, root.transpose()?))
}

fn keys(args: &ServeArgs) -> Result<Keys, StartError> {
    let read = match &args.web.api_key_file {
        Some(file) => Keys::read(file),
        // No flag takes a key itself: every process of the machine can read those.
        None => match std::env::var(flags::API_KEY_VARIABLE) {
            Ok(keys) => Keys::parse(&keys),
            Err(_) => return Ok(Keys::default()),
        },
    };
    read.map_err(|error| StartError::Arguments(error.to_string()))
}
