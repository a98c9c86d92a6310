//! Requests for a model that sleeps or is full: held within bounds, released without a stampede, told the truth.

use std::{sync::atomic::Ordering, time::Duration};

use futures::future::join_all;
use vlm_gateway::{
    hold::Bounds,
    routes::{Route, Standing},
};

use crate::gateway::{Gateway, code, question, route, streamed};
use crate::replica::{Mood, Replica};

#[tokio::test]
async fn a_thousand_requests_at_a_sleeping_model_are_held_or_refused_and_none_is_lost() {
    let bounds = Bounds { count: 50, ..route(Standing::Asleep).bounds };
    let gateway = Gateway::with(Route { bounds, ..route(Standing::Asleep) }).await;
    let all: Vec<_> = (0..1000).map(|_| tokio::spawn(gateway.ask(&question()).send())).collect();
    crate::gateway::await_that(|| gateway.page().contains("reason=\"queue_full\"} 950"), "all others refused").await;
    assert_eq!(gateway.counts(), (50, 0));
    // Those that were refused are demand as well.
    let arrived = "vlm_gateway_requests_arrived_total{model=\"tiny\",namespace=\"shop\"} 1000\n";
    assert!(gateway.page().contains(arrived), "{}", gateway.page());
    let replica = Replica::start(Mood::Gated).await;
    gateway.replicas(&[replica.address]);
    gateway.await_counts(48, 2).await;
    crate::gateway::await_that(|| replica.count() == 2, "both are there").await;
    replica.state.gate.add_permits(50);
    let (mut answered, mut refused) = (0, 0);
    for response in join_all(all).await {
        let response = response.unwrap().unwrap();
        match response.status().as_u16() {
            200 => answered += 1,
            429 => {
                assert!(response.headers().contains_key("retry-after"));
                assert_eq!(code(response).await, "queue_full");
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((answered, refused), (50, 950));
    assert_eq!(replica.state.most.load(Ordering::SeqCst), 2, "never more at once than the replica's window");
}

#[tokio::test]
async fn two_gateways_hold_a_thousand_together_no_more_than_is_allowed() {
    let bounds = Bounds { count: 50, ..route(Standing::Asleep).bounds };
    let asleep = Route { bounds, ..route(Standing::Asleep) };
    let gateways = [Gateway::with(asleep.clone()).await, Gateway::with(asleep).await];
    for gateway in &gateways {
        gateway.app.desk.update_gateways(2);
    }
    let all: Vec<_> = (0..1000).map(|n| tokio::spawn(gateways[n % 2].ask(&question()).send())).collect();
    for gateway in &gateways {
        crate::gateway::await_that(|| gateway.page().contains("reason=\"queue_full\"} 475"), "others refused").await;
        assert_eq!(gateway.counts(), (25, 0));
    }
    let finished = || all.iter().filter(|asked| asked.is_finished()).count();
    crate::gateway::await_that(|| finished() == 950, "all others are told").await;
    let mut patient = Vec::new();
    let mut refused = 0;
    for asked in all {
        if asked.is_finished() {
            let response = asked.await.unwrap().unwrap();
            assert_eq!(response.status(), 429);
            let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
            refused += 1;
        } else {
            patient.push(asked);
        }
    }
    assert_eq!((refused, patient.len()), (950, 50));
    patient.drain(..10).for_each(|asked| asked.abort());
    let held = || gateways.iter().map(|gateway| gateway.counts().0).sum::<usize>();
    crate::gateway::await_that(|| held() == patient.len(), "all that left are gone").await;
    let replica = Replica::start(Mood::Gated).await;
    for gateway in &gateways {
        gateway.replicas(&[replica.address]);
    }
    crate::gateway::await_that(|| replica.count() == 4, "two of each gateway").await;
    replica.state.gate.add_permits(patient.len());
    for asked in patient {
        assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(replica.state.most.load(Ordering::SeqCst), 4, "a window of each gateway at most");
    assert_eq!(replica.count(), 40, "each once");
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let gateway = Gateway::with(route(Standing::Asleep)).await;
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(gateway.ask(&question()).send())).collect();
    gateway.await_counts(4, 0).await;
    assert_eq!(gateway.ask(&question()).send().await.unwrap().status(), 429);
    for client in waiting {
        client.abort();
    }
    gateway.await_counts(0, 0).await;
    // So does one whose stream has begun with heartbeats.
    let mut stream = gateway.ask(&streamed()).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    gateway.await_counts(1, 0).await;
    drop(stream);
    gateway.await_counts(0, 0).await;
}

#[tokio::test]
async fn a_streaming_client_sees_heartbeats_and_then_the_answer() {
    let gateway = Gateway::with(route(Standing::Asleep)).await;
    let mut response = gateway.ask(&streamed()).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let first = response.chunk().await.unwrap().unwrap();
    assert_eq!(first, ": the model is waking up; requests before this one: 0; eta_seconds=unknown\n\n");
    let replica = Replica::start(Mood::Stream).await;
    gateway.replicas(&[replica.address]);
    let rest = response.text().await.unwrap();
    assert!(rest.ends_with("data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n"), "{rest}");
    let comments = rest.split("\n\n").filter(|event| !event.starts_with("data: ") && !event.is_empty());
    assert!(comments.into_iter().all(|event| event.starts_with(": ")), "{rest}");
}

#[tokio::test]
async fn a_model_that_cannot_start_tells_those_that_wait_why() {
    let failed = Standing::Failed { reason: "WeightsCorrupt".to_owned(), message: "fetch them again".to_owned() };
    let gateway = Gateway::start().await;
    let mut stream = gateway.ask(&streamed()).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().unwrap().starts_with(b": "));
    let waiting = tokio::spawn(gateway.ask(&question()).send());
    gateway.await_counts(2, 0).await;
    gateway.stands(route(failed));
    let response = waiting.await.unwrap().unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-vlm-reason"]),
        (503, &"WeightsCorrupt".parse().unwrap())
    );
    let message = response.text().await.unwrap();
    assert!(message.contains("fetch them again"), "{message}");
    let events = stream.text().await.unwrap();
    let last = events.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("data: {\"error\":") && last.contains("cannot_start"), "{events}");
    assert!(gateway.page().contains("reason=\"cannot_start\"} 2"));
}

#[tokio::test]
async fn a_model_that_is_switched_off_is_not_waited_for() {
    let gateway = Gateway::with(route(Standing::Off)).await;
    let response = gateway.ask(&question()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), code(response).await.as_str()), (503, "switched_off"));
}

#[tokio::test]
async fn who_waits_too_long_is_told() {
    let bounds = Bounds { wait: Duration::from_millis(100), ..route(Standing::Asleep).bounds };
    let gateway = Gateway::with(Route { bounds, ..route(Standing::Asleep) }).await;
    let response = gateway.ask(&question()).send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!((response.status().as_u16(), code(response).await.as_str()), (503, "waited_too_long"));
}
