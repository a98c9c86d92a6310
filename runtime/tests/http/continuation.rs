//! A stream that goes on elsewhere is the same stream.

use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};
use vlm_contract::continuation::{AnswerState, Head, Identity, PATH};

use super::cutting::{cut_everywhere, cut_of, gateway, moments, now, post, server, text_of};
use super::server::{Server, about_picture, answer, data_url, events, png, question};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const RESPONSE: &str = "/v1/responses";

/// A head of a chat of one answer after `tokens`.
fn head(tokens: Vec<u32>) -> Head {
    Head {
        path: CHAT.into(),
        content_type: "application/json".into(),
        identity: Identity { id: "chatcmpl-x".into(), created: 1, seed: 1 },
        answers: vec![AnswerState { tokens, ..AnswerState::default() }],
    }
}

/// A body with some fields changed.
fn with(body: &Value, change: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_continuation_equals_the_undisturbed_stream_wherever_it_is_cut() {
    let server = server().await;
    let usage = json!({"include_usage": true});
    let greedy = about_picture(&json!({"stream": true, "stream_options": usage, "max_tokens": 24}));
    let cut = cut_everywhere(&server, CHAT, &greedy).await;
    assert!(cut.times > 3, "{}", cut.times);
    let more = json!({"stream": true, "temperature": 1.2, "top_p": 0.9, "max_tokens": 40, "ignore_eos": true});
    for change in [json!({}), json!({"seed": 42}), json!({"stream_options": usage})] {
        let cut = cut_everywhere(&server, CHAT, &with(&about_picture(&more), &change)).await;
        assert!(cut.times > 10, "{}", cut.times);
    }
}

#[tokio::test]
async fn several_answers_are_each_continued_from_where_it_is() {
    let server = server().await;
    let schema = json!({"type": "object", "required": ["n"], "additionalProperties": false, "properties": {
        "n": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1, "maxItems": 9}}});
    let form = json!({"type": "json_schema", "json_schema": {"name": "numbers", "schema": schema}});
    let limited = json!({"type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": limited}}]);
    let body = question(&json!({"stream": true, "temperature": 1.2, "n": 3, "max_tokens": 16,
        "stream_options": {"include_usage": true}}));
    let mut mixed = 0;
    for change in [
        json!({"ignore_eos": true, "seed": 3}),
        json!({"ignore_eos": true, "logprobs": true, "top_logprobs": 2, "frequency_penalty": 1.0, "seed": 4}),
        json!({"response_format": form, "max_tokens": 60, "seed": 5}),
        json!({"tools": tools, "tool_choice": "required", "max_tokens": 150, "n": 2, "seed": 8}),
    ] {
        let cut = cut_everywhere(&server, CHAT, &with(&body, &change)).await;
        assert!(cut.times > 5, "{} of {change}", cut.times);
        mixed += cut.while_some_had_ended();
        let texts = [0, 1].map(|index| cut.text(index));
        assert!(texts[0] != texts[1] || texts[0].is_empty(), "{texts:?}");
    }
    assert!(mixed > 10, "{mixed} cuts while an answer had ended and another not");
    let picture = about_picture(&json!({"stream": true, "n": 2, "max_tokens": 8, "temperature": 1.0, "seed": 6}));
    cut_everywhere(&server, CHAT, &picture).await;
}

#[tokio::test]
async fn completions_are_continued_as_well() {
    let server = server().await;
    let usage = json!({"include_usage": true});
    let body = json!({"model": "tiny", "prompt": "A triangle is", "stream": true, "temperature": 1.2, "max_tokens": 16,
        "ignore_eos": true, "stream_options": usage});
    for (change, answers) in [
        (json!({"temperature": 0}), 1),
        (json!({"seed": 4, "echo": true}), 1),
        (json!({"logprobs": 3}), 1),
        (json!({"prompt": [70, 71, 72], "echo": true, "stream_options": null}), 1),
        (json!({"prompt": ["one", "two, but longer"], "n": 2, "seed": 9, "echo": true}), 4),
        (json!({"prompt": [[70, 71], [80, 81, 82]], "n": 2, "logprobs": 1}), 4),
        (json!({"n": 3, "min_tokens": 3, "ignore_eos": false, "logit_bias": {"2": 6}, "seed": 2}), 3),
    ] {
        let body = with(&body, &change);
        let cut = cut_everywhere(&server, TEXT, &body).await;
        assert!(cut.times > 3, "{} of {change}", cut.times);
        let texts: Vec<_> = (0..=answers).map(|index| cut.text(index)).collect();
        assert!(texts[..answers].iter().all(|text| !text.is_empty()) && texts[answers].is_empty(), "{texts:?}");
    }
    let long = with(&body, &json!({"seed": 5, "max_tokens": 60}));
    let text = cut_everywhere(&server, TEXT, &long).await.text(0);
    let middle: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
    for n in [1, 2] {
        let stopping = with(&long, &json!({"stop": [middle], "n": n, "logprobs": 0}));
        let stopped = cut_everywhere(&server, TEXT, &stopping).await.text(0);
        assert!(!stopped.is_empty() && text.starts_with(&stopped) && stopped.len() < text.len(), "{stopped} of {text}");
    }
}

/// The probabilities of tokens whose text could be the beginning of a stop string come with later text, by whichever
/// server sends that.
#[tokio::test]
async fn probabilities_that_were_held_back_are_told_once() {
    let server = server().await;
    let more = json!({"stream": true, "logit_bias": {"100": 100}, "temperature": 0, "max_tokens": 12, "n": 2});
    let chat = with(&question(&more), &json!({"logprobs": true, "top_logprobs": 2}));
    let text = with(&json!({"model": "tiny", "prompt": "x", "logprobs": 2}), &more);
    for (path, body) in [(CHAT, chat), (TEXT, text)] {
        let letters = cut_everywhere(&server, path, &body).await.text(0);
        let letter = letters.chars().next().unwrap();
        assert_eq!(letters, letter.to_string().repeat(12));
        // All are the beginning of it, the last two at any time are held back.
        let cut = cut_everywhere(&server, path, &with(&body, &json!({"stop": [format!("{letter}{letter}!")]}))).await;
        assert_eq!(cut.text(1), letters);
        let held = |state: &vlm_contract::continuation::StreamState| state.unsent.len();
        let held: Vec<_> = cut.whole.iter().filter_map(|moment| moment.state.as_ref()).map(held).collect();
        assert!(held.iter().filter(|held| **held == 2).count() > 10, "{held:?}");
    }
}

/// What ends with two pieces at once, of text that both stop string and call could begin with, tells the state with the
/// second, whichever answer's turn it would be.
#[tokio::test]
async fn pieces_of_the_same_tokens_go_together() {
    let server = server().await;
    let form = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["x<"]}}});
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let body = question(&json!({"stream": true, "max_tokens": 3, "n": 2, "response_format": form, "tools": tools,
        "stop": ["x<y"]}));
    let cut = cut_everywhere(&server, CHAT, &body).await;
    assert_eq!([cut.text(0), cut.text(1)], ["\"x<", "\"x<"]);
    let texts = ["x", "<"].map(|text| {
        let data = format!("\"content\":\"{text}\"");
        let told = |moment: &&super::cutting::Moment| moment.data.contains(&data);
        cut.whole.iter().filter(told).map(|moment| moment.state.is_some()).collect::<Vec<_>>()
    });
    assert_eq!(texts, [[false, false], [true, true]]);
}

#[tokio::test]
async fn responses_are_continued_with_their_numbers_items_and_the_whole_text() {
    let server = server().await;
    let picture = json!([{"role": "user", "content": [{"type": "input_image", "image_url": data_url()},
        {"type": "input_text", "text": "What is shown?"}]}]);
    let body = json!({"model": "tiny", "input": "hi", "stream": true, "temperature": 1.2, "max_output_tokens": 24});
    for change in [
        json!({"input": picture, "temperature": 0}),
        json!({"input": picture, "seed": 6}),
        json!({"instructions": "Be brief.", "metadata": {"a": "b"}, "seed": 7}),
        json!({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"enum": ["一只猫🐱 é"]}}}, "seed": 1}),
    ] {
        let cut = cut_everywhere(&server, RESPONSE, &with(&body, &change)).await;
        let numbers: Vec<Value> = cut.whole.iter().map(|moment| serde_json::from_str(&moment.data).unwrap()).collect();
        assert!(numbers.iter().enumerate().all(|(at, event)| event["sequence_number"] == at), "{change}");
        let last = &numbers.last().unwrap()["response"];
        assert_eq!(last["output"][0]["content"][0]["text"], cut.text(0), "{change}");
        assert!(cut.times > 3 && last["usage"]["output_tokens"].as_u64() > Some(2), "{} of {change}", cut.times);
    }
    let limited = json!({"type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}});
    let tools = json!([{"type": "function", "name": "f", "parameters": limited}]);
    let calls = |seed: u64| {
        with(
            &body,
            &json!({"temperature": 1.0, "seed": seed, "max_output_tokens": 300, "tools": tools,
            "tool_choice": "required"}),
        )
    };
    for seed in 0..40 {
        let asked = server.client.post(format!("{}{RESPONSE}", server.base)).json(&calls(seed));
        let text = asked.send().await.unwrap().text().await.unwrap();
        if text.matches("event: response.output_item.added").count() >= 3 {
            let cut = cut_everywhere(&server, RESPONSE, &calls(seed)).await;
            assert!(cut.times >= 3, "{}", cut.times);
            return;
        }
    }
    panic!("no response has three calls");
}

#[tokio::test]
async fn stop_strings_and_forms_are_continued_too() {
    let server = server().await;
    let sampled = json!({"stream": true, "temperature": 1.5, "seed": 5, "max_tokens": 60, "ignore_eos": true});
    let text = cut_everywhere(&server, CHAT, &question(&sampled)).await.text(0);
    let middle: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
    let stopping = with(&question(&sampled), &json!({"stop": [middle]}));
    let cut = cut_everywhere(&server, CHAT, &stopping).await.text(0);
    assert!(!cut.is_empty() && text.starts_with(&cut) && cut.len() < text.len(), "{cut} of {text}");

    let mut form = Vec::new();
    for (name, value) in [("prompt", "What is shown?"), ("stream", "true"), ("max_tokens", "16"), ("seed", "3")] {
        let part = format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        form.extend_from_slice(part.as_bytes());
    }
    form.extend_from_slice(b"--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n");
    form.extend_from_slice(&png());
    form.extend_from_slice(b"\r\n--X--\r\n");
    cut_of(&server, CHAT, "multipart/form-data; boundary=X", &form).await;
}

/// What the sampler knows of the tokens before, and of the answer's form and length, it knows in the middle too.
#[tokio::test]
async fn the_samplers_state_is_continued_with_every_parameter() {
    let server = server().await;
    let schema = json!({"type": "object", "required": ["name", "n"], "additionalProperties": false, "properties": {
        "name": {"type": "string", "maxLength": 12}, "n": {"type": "integer", "minimum": 0, "maximum": 99}}});
    let form = json!({"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}});
    let picture = about_picture(&json!({}))["messages"][0]["content"][0].clone();
    let both = json!([{"role": "user", "content": [picture, {"type": "text", "text": "and"}, picture]}]);
    for change in [
        json!({"presence_penalty": 1.5, "frequency_penalty": 1.0, "repetition_penalty": 1.3, "ignore_eos": true}),
        json!({"logit_bias": {"70": 4.0, "71": 4.0, "72": -100}, "ignore_eos": true}),
        // Each ends at once, but for the least length, and would have to be as long again if that began anew.
        json!({"logit_bias": {"2": 100}, "min_tokens": 20}),
        json!({"logit_bias": {"80": 100, "81": 100}, "stop_token_ids": [80], "min_tokens": 20}),
        json!({"response_format": form, "max_tokens": 120}),
        json!({"logprobs": true, "top_logprobs": 5, "ignore_eos": true}),
        json!({"messages": both, "ignore_eos": true}),
    ] {
        let body = question(&json!({"stream": true, "temperature": 1.2, "seed": 11, "max_tokens": 40}));
        let cut = cut_everywhere(&server, CHAT, &with(&body, &change)).await;
        assert!(cut.times > 5, "{} in {} of {change}", cut.times, cut.text(0));
    }
}

/// Tokens that are told may end within a character, which shows only when it is whole.
#[tokio::test]
async fn a_character_that_was_cut_comes_whole() {
    let server = server().await;
    let schema = json!({"enum": ["一只猫🐱 é"]});
    let form = json!({"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}});
    let body = question(&json!({"stream": true, "temperature": 0, "max_tokens": 60, "response_format": form}));
    let asked = server.post().header("x-vlm-stream-state", "true").json(&body).send().await.unwrap();
    let whole = moments(&asked.text().await.unwrap());
    let text = text_of(whole.iter().map(|moment| moment.data.as_str()), 0);
    assert_eq!(text, "\"一只猫🐱 é\"");
    let told = whole.iter().filter_map(|moment| moment.state.as_ref());
    let tokens: Vec<u32> = told.flat_map(|state| state.tokens.clone()).collect();
    // Each token of this checkpoint is a byte.
    assert!(tokens.len() >= text.len(), "{tokens:?}");
    for cut in 0..text.len() {
        let body = body.to_string();
        let response = post(&server, &head(tokens[..cut].to_vec()), body.as_bytes(), &gateway(), now()).await;
        let rest = moments(&response.text().await.unwrap());
        let shown = (0..=cut).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        assert_eq!(text_of(rest.iter().map(|moment| moment.data.as_str()), 0), text[shown..], "after {cut} bytes");
        assert_eq!(rest.last().unwrap().data, "[DONE]");
    }
}

#[tokio::test]
async fn calls_of_functions_are_counted_on() {
    let server = server().await;
    let limited = json!({"type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": limited}}]);
    let mut most = 0;
    // Whether another call follows is drawn as well.
    for seed in 0..40 {
        let body = question(&json!({"stream": true, "temperature": 1.0, "seed": seed, "max_tokens": 300,
            "tools": tools, "tool_choice": "required"}));
        let text = server.post().json(&body).send().await.unwrap().text().await.unwrap();
        let indexes: Vec<u64> = events(&text)
            .iter()
            .filter_map(|data| serde_json::from_str::<Value>(data).ok())
            .filter(|chunk| chunk.pointer("/choices/0/delta/tool_calls/0/id").is_some())
            .filter_map(|chunk| chunk.pointer("/choices/0/delta/tool_calls/0/index")?.as_u64())
            .collect();
        assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>(), "{text}");
        most = most.max(indexes.len());
        if indexes.len() >= 3 {
            cut_everywhere(&server, CHAT, &body).await;
            return;
        }
    }
    panic!("no answer has three calls, but {most} at most");
}

#[tokio::test]
async fn nobody_but_the_gateway_continues_anything() {
    let server = server().await;
    let body = question(&json!({"stream": true})).to_string();
    let head = head(vec![5, 6]);
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    for (pair, at) in [(&stranger, now()), (&gateway(), now() - 60), (&gateway(), now() + 60)] {
        let (status, refused) = answer(post(&server, &head, body.as_bytes(), pair, at).await).await;
        assert_eq!((status, refused["error"]["code"].as_str()), (401, Some("invalid_signature")), "{refused}");
    }
    let unsigned = server.client.post(format!("{}{PATH}", server.base)).body(body.clone()).send().await.unwrap();
    assert_eq!(unsigned.status(), 401);
    assert_eq!(post(&server, &head, body.as_bytes(), &gateway(), now()).await.status(), 200);
    // Nor anything but a stream, of as many answers as are asked for.
    let whole = question(&json!({})).to_string();
    let text = json!({"model": "tiny", "prompt": "hi"}).to_string();
    let response = json!({"model": "tiny", "input": "hi"}).to_string();
    let two = Head { answers: vec![AnswerState::default(); 2], ..head.clone() };
    for (path, head, body, why) in [
        ("/v1/models", &head, body.as_str(), "an answer of /v1/models cannot be continued"),
        (CHAT, &head, whole.as_str(), "only streams"),
        (TEXT, &head, text.as_str(), "only streams"),
        (RESPONSE, &head, response.as_str(), "only streams"),
        (CHAT, &two, body.as_str(), "2 answers, and the request asks for 1"),
        (CHAT, &head, "{", "not valid JSON"),
    ] {
        let head = Head { path: path.into(), ..(*head).clone() };
        let (status, refused) = answer(post(&server, &head, body.as_bytes(), &gateway(), now()).await).await;
        assert_eq!(status, 400, "{path} {body}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(why), "{path} {body}: {refused}");
    }
    let without = Server::start(&[]).await;
    assert_eq!(post(&without, &head, body.as_bytes(), &gateway(), now()).await.status(), 404);
}

#[tokio::test]
async fn an_answer_that_was_complete_but_for_its_end_is_only_ended() {
    let server = server().await;
    let body = question(&json!({"stream": true, "max_tokens": 3, "ignore_eos": true})).to_string();
    let head = head(vec![5, 6, 7]);
    let text = post(&server, &head, body.as_bytes(), &gateway(), now()).await.text().await.unwrap();
    let events = events(&text);
    assert!(events.iter().any(|event| event.contains("\"finish_reason\":\"length\"")), "{text}");
    assert_eq!(events.last().unwrap(), "[DONE]");
}
