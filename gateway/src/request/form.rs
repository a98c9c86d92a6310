//! `multipart/form-data`: the fields `model`, `stream` and `system`, and pictures in `image`.

use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request, multipart::MultipartError},
    http::header,
};
use bytes::Bytes;

use super::{
    Peek,
    affinity::{self, Collector},
    json,
};
use crate::error::{GatewayError, excerpt};

/// More fields than any request has.
const MOST_FIELDS: usize = 256;

pub(super) async fn peek(kind: &str, body: Bytes) -> Result<Peek, GatewayError> {
    let request = Request::post("/").header(header::CONTENT_TYPE, kind).body(Body::from(body));
    let request = request.map_err(|_| {
        GatewayError::Malformed(
            "the content type cannot be read; send `multipart/form-data` with its boundary".to_owned(),
        )
    })?;
    let form = Multipart::from_request(request, &()).await;
    let mut form =
        form.map_err(|error| GatewayError::Malformed(format!("the form cannot be read: {error}; mend it")))?;
    let (mut peek, mut collector) = (Peek::default(), Collector::default());
    let mut count = 0;
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
        count += 1;
        if count > MOST_FIELDS {
            return Err(GatewayError::Malformed(format!("the form has over {MOST_FIELDS} fields; send fewer")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|error| broken(&error))?;
        match name.as_str() {
            "model" if peek.model.is_some() => {
                return Err(GatewayError::Malformed("model: sent twice; send it once".to_owned()));
            }
            "model" => peek.model = Some(String::from_utf8_lossy(&bytes).into_owned()),
            "stream" => peek.stream = bytes.trim_ascii() == b"true",
            "messages" => json::messages(&bytes, &mut collector),
            "image" | "image[]" => collector.picture(affinity::hash(&bytes)),
            _ => {}
        }
    }
    peek.affinity = collector.finish();
    Ok(peek)
}

fn broken(error: &MultipartError) -> GatewayError {
    GatewayError::Malformed(format!("the form cannot be read: {}; mend it", excerpt(&error.body_text())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn form(fields: &[(&str, &str)]) -> Result<Peek, GatewayError> {
        let part = |(name, text): &(&str, &str)| {
            format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
        };
        let body: String = fields.iter().map(part).collect();
        peek("multipart/form-data; boundary=X", Bytes::from(body + "--X--\r\n")).await
    }

    #[tokio::test]
    async fn model_stream_and_pictures_are_found() {
        let one = form(&[("model", "shop/tiny"), ("stream", "true"), ("image", "bytes")]).await.unwrap();
        assert_eq!((one.model.as_deref(), one.stream), (Some("shop/tiny"), true));
        let other = form(&[("prompt", "another question"), ("image", "bytes")]).await.unwrap();
        assert!(one.affinity.is_some() && one.affinity == other.affinity);
        assert_eq!((other.model, other.stream), (None, false));
        assert_ne!(form(&[("image", "other bytes")]).await.unwrap().affinity, one.affinity);
        assert_eq!(form(&[("prompt", "x")]).await.unwrap().affinity, None);
    }

    #[tokio::test]
    async fn what_is_no_form_is_malformed() {
        assert!(form(&[("model", "a"), ("model", "b")]).await.is_err());
        let many: Vec<_> = (0..=MOST_FIELDS).map(|_| ("x", "y")).collect();
        assert!(form(&many).await.is_err());
        for (kind, body) in [("multipart/form-data", "x"), ("multipart/form-data; boundary=X", "--X\r\nbroken")] {
            assert!(peek(kind, Bytes::from(body)).await.is_err(), "{kind} {body}");
        }
    }
}
