//! The route by which the operator has a new replica asked: it asks that one alone, about a picture of its own, and takes
//! nothing else from whoever reaches it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use vlm_gateway::{
    balance::Endpoint,
    routes::{Endpoints, Leaving},
    server::admin,
};

use crate::{
    gateway::{Gateway, id},
    replica::{Mood, Replica, nobody, raw},
};

/// A gateway's admin port, before a replica that takes no requests yet.
struct Admin {
    gateway: Gateway,
    address: SocketAddr,
}

impl Admin {
    async fn before(replica: SocketAddr, ready: bool) -> Self {
        let gateway = Gateway::start().await;
        let all: Endpoints = [(id(), vec![Endpoint { pod: "new".to_owned(), address: replica, ready }])].into();
        gateway.app.desk.update_endpoints(&all);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = admin::questions(gateway.app.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { gateway, address }
    }

    async fn post(&self, body: String) -> (u16, String) {
        let request = self.gateway.client.post(format!("http://{}/routable", self.address));
        let response = request.header("content-type", "application/json").body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn ask(&self, namespace: &str, model: &str, pod: &str) -> (u16, String) {
        self.post(json!({"namespace": namespace, "model": model, "pod": pod}).to_string()).await
    }

    async fn asked(&self) -> Value {
        let (status, text) = self.ask("shop", "tiny", "new").await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// A whole answer of a model server.
const ANSWERS: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 54\r\nconnection: close\r\n\r\n\
                       {\"choices\": [{\"message\": {\"role\": \"assistant\"}}]}     ";

#[tokio::test]
async fn a_replica_that_answers_a_picture_is_routable() {
    let admin = Admin::before(raw(ANSWERS).await, false).await;
    assert_eq!(admin.asked().await, json!({"routable": true}));
}

#[tokio::test]
async fn the_picture_is_sent_as_a_users_would_be_and_only_once_at_a_time() {
    let replica = Replica::start(Mood::Gated).await;
    let admin = Admin::before(replica.address, false).await;
    let (first, second) = tokio::join!(admin.ask("shop", "tiny", "new"), async {
        crate::gateway::await_that(|| replica.count() == 1, "the picture arrives").await;
        let second = admin.ask("shop", "tiny", "new").await;
        replica.state.gate.add_permits(1);
        second
    });
    assert_eq!((first.0, second.0, replica.count()), (200, 429, 1), "{second:?}");
    let (headers, body) = replica.state.seen.lock().unwrap().remove(0);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["model"], &body["max_tokens"]), (&json!("shop/tiny"), &json!(1)));
    let url = body["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap();
    assert!(url.starts_with("data:image/png;base64,"), "{url}");
    assert_eq!(headers["x-vlm-via"], "gateway");
    // It echoed the question, which is no answer.
    let told: Value = serde_json::from_str(&first.1).unwrap();
    assert_eq!(told["routable"], false, "{told}");
    // Nobody asked for the model: it was no user's request.
    let page = admin.gateway.page();
    assert!(page.contains("vlm_gateway_requests_arrived_total{model=\"tiny\",namespace=\"shop\"} 0"), "{page}");
    assert!(page.contains("vlm_gateway_requests_in_flight{model=\"tiny\",namespace=\"shop\"} 0"), "{page}");
}

#[tokio::test]
async fn what_a_replica_does_instead_of_answering_is_told() {
    let failing = Replica::start(Mood::Failing).await;
    let leaving = Replica::start(Mood::Leaving).await;
    for (address, words) in [
        (nobody().await, "cannot be reached"),
        (failing.address, "with 500: own words"),
        (leaving.address, "with 503"),
        (raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await, "with 200: no word"),
        (raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").await, "broke off its answer"),
        (raw("SSH-2.0-x\r\n").await, "broke off when"),
    ] {
        let told = Admin::before(address, false).await.asked().await;
        assert_eq!(told["routable"], false);
        assert!(told["message"].as_str().unwrap().contains(words), "{words}: {told}");
    }
}

#[tokio::test]
async fn nothing_but_a_new_pod_of_a_known_model_is_asked() {
    let replica = Replica::start(Mood::Echo).await;
    let admin = Admin::before(replica.address, false).await;
    for (namespace, model, pod) in [
        ("shop", "tiny", "other"),
        ("shop", "other", "new"),
        ("other", "tiny", "new"),
        ("", "", ""),
        ("shop/tiny", "", "new"),
    ] {
        assert_eq!(admin.ask(namespace, model, pod).await.0, 404, "{namespace} {model} {pod}");
    }
    let leaving: Leaving = [(id(), ["new".to_owned()].into())].into();
    admin.gateway.app.desk.update_leaving(leaving);
    assert_eq!(admin.ask("shop", "tiny", "new").await.0, 409, "it is on its way out");
    let serving = Admin::before(replica.address, true).await;
    assert_eq!(serving.ask("shop", "tiny", "new").await.0, 409, "it takes requests");
    assert_eq!(replica.count(), 0);
}

#[tokio::test]
async fn a_hostile_question_is_refused() {
    let replica = Replica::start(Mood::Echo).await;
    let admin = Admin::before(replica.address, false).await;
    let long = "x".repeat(100_000);
    for body in [
        String::new(),
        "[]".to_owned(),
        "{".to_owned(),
        json!({"namespace": "shop", "model": "tiny"}).to_string(),
        json!({"namespace": "shop", "model": "tiny", "pod": 7}).to_string(),
        json!({"namespace": "shop", "model": "tiny", "pod": "new", "url": "http://10.0.0.1/"}).to_string(),
        json!({"namespace": "shop", "model": "tiny", "pod": long}).to_string(),
    ] {
        let (status, text) = admin.post(body.clone()).await;
        assert!((400..500).contains(&status), "{status} {text}: {}", &body[..body.len().min(90)]);
    }
    let client = &admin.gateway.client;
    let got = client.get(format!("http://{}/routable", admin.address)).send().await.unwrap();
    assert_eq!(got.status().as_u16(), 405);
    let public = client.post(admin.gateway.url("/routable")).body("{}").send().await.unwrap();
    assert_eq!(public.status().as_u16(), 404, "users do not reach it");
    assert_eq!(replica.count(), 0);
}
