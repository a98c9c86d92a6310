//! Which headers go through. To a replica only those that it reads: whatever else a client sends, keys and tricks
//! among it, stays here. To the client all but those of the connection.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use vlm_contract::{
    headers::{CLIENT, REQUEST_ID, VIA},
    metrics::via,
};

use super::client::{self, Peer};
use crate::server::surround::RequestId;

/// What a client may tell a replica. W3C's trace context is passed on as it is.
const TO_REPLICA: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static(TRACEPARENT),
    HeaderName::from_static(TRACESTATE),
];

/// Where a request stands in a trace. Of several none is to be believed (W3C Trace Context, section 3.2).
const TRACEPARENT: &str = "traceparent";
/// What tracing systems add; may come in several lines.
const TRACESTATE: &str = "tracestate";

/// Headers of one connection (RFC 9110, section 7.6.1).
const OF_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The headers of a request to a replica; HTTP adds host and length.
pub(super) fn to_replica(from: &HeaderMap, id: &RequestId, peer: Option<Peer>) -> HeaderMap {
    let mut to = HeaderMap::with_capacity(TO_REPLICA.len() + 3);
    for name in TO_REPLICA {
        let values: Vec<_> = from.get_all(&name).iter().collect();
        let counted = match name.as_str() {
            TRACESTATE => values.len(),
            TRACEPARENT if values.len() > 1 => 0,
            _ => 1,
        };
        values.into_iter().take(counted).for_each(|value| _ = to.append(&name, value.clone()));
    }
    to.insert(HeaderName::from_static(VIA), HeaderValue::from_static(via::GATEWAY));
    if let Some(client) = client::name(from, peer) {
        to.insert(HeaderName::from_static(CLIENT), client);
    }
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        to.insert(HeaderName::from_static(REQUEST_ID), id);
    }
    to
}

/// Takes out of a replica's answer what belongs to its connection.
pub(super) fn of_answer(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // The length says where the answer ends, for whoever claims otherwise.
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect();
    for name in listed.iter().chain(&OF_CONNECTION) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let named = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        all.iter().map(named).for_each(|(name, value)| _ = map.append(name, value));
        map
    }

    #[test]
    fn a_replica_gets_what_it_reads_and_nothing_else() {
        let sent = headers(&[
            ("content-type", "application/json"),
            ("traceparent", "00-1-2-01"),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("authorization", "Bearer secret"),
            ("cookie", "a=b"),
            ("connection", "x-evil"),
            ("transfer-encoding", "chunked"),
            ("x-vlm-via", "direct"),
            ("x-request-id", "mine"),
            ("x-vlm-anything", "1"),
            ("x-vlm-client", "somebody-else"),
            ("x-vlm-stream-state", "true"),
        ]);
        let without_key = headers(&[("x-vlm-client", "somebody-else")]);
        assert_eq!(to_replica(&without_key, &RequestId::of(&without_key), None).get(CLIENT), None);
        let got = to_replica(&sent, &RequestId::of(&sent), None);
        assert!(got[CLIENT].to_str().unwrap().starts_with("key-"));
        let mut names: Vec<_> = got
            .iter()
            .filter(|(name, _)| *name != CLIENT)
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "content-type: application/json",
                "traceparent: 00-1-2-01",
                "tracestate: a=1",
                "tracestate: b=2",
                "x-request-id: mine",
                "x-vlm-via: gateway"
            ]
        );
    }

    #[test]
    fn of_two_places_in_a_trace_neither_is_believed_and_of_other_headers_the_first() {
        let sent = headers(&[
            ("traceparent", "00-1-2-01"),
            ("traceparent", "00-3-4-01"),
            ("accept", "text/event-stream"),
            ("accept", "text/html"),
        ]);
        let got = to_replica(&sent, &RequestId::of(&sent), None);
        assert!(!got.contains_key("traceparent"));
        assert_eq!(got.get_all("accept").iter().collect::<Vec<_>>(), ["text/event-stream"]);
    }

    #[test]
    fn an_answer_loses_the_headers_of_its_connection_and_those_it_lists() {
        let mut answer = headers(&[
            ("content-type", "text/event-stream"),
            ("content-length", "5"),
            ("connection", "close, X-Hop"),
            ("connection", "content-length"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-accel-buffering", "no"),
        ]);
        of_answer(&mut answer);
        let mut names: Vec<_> = answer.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "content-type", "x-accel-buffering"]);
    }
}
