//! Asks one gateway after another whether it reaches a pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::PodCondition;
use reqwest::{Client, StatusCode};
use vlm_contract::{
    ports,
    routable::{Answer, LONGEST_ANSWER, MOST_SECONDS, PATH, Question},
};

use crate::{
    context::Context,
    observe::gateways::{Gateway, Gateways},
};

/// Gateways that are asked one after another.
const GATEWAYS: usize = 3;
/// A gateway takes as long as the server, and some more.
const LIMIT: Duration = Duration::from_secs(MOST_SECONDS + 5);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The pod answers.
    Routable,
    /// It does not, and what it does instead.
    No(String),
    /// Nobody can tell, and why.
    Unknown(String),
}

impl Told {
    pub(super) fn status(&self) -> &'static str {
        match self {
            Self::Routable => "True",
            Self::No(_) => "False",
            Self::Unknown(_) => "Unknown",
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Routable => "PictureAnswered",
            Self::No(_) => "PictureNotAnswered",
            Self::Unknown(_) => "GatewayUnreachable",
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Routable => "a gateway sent it a picture, and it answered".to_owned(),
            Self::No(why) => format!("{why}; see the container's log"),
            Self::Unknown(why) => {
                format!("nobody can tell whether a gateway reaches the pod: {why}; see the gateway's pods")
            }
        }
    }

    /// Whether something else is to be written than is there.
    pub(super) fn differs(&self, there: Option<&PodCondition>) -> bool {
        there.is_none_or(|there| there.status != self.status() || there.message.as_deref() != Some(&*self.message()))
    }
}

/// Asks gateways until one tells, beginning with the one whose turn it is.
pub(super) async fn ask(context: &Context, question: &Question, turn: usize) -> Told {
    let all = context.gateways.as_ref().map(Gateways::all).unwrap_or_default();
    ask_one_of(&context.http, all, ports::GATEWAY_ADMIN, question, turn).await
}

async fn ask_one_of(http: &Client, all: Vec<Gateway>, port: u16, question: &Question, turn: usize) -> Told {
    let mut ready: Vec<_> = all.into_iter().filter(|gateway| gateway.ready).collect();
    if ready.is_empty() {
        return Told::Unknown("no gateway takes requests".to_owned());
    }
    let first = turn % ready.len();
    ready.rotate_left(first);
    let mut why = String::new();
    for gateway in ready.into_iter().take(GATEWAYS) {
        match post(http, &gateway.address, port, question).await {
            Ok(Answer { routable: true, .. }) => return Told::Routable,
            Ok(Answer { message, .. }) => return Told::No(message),
            // Its name would make another text of the same trouble at each attempt.
            Err(error) => why = error,
        }
    }
    Told::Unknown(why)
}

async fn post(http: &Client, address: &str, port: u16, question: &Question) -> Result<Answer, String> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let request = http.post(format!("http://{host}:{port}{PATH}")).timeout(LIMIT).json(question);
    let mut response = request.send().await.map_err(|_| "no gateway answers".to_owned())?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err("the gateway knows no such pod".to_owned()),
        status => return Err(format!("the gateway answered {}", status.as_u16())),
    }
    let broke = |_| "the gateway broke off".to_owned();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broke)? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_ANSWER {
            return Err("the gateway's answer is too long".to_owned());
        }
    }
    serde_json::from_slice(&body).map_err(|_| "the gateway's answer cannot be read".to_owned())
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::StatusCode as Status, response::IntoResponse, routing::post};
    use serde_json::json;

    use super::*;

    /// A gateway that answers so.
    async fn gateway(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().route(PATH, post(move || std::future::ready(answer.clone())));
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    async fn told(addresses: &[(&str, bool)], port: u16, turn: usize) -> Told {
        // An error means that another test has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().connect_timeout(Duration::from_millis(300)).build().unwrap();
        let gateway = |(address, ready): &(&str, bool)| Gateway {
            pod: (*address).to_owned(),
            address: (*address).to_owned(),
            ready: *ready,
        };
        let question = Question { namespace: "shop".to_owned(), model: "tiny".to_owned(), pod: "a".to_owned() };
        ask_one_of(&http, addresses.iter().map(gateway).collect(), port, &question, turn).await
    }

    #[tokio::test]
    async fn the_first_gateway_that_tells_is_believed_whoevers_turn_it_is() {
        let port = gateway(Json(json!({"routable": true}))).await;
        // Nobody listens at the second.
        let two = [("127.0.0.1", true), ("127.0.0.9", true)];
        assert_eq!(told(&two, port, 0).await, Told::Routable);
        assert_eq!(told(&two, port, 1).await, Told::Routable);
        assert_eq!(told(&[("127.0.0.1", false), ("127.0.0.9", true)], port, 0).await.status(), "Unknown", "it drains");
        let port = gateway(Json(json!({"routable": false, "message": "it answered 500"}))).await;
        assert_eq!(told(&two, port, 0).await, Told::No("it answered 500".to_owned()));
    }

    #[tokio::test]
    async fn without_a_gateway_that_tells_nobody_knows() {
        assert_eq!(told(&[], 1, 7).await, Told::Unknown("no gateway takes requests".to_owned()));
        let one = [("127.0.0.1", true)];
        for (port, words) in [
            (gateway(Status::NOT_FOUND).await, "knows no such pod"),
            (gateway(Status::TOO_MANY_REQUESTS).await, "answered 429"),
            (gateway("routable").await, "cannot be read"),
            (gateway("x".repeat(LONGEST_ANSWER + 1)).await, "too long"),
        ] {
            let told = told(&one, port, 0).await;
            assert!(matches!(&told, Told::Unknown(why) if why.contains(words)), "{words}: {told:?}");
        }
    }
}
