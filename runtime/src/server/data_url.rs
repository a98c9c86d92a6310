//! Pictures inside a JSON body: `data:` URLs in base64 (RFC 2397). Nothing is fetched here.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::error::{ApiError, excerpt};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The base64 text of a `data:` URL, or an error that names `param`.
pub fn base64_of<'a>(url: &'a str, param: &str) -> Result<&'a str, ApiError> {
    let Some(rest) = strip_scheme(url) else {
        let message =
            format!("{param}: `{}` is no data URL; send the picture as `data:image/png;base64,…`", excerpt(url));
        return Err(ApiError::field(param, message));
    };
    let Some((head, data)) = rest.split_once(',') else {
        let message = format!("{param}: the data URL has no comma before its data");
        return Err(ApiError::field(param, message));
    };
    if !head.rsplit(';').next().is_some_and(|last| last.eq_ignore_ascii_case("base64")) {
        let message = format!("{param}: the data URL is not in base64; write `data:image/png;base64,…`");
        return Err(ApiError::field(param, message));
    }
    Ok(data)
}

/// Bytes of base64 text, padded or not, as long as it decodes to at most about `most` bytes.
pub fn decode(data: &str, most: u64, param: &str) -> Result<Vec<u8>, ApiError> {
    let bytes = data.len() as u64 / 4 * 3;
    if bytes > most + 3 {
        let source = crate::image::ImageError::TooManyBytes { bytes, limit: most };
        return Err(ApiError::Image { param: param.to_owned(), source });
    }
    BASE64.decode(data).map_err(|error| {
        let message = format!("{param}: the data URL holds invalid base64 ({error})");
        ApiError::field(param, message)
    })
}

fn strip_scheme(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_at_checked(5)?;
    scheme.eq_ignore_ascii_case("data:").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Vec<u8>, String> {
        base64_of(url, "x").and_then(|data| decode(data, 1000, "x")).map_err(|error| error.body().error.message)
    }

    #[test]
    fn data_urls_with_and_without_type_and_padding_are_read() {
        assert_eq!(read("data:image/png;base64,aGk="), Ok(b"hi".to_vec()));
        assert_eq!(read("data:;base64,aGk"), Ok(b"hi".to_vec()));
        assert_eq!(read("DATA:image/png;charset=utf-8;BASE64,aGk="), Ok(b"hi".to_vec()));
        assert_eq!(read("data:image/png;base64,"), Ok(Vec::new()));
    }

    #[test]
    fn other_urls_are_refused_with_what_would_be_right() {
        for url in ["", "x", "data", "aGk=", "é:é"] {
            assert!(read(url).unwrap_err().contains("no data URL"), "{url}");
        }
        assert!(read("data:image/png;base64").unwrap_err().contains("comma"));
        assert!(read("data:text/plain,hi").unwrap_err().contains("not in base64"));
        assert!(read("data:;base64,a*b=").unwrap_err().contains("invalid base64"));
    }

    #[test]
    fn too_long_a_picture_is_refused_before_it_is_decoded() {
        let url = format!("data:;base64,{}", "A".repeat(1400));
        assert!(read(&url).unwrap_err().contains("1000"));
    }
}
