//! Cross-origin requests of browsers (Fetch standard, CORS protocol): none unless a flag names their origins.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id, retry-after");
/// Seconds for which a browser may remember what it may send.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const VARY: HeaderValue = HeaderValue::from_static("origin");

/// The origins whose pages may read answers.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// `*` for all, or origins such as `https://chat.example.com`.
    pub fn new(origins: Vec<HeaderValue>) -> Self {
        Self(origins)
    }

    /// What to say to a page of `origin`: its own name, or `*` where all are allowed.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        self.0.iter().find(|allowed| *allowed == "*" || *allowed == origin).cloned()
    }
}

/// Reads an origin of the command line.
///
/// # Errors
/// What an origin looks like.
pub fn origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = || format!("`{text}` is no origin; write `*`, or one such as https://chat.example.com without a path");
    if text != "*" {
        let url = reqwest::Url::parse(text).map_err(|_| wrong())?;
        if url.origin().ascii_serialization() != text {
            return Err(wrong());
        }
    }
    HeaderValue::from_str(text).map_err(|_| wrong())
}

/// The layer that answers preflights and marks answers. Keys travel in a header, not in cookies, so that credentials
/// in the sense of the standard are never allowed.
pub async fn share(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.origins.0.is_empty() {
        return next.run(request).await;
    }
    let allowed = request.headers().get(header::ORIGIN).and_then(|origin| app.origins.allow(origin));
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        if allowed.is_some() {
            permit(response.headers_mut(), request.headers());
        }
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, VARY);
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

/// What a page may send. Any header: none of them changes what a request may do.
fn permit(answer: &mut HeaderMap, asked: &HeaderMap) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        let private = |name: &str| name.trim().to_ascii_lowercase().starts_with("x-vlm-");
        let text = wanted.to_str().unwrap_or_default();
        let names: Vec<&str> = text
            .split(',')
            .filter(|name| !private(name) && HeaderName::from_bytes(name.trim().as_bytes()).is_ok())
            .collect();
        if let Ok(names) = HeaderValue::from_str(&names.join(",")) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_whole_and_exact() {
        let origins = Origins::new(vec![origin("https://a.example").unwrap()]);
        let allow = |sent: &'static str| origins.allow(&HeaderValue::from_static(sent));
        assert_eq!(allow("https://a.example").unwrap(), "https://a.example");
        for other in ["http://a.example", "https://a.example.evil", "https://b.a.example", "null", "*"] {
            assert_eq!(allow(other), None, "{other}");
        }
        for wrong in ["a.example", "https://a.example/", "https://a.example/x", "https://A.example", "", "null"] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Origins::new(vec![origin("*").unwrap()]).allow(&HeaderValue::from_static("x")).unwrap(), "*");
    }

    #[test]
    fn the_gateways_headers_are_not_for_pages() {
        let (mut asked, mut answer) = (HeaderMap::new(), HeaderMap::new());
        let wanted = HeaderValue::from_static("authorization, x-vlm-client,content-type");
        asked.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, wanted);
        permit(&mut answer, &asked);
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization,content-type");
    }
}
