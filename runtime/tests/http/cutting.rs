//! Breaking streams off wherever they can be, and continuing them as the gateway does.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Response;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use vlm_contract::continuation::{
    AnswerState, CONTENT_TYPE, Head, Identity, PATH, SIGNATURE, SIGNED_AT, STATE_PREFIX, StreamState, signed_bytes,
};

use super::server::{PATIENCE, Server};

pub fn gateway() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

/// One that takes the gateway's continuations.
pub async fn server() -> Server {
    let key = BASE64_STANDARD.encode(gateway().public_key());
    Server::start(&["--continuation-public-key", &key, "--max-concurrency", "2"]).await
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Posts a continuation signed by `pair` at `at`.
pub async fn post(server: &Server, head: &Head, body: &[u8], pair: &Ed25519KeyPair, at: u64) -> Response {
    let bytes = [serde_json::to_string(head).unwrap().as_bytes(), b"\n", body].concat();
    let at = at.to_string();
    let signature = pair.sign(&signed_bytes(&at, digest(&SHA256, &bytes).as_ref()));
    let request = server.client.post(format!("{}{PATH}", server.base)).header("content-type", CONTENT_TYPE);
    let request = request.header(SIGNED_AT, at).header(SIGNATURE, BASE64_STANDARD.encode(signature));
    let request = request.header("x-vlm-stream-state", "true");
    // What it continues has at most hundreds of tokens.
    request.timeout(PATIENCE / 3).body(bytes).send().await.unwrap()
}

/// One event of a stream: what the gateway learns from it, and what the client gets.
pub struct Moment {
    pub state: Option<StreamState>,
    name: Option<String>,
    pub data: String,
}

pub fn moments(text: &str) -> Vec<Moment> {
    let prefix = format!(": {STATE_PREFIX}");
    let moment = |block: &str| {
        let field = |prefix: &str| block.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
        let state = field(prefix.as_str()).map(|json| serde_json::from_str(&json).unwrap());
        Moment { state, name: field("event: "), data: field("data: ").unwrap() }
    };
    text.split("\n\n").filter(|block| !block.is_empty()).map(moment).collect()
}

/// The answers after these events.
fn after(mut answers: Vec<AnswerState>, moments: &[Moment]) -> Vec<AnswerState> {
    for state in moments.iter().filter_map(|moment| moment.state.clone()) {
        answers.resize_with(answers.len().max(state.answer + 1), AnswerState::default);
        answers[state.answer].advance(state);
    }
    answers
}

/// The events of each answer in their order, and last those of the whole stream, without what may differ: a
/// continuation finds more in the cache.
fn comparable(moments: &[Moment]) -> Value {
    let mut all = vec![Vec::new(); 9];
    for moment in moments {
        let mut value: Value = serde_json::from_str(&moment.data).unwrap_or_else(|_| json!(moment.data));
        for (usage, cached) in [("/usage", "prompt_tokens_details"), ("/response/usage", "input_tokens_details")] {
            value.pointer_mut(usage).and_then(Value::as_object_mut).map(|usage| usage.remove(cached));
        }
        let answer = value.pointer("/choices/0/index").and_then(Value::as_u64).map_or(8, |index| index as usize);
        all[answer].push(json!([moment.name, value]));
    }
    json!(all)
}

/// By so much the same number differs at most: what is read at once is added up in another order than what came token
/// by token.
const ROUNDING: f64 = 1e-3;

/// Whether both are the same, but for how numbers are rounded.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < ROUNDING,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let same = |(name, a): (&String, &Value)| {
                let b = b.get(name);
                b.is_some_and(|b| if name == "top_logprobs" { same_likeliest(a, b) } else { alike(a, b) })
            };
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

/// Whether the same tokens are told to be the likeliest, but for those that are as likely as the last of them. A chat
/// lists the tokens of a place, a completion those of all places.
fn same_likeliest(a: &Value, b: &Value) -> bool {
    let places = |value: &Value| -> Vec<Vec<(String, f64)>> {
        let all = value.as_array().into_iter().flatten();
        let chat = |top: &Value| Some((top["token"].to_string() + &top["bytes"].to_string(), top["logprob"].as_f64()?));
        if all.clone().all(|top| top.get("logprob").is_some()) {
            return vec![all.filter_map(chat).collect()];
        }
        let place = |tops: &Value| {
            tops.as_object().unwrap().iter().map(|(token, p)| (token.clone(), p.as_f64().unwrap())).collect()
        };
        all.map(place).collect()
    };
    let within = |some: &[(String, f64)], others: &[(String, f64)]| {
        let least = others.iter().map(|(_, logprob)| *logprob).fold(f64::INFINITY, f64::min);
        let near = |a: f64, b: f64| (a - b).abs() < ROUNDING;
        let told = |(token, logprob): &(String, f64)| {
            near(*logprob, least) || others.iter().any(|(other, b)| other == token && near(*logprob, *b))
        };
        some.len() == others.len() && some.iter().all(told)
    };
    let (a, b) = (places(a), places(b));
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| within(a, b) && within(b, a))
}

/// A stream that was cut wherever it can be, and went on each time as if it had not been.
pub struct Cut {
    /// How often.
    pub times: usize,
    pub whole: Vec<Moment>,
}

impl Cut {
    /// The text of the answer at `index`.
    pub fn text(&self, index: usize) -> String {
        text_of(self.whole.iter().map(|moment| moment.data.as_str()), index)
    }

    /// The least cuts at which at least one of several answers had ended and another not.
    pub fn while_some_had_ended(&self) -> usize {
        let states = |at: usize| after(Vec::new(), &self.whole[..=at]);
        let mixed = |at: &usize| {
            let closed = states(*at).iter().filter(|answer| answer.closed).count();
            closed > 0 && closed < states(self.whole.len() - 1).len()
        };
        (0..self.whole.len()).filter(mixed).count()
    }
}

/// The text that the events of a stream add to an answer, by any of the routes.
pub fn text_of<'a>(data: impl Iterator<Item = &'a str>, index: usize) -> String {
    let added = |data: &str| {
        let chunk = serde_json::from_str::<Value>(data).ok()?;
        let choice = chunk["choices"].get(0).filter(|choice| choice["index"] == index);
        let text = match choice {
            Some(choice) => choice.pointer("/delta/content").or_else(|| choice.get("text")),
            None => chunk.get("delta").filter(|_| chunk["type"] == "response.output_text.delta"),
        };
        text?.as_str().map(str::to_owned)
    };
    data.filter_map(added).collect()
}

/// Asks for a stream by a body of JSON, and cuts it everywhere.
pub async fn cut_everywhere(server: &Server, path: &str, body: &Value) -> Cut {
    cut_of(server, path, "application/json", body.to_string().as_bytes()).await
}

/// The same with a body of any kind.
pub async fn cut_of(server: &Server, path: &str, content_type: &str, body: &[u8]) -> Cut {
    let asked = server.client.post(format!("{}{path}", server.base)).header("content-type", content_type);
    let response = asked.header("x-vlm-stream-state", "true").body(body.to_vec()).send().await.unwrap();
    let told = response.headers().get("x-vlm-stream-state").cloned();
    assert_eq!(response.status(), 200, "{:?}", response.text().await);
    let identity: Identity = serde_json::from_slice(told.unwrap().as_bytes()).unwrap();
    let whole = moments(&response.text().await.unwrap());
    let last = whole.last().unwrap();
    assert!(last.state.as_ref().unwrap().last, "{}", last.data);
    let all = after(Vec::new(), &whole);
    let mut times = 0;
    for at in 0..whole.len() - 1 {
        // An event without goes together with the next.
        if whole[at].state.is_none() {
            continue;
        }
        let answers = after(Vec::new(), &whole[..=at]);
        let (path, content_type) = (path.to_owned(), content_type.to_owned());
        let head = Head { path, content_type, identity: identity.clone(), answers };
        let response = post(server, &head, body, &gateway(), now()).await;
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        let rest = moments(&response.text().await.unwrap());
        let (got, expected) = (comparable(&rest), comparable(&whole[at + 1..]));
        assert!(alike(&got, &expected), "cut after event {at}: {got} is not {expected}");
        let tokens = |answers: &[AnswerState]| answers.iter().map(|a| a.tokens.clone()).collect::<Vec<_>>();
        assert_eq!(tokens(&after(head.answers, &rest)), tokens(&all), "cut after event {at}");
        times += 1;
    }
    Cut { times, whole }
}
