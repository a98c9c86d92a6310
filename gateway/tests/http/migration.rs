//! Streams that go on at another replica when their own breaks off.

use std::time::Duration;

use serde_json::{Value, json};
use vlm_gateway::routes::{Route, Standing};

use crate::continuing::{Continuing, Cut, Shape, TOKENS, undisturbed, undisturbed_of};
use crate::gateway::{Gateway, await_that, id, public_key, route, streamed};

/// The data of all events.
fn data(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

async fn text(gateway: &Gateway) -> String {
    gateway.ask(&streamed()).send().await.unwrap().text().await.unwrap()
}

fn counted(gateway: &Gateway, reason: &str, result: &str) -> u64 {
    let series = format!("vlm_gateway_migrations_total{{reason=\"{reason}\",result=\"{result}\"}} ");
    let page = gateway.page();
    let line = page.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("{series}: {page}")).parse().unwrap()
}

/// The code and the words of the error that a stream ends with.
fn error(text: &str) -> (String, String) {
    let last: Value = serde_json::from_str(data(text).last().unwrap()).unwrap();
    let word = |name: &str| last["error"][name].as_str().unwrap_or_default().to_owned();
    (word("code"), word("message"))
}

#[tokio::test]
async fn a_stream_goes_on_wherever_it_breaks_off() {
    let expected = undisturbed("stream-1");
    for after in 1..expected.len() {
        let gateway = Gateway::start().await;
        let (first, second) = (
            Continuing::start(&public_key(), Cut::Breaks(after)).await,
            Continuing::start(&public_key(), Cut::Never).await,
        );
        gateway.replicas(&[first.address]);
        let asking = tokio::spawn(gateway.ask(&streamed()).send());
        await_that(|| first.state.asked.lock().unwrap().len() == 1, "it was asked").await;
        gateway.replicas(&[first.address, second.address]);
        let got = asking.await.unwrap().unwrap().text().await.unwrap();
        assert_eq!(data(&got), expected, "broken off after {after} events");
        assert!(!got.contains("vlm-state"), "{got}");
        assert_eq!(second.continued(), 1);
        let (head, body, headers) = second.state.continued.lock().unwrap()[0].clone();
        let tokens = head.answers[0].tokens.len();
        assert_eq!((tokens, head.path.as_str()), ((after - 1).min(TOKENS), "/v1/chat/completions"));
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), streamed(), "the body as it came");
        assert_eq!(headers["x-vlm-via"], "gateway");
        assert_eq!(headers["x-vlm-client"], "address-127.0.0.1");
        assert_eq!(counted(&gateway, "broke_off", "ok"), 1);
        gateway.await_counts(0, 0).await;
        assert!(gateway.page().contains("vlm_gateway_body_bytes 0"), "nothing is kept");
    }
}

#[tokio::test]
async fn it_goes_on_again_and_again_and_on_the_same_replica_where_there_is_no_other() {
    let gateway = Gateway::start().await;
    let replica = Continuing::start(&public_key(), Cut::Breaks(9)).await;
    gateway.replicas(&[replica.address]);
    assert_eq!(data(&text(&gateway).await), undisturbed("stream-1"));
    assert_eq!(replica.continued(), 1, "after 8 tokens");
}

#[tokio::test]
async fn a_replica_that_ends_or_fails_hands_its_streams_over() {
    for (code, reason) in [("server_draining", "draining"), ("engine_error", "failed")] {
        let gateway = Gateway::start().await;
        let replica = Continuing::start(&public_key(), Cut::Says(5, code)).await;
        gateway.replicas(&[replica.address]);
        let asking = tokio::spawn(gateway.ask(&streamed()).send());
        await_that(|| gateway.counts() == (1, 0) || replica.continued() > 0, "it said so").await;
        replica.cut(Cut::Never);
        let got = asking.await.unwrap().unwrap().text().await.unwrap();
        assert_eq!(data(&got), undisturbed("stream-1"), "{code}");
        assert!(counted(&gateway, reason, "ok") >= 1);
    }
}

#[tokio::test]
async fn while_no_replica_is_there_the_client_gets_signs_of_life() {
    let gateway = Gateway::start().await;
    let replica = Continuing::start(&public_key(), Cut::Breaks(4)).await;
    gateway.replicas(&[replica.address]);
    let mut response = gateway.ask(&streamed()).send().await.unwrap();
    let mut got = String::new();
    while !got.contains("goes on as soon as") {
        got += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
        gateway.replicas(&[]);
    }
    assert_eq!(gateway.counts().0, 1, "it waits, and counts as load");
    let other = Continuing::start(&public_key(), Cut::Never).await;
    gateway.replicas(&[other.address]);
    got += &response.text().await.unwrap();
    assert_eq!(data(&got), undisturbed("stream-1"));
}

#[tokio::test]
async fn a_stream_without_a_place_to_go_ends_with_an_error_that_says_so() {
    let mut short = route(Standing::Awake);
    short.bounds.wait = Duration::from_millis(200);
    let gateway = Gateway::with(short).await;
    let replica = Continuing::start(&public_key(), Cut::Breaks(4)).await;
    gateway.replicas(&[replica.address]);
    let mut response = gateway.ask(&streamed()).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    gateway.replicas(&[]);
    let got = String::from_utf8(first.to_vec()).unwrap() + &response.text().await.unwrap();
    let (code, message) = error(&got);
    assert_eq!(code, "answer_broken");
    assert!(message.contains("no other was free in time; retry"), "{message}");
    assert_eq!(data(&got)[..4], undisturbed("stream-1")[..4]);
    assert_eq!(counted(&gateway, "broke_off", "failed"), 1);
    assert!(gateway.page().contains("vlm_gateway_answers_broken_total 1"));
    gateway.await_counts(0, 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_every_replica_is_given_up() {
    let gateway = Gateway::start().await;
    let key = public_key();
    let replicas = [(); 6].map(|()| Continuing::start(&key, Cut::Breaks(1)));
    let replicas = futures::future::join_all(replicas).await;
    gateway.replicas(&replicas.iter().map(|replica| replica.address).collect::<Vec<_>>());
    let (code, message) = error(&text(&gateway).await);
    assert_eq!(code, "answer_broken");
    assert!(message.contains("wherever it is computed"), "{message}");
    let continued: usize = replicas.iter().map(Continuing::continued).sum();
    assert_eq!(continued, 2, "it costs no more than three replicas");
}

#[tokio::test]
async fn what_cannot_go_on_is_not_tried() {
    // A replica that says nothing of the state, and a model that forbids it.
    let mut forbidden = route(Standing::Awake);
    forbidden.migrates = false;
    let gateway = Gateway::with(forbidden).await;
    let replica = Continuing::start(&public_key(), Cut::Breaks(4)).await;
    gateway.replicas(&[replica.address]);
    let got = text(&gateway).await;
    assert_eq!((data(&got).len(), error(&got).0.as_str()), (5, "answer_broken"));
    assert!(!replica.state.asked.lock().unwrap()[0].contains_key("x-vlm-stream-state"));
    assert_eq!(replica.continued(), 0);
    // One that refuses: it says 400 because the answer cannot be continued.
    let gateway = Gateway::start().await;
    let refusing = Continuing::start(&public_key(), Cut::Refuses(400)).await;
    gateway.replicas(&[replica.address]);
    let asking = tokio::spawn(gateway.ask(&streamed()).send());
    await_that(|| replica.state.asked.lock().unwrap().len() == 2, "it was asked").await;
    gateway.replicas(&[replica.address, refusing.address]);
    let (_, message) = error(&asking.await.unwrap().unwrap().text().await.unwrap());
    assert!(message.contains("refused to go on"), "{message}");
}

#[tokio::test]
async fn replicas_without_the_key_and_of_a_former_release_are_passed_over() {
    let gateway = Gateway::start().await;
    let first = Continuing::start(&public_key(), Cut::Breaks(6)).await;
    // It knows no such route.
    let former = Continuing::start(&public_key(), Cut::Refuses(404)).await;
    let stranger = Continuing::start("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", Cut::Never).await;
    let good = Continuing::start(&public_key(), Cut::Never).await;
    gateway.replicas(&[first.address]);
    let asking = tokio::spawn(gateway.ask(&streamed()).send());
    await_that(|| first.state.asked.lock().unwrap().len() == 1, "it was asked").await;
    gateway.replicas(&[first.address, stranger.address, former.address, good.address]);
    let got = asking.await.unwrap().unwrap().text().await.unwrap();
    assert_eq!(data(&got), undisturbed("stream-1"));
    assert_eq!((stranger.continued(), good.continued()), (0, 1));
}

#[tokio::test]
async fn a_stream_is_moved_off_a_replica_that_ends_once_another_has_room() {
    let mut hasty = route(Standing::Awake);
    hasty.drain = Duration::from_millis(300);
    let gateway = Gateway::with(hasty).await;
    let old = Continuing::start(&public_key(), Cut::Silent(6)).await;
    gateway.replicas(&[old.address]);
    let asking = tokio::spawn({
        let ask = gateway.ask(&streamed());
        async move { ask.send().await.unwrap().text().await.unwrap() }
    });
    gateway.await_counts(0, 1).await;
    gateway.app.desk.update_leaving([(id(), ["pod-0".to_owned()].into())].into());
    // Nothing else has room: it stays.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((gateway.counts(), asking.is_finished()), ((0, 1), false));
    let new = Continuing::start(&public_key(), Cut::Never).await;
    gateway.replicas(&[old.address, new.address]);
    assert_eq!(data(&asking.await.unwrap()), undisturbed("stream-1"));
    assert_eq!((new.continued(), counted(&gateway, "early", "ok")), (1, 1));
    gateway.await_counts(0, 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_stream_waits_frees_its_place() {
    let gateway = Gateway::start().await;
    let replica = Continuing::start(&public_key(), Cut::Breaks(4)).await;
    gateway.replicas(&[replica.address]);
    let mut response = gateway.ask(&streamed()).send().await.unwrap();
    response.chunk().await.unwrap();
    gateway.replicas(&[]);
    gateway.await_counts(1, 0).await;
    drop(response);
    gateway.await_counts(0, 0).await;
    await_that(|| gateway.page().contains("vlm_gateway_body_bytes 0"), "its body is forgotten").await;
}

#[tokio::test]
async fn a_whole_answer_is_asked_for_without_its_state() {
    let gateway = Gateway::start().await;
    let replica = Continuing::start(&public_key(), Cut::Never).await;
    gateway.replicas(&[replica.address]);
    let whole = gateway.ask(&json!({"model": "tiny", "messages": []})).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    assert!(!replica.state.asked.lock().unwrap()[0].contains_key("x-vlm-stream-state"));
}

#[tokio::test]
async fn a_replica_that_falls_silent_is_gone_though_its_connection_is_not() {
    let gateway = Gateway::that(|app| app.silence = Duration::from_secs(1)).await;
    let first = Continuing::start(&public_key(), Cut::Silent(6)).await;
    let second = Continuing::start(&public_key(), Cut::Never).await;
    gateway.replicas(&[first.address]);
    let asking = tokio::spawn({
        let ask = gateway.ask(&streamed());
        async move { ask.send().await.unwrap().text().await.unwrap() }
    });
    await_that(|| first.state.asked.lock().unwrap().len() == 1, "it was asked").await;
    gateway.replicas(&[first.address, second.address]);
    assert_eq!(data(&asking.await.unwrap()), undisturbed("stream-1"));
    assert_eq!((first.continued(), second.continued()), (0, 1));
    assert_eq!((counted(&gateway, "silent", "ok"), counted(&gateway, "broke_off", "ok")), (1, 0));
    gateway.await_counts(0, 0).await;
}

#[tokio::test]
async fn a_stream_that_cannot_move_ends_when_its_replica_falls_silent() {
    let gateway = Gateway::that(|app| app.silence = Duration::from_secs(1)).await;
    gateway.stands(Route { migrates: false, ..route(Standing::Awake) });
    let replica = Continuing::start(&public_key(), Cut::Silent(4)).await;
    gateway.replicas(&[replica.address]);
    let got = text(&gateway).await;
    assert_eq!((data(&got).len(), error(&got).0.as_str()), (5, "answer_broken"));
    gateway.await_counts(0, 0).await;
}

/// The data of all events: those of each answer in their order, and the stream's own.
fn of_each(data: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new(); 4];
    for data in data {
        let chunk: Value = serde_json::from_str(data).unwrap_or_default();
        all[chunk["choices"][0]["index"].as_u64().map_or(3, |index| index as usize)].push(data.clone());
    }
    all
}

#[tokio::test]
async fn streams_of_every_route_and_of_several_answers_go_on_wherever_they_break_off() {
    let body = |shape| match shape {
        Shape::Chat(n) => json!({"model": "tiny", "messages": [], "stream": true, "n": n}),
        Shape::Text(n) => json!({"model": "tiny", "prompt": "hi", "stream": true, "n": n}),
        Shape::Response => json!({"model": "tiny", "input": "hi", "stream": true}),
    };
    for shape in [Shape::Text(1), Shape::Response, Shape::Chat(2), Shape::Text(3)] {
        let expected = undisturbed_of(shape, "stream-1");
        for after in 1..expected.len() {
            let gateway = Gateway::start().await;
            let first = Continuing::start(&public_key(), Cut::Breaks(after)).await;
            let second = Continuing::start(&public_key(), Cut::Never).await;
            gateway.replicas(&[first.address]);
            let ask = gateway.client.post(gateway.url(shape.path())).json(&body(shape));
            let asking = tokio::spawn(ask.send());
            await_that(|| first.state.asked.lock().unwrap().len() == 1, "it was asked").await;
            gateway.replicas(&[first.address, second.address]);
            let response = asking.await.unwrap().unwrap();
            assert!(!response.headers().contains_key("x-vlm-stream-state"));
            let got = response.text().await.unwrap();
            assert_eq!(of_each(&data(&got)), of_each(&expected), "{shape:?} broken off after {after} events");
            assert!(!got.contains("vlm-state"), "{got}");
            let (head, sent, _) = second.state.continued.lock().unwrap()[0].clone();
            assert_eq!((head.path.as_str(), second.continued()), (shape.path(), 1));
            assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), body(shape), "the body as it came");
            assert_eq!(counted(&gateway, "broke_off", "ok"), 1);
            gateway.await_counts(0, 0).await;
        }
    }
}

#[tokio::test]
async fn a_replica_that_tells_the_state_as_a_former_release_did_ends_its_streams() {
    let gateway = Gateway::start().await;
    let former = Continuing::start(&public_key(), Cut::Former(4)).await;
    let other = Continuing::start(&public_key(), Cut::Never).await;
    gateway.replicas(&[former.address]);
    let asking = tokio::spawn(gateway.ask(&streamed()).send());
    await_that(|| former.state.asked.lock().unwrap().len() == 1, "it was asked").await;
    gateway.replicas(&[former.address, other.address]);
    let got = asking.await.unwrap().unwrap().text().await.unwrap();
    assert_eq!(data(&got)[..4], undisturbed("stream-1")[..4]);
    let (code, message) = error(&got);
    assert_eq!((data(&got).len(), code.as_str()), (5, "answer_broken"), "{got}");
    assert!(message.ends_with("; retry") && !got.contains("vlm-state"), "{got}");
    assert_eq!(other.continued(), 0);
    assert!(gateway.page().contains("vlm_gateway_answers_broken_total 1"));
    gateway.await_counts(0, 0).await;
}
