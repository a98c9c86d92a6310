//! The gateway's private key, with which it signs what only a gateway may ask of a replica. It is read once and never
//! shown.

use std::{fmt, path::Path};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use ring::{
    digest::{Context, SHA256},
    signature::{Ed25519KeyPair, KeyPair},
};
use vlm_contract::continuation::{SIGNATURE, SIGNED_AT, signed_bytes};

/// More than any key file has.
const LONGEST_FILE: u64 = 16 * 1024;

/// Why there is no key. The messages repeat nothing of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the key file cannot be read")]
    Read(#[source] std::io::Error),
    /// It holds something else.
    #[error(
        "the key file holds no Ed25519 private key in PEM (PKCS #8), as `openssl genpkey -algorithm ed25519` writes"
    )]
    Form,
}

/// An Ed25519 private key (RFC 8032).
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

impl SigningKey {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeyError`] when there is no usable key in it.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let length = std::fs::metadata(path).map_err(KeyError::Read)?.len();
        if length > LONGEST_FILE {
            return Err(KeyError::Form);
        }
        Self::parse(&std::fs::read_to_string(path).map_err(KeyError::Read)?)
    }

    /// Takes the key out of PEM text.
    ///
    /// # Errors
    /// [`KeyError::Form`] when there is none in it.
    pub fn parse(pem: &str) -> Result<Self, KeyError> {
        let lines = pem.lines().map(str::trim).skip_while(|line| *line != "-----BEGIN PRIVATE KEY-----").skip(1);
        let base64: String = lines.take_while(|line| *line != "-----END PRIVATE KEY-----").collect();
        let der = BASE64_STANDARD.decode(base64).map_err(|_| KeyError::Form)?;
        // Most tools leave the public key out of the file.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Self).map_err(|_| KeyError::Form)
    }

    /// The public key in base64, as replicas are given it.
    pub fn public(&self) -> String {
        BASE64_STANDARD.encode(self.0.public_key())
    }

    /// The headers that sign a continuation, whose body is `pieces` one after another, at `now` in seconds since 1970.
    pub fn sign(&self, now: u64, pieces: &[Bytes]) -> HeaderMap {
        let mut hash = Context::new(&SHA256);
        for piece in pieces {
            hash.update(piece);
        }
        let at = now.to_string();
        let signature = self.0.sign(&signed_bytes(&at, hash.finish().as_ref()));
        let mut headers = HeaderMap::new();
        for (name, value) in [(SIGNED_AT, at), (SIGNATURE, BASE64_STANDARD.encode(signature))] {
            // Digits and base64 are sound.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// The first test vector of RFC 8032, section 7.1, in the two forms of PKCS #8.
    const SHORT: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
    const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn pem(body: &str) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }

    #[test]
    fn a_key_is_read_as_openssl_writes_it() {
        let key = SigningKey::parse(&pem(SHORT)).unwrap();
        assert_eq!(key.public(), PUBLIC);
        assert!(!format!("{key:?}").contains(&SHORT[20..]), "a key is never shown");
        let file = std::env::temp_dir().join(format!("vlm-key-{}", std::process::id()));
        std::fs::write(&file, pem(SHORT).replace('\n', "\r\n")).unwrap();
        assert_eq!(SigningKey::read(&file).unwrap().public(), PUBLIC);
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(SigningKey::read(&file), Err(KeyError::Read(_))));
    }

    #[test]
    fn other_files_are_refused_without_a_word_of_them() {
        let rsa = pem("MIIBVQIBADANBgkqhkiG9w0BAQEFAASCAT8wggE7AgEAAkEA");
        for wrong in ["", "secret", &pem(""), &pem("secret"), &pem(&SHORT[..40]), &rsa] {
            let error = SigningKey::parse(wrong).unwrap_err();
            assert!(!error.to_string().contains("secret") && matches!(error, KeyError::Form), "{wrong}");
        }
    }

    #[test]
    fn a_signature_is_of_all_bytes_and_of_the_time() {
        let key = SigningKey::parse(&pem(SHORT)).unwrap();
        let headers = key.sign(1_700_000_000, &[Bytes::from("he"), Bytes::from("ad\nbody")]);
        assert_eq!(headers[SIGNED_AT], "1700000000");
        let signature = BASE64_STANDARD.decode(&headers[SIGNATURE]).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, BASE64_STANDARD.decode(PUBLIC).unwrap());
        let signed = |body: &[u8]| signed_bytes("1700000000", ring::digest::digest(&SHA256, body).as_ref());
        assert!(public.verify(&signed(b"head\nbody"), &signature).is_ok());
        assert!(public.verify(&signed(b"head\nbodY"), &signature).is_err());
    }
}
