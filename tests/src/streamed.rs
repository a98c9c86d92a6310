//! The streams that tests keep open: what is asked for, on every route and of several answers, and whether what came is
//! whole.

use serde_json::{Value, json};

/// Questions whose answers differ.
const QUESTIONS: [&str; 4] = ["What is drawn here?", "Count to ten.", "Name a colour.", "Describe the sea."];

/// A route, and how many answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Chat(usize),
    Text(usize),
    Response,
}

/// What one stream asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    route: Route,
    question: &'static str,
    /// Tokens of each answer.
    tokens: u32,
}

impl Asked {
    /// How many there are.
    pub const KINDS: usize = 8;

    /// One of them. Half are chats of one answer.
    pub fn kind(number: usize, tokens: u32) -> Self {
        let question = QUESTIONS[number % QUESTIONS.len()];
        let route = match number % Self::KINDS {
            4 => Route::Chat(2),
            5 => Route::Text(1),
            6 => Route::Text(2),
            7 => Route::Response,
            _ => Route::Chat(1),
        };
        Self { route, question, tokens }
    }

    /// The path that it goes to.
    pub fn path(self) -> &'static str {
        match self.route {
            Route::Chat(_) => "/v1/chat/completions",
            Route::Text(_) => "/v1/completions",
            Route::Response => "/v1/responses",
        }
    }

    /// The request's body.
    pub fn body(self, model: &str) -> Value {
        let (question, tokens) = (self.question, self.tokens);
        let mut body = json!({"model": model, "temperature": 0, "stream": true});
        let more = match self.route {
            Route::Chat(n) => json!({"messages": [{"role": "user", "content": question}], "n": n, "max_tokens": tokens,
                                     "ignore_eos": true, "stream_options": {"include_usage": true}}),
            Route::Text(n) => json!({"prompt": question, "n": n, "max_tokens": tokens, "ignore_eos": true,
                                     "stream_options": {"include_usage": true}}),
            // A form that takes more tokens than there may be: nothing else keeps an answer of this route from its end.
            Route::Response => {
                let schema = json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9},
                                    "minItems": tokens});
                json!({"input": question, "max_output_tokens": tokens,
                       "text": {"format": {"type": "json_schema", "name": "numbers", "schema": schema}}})
            }
        };
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    }

    /// The texts in what came, if it is whole: one id, one end of each answer and of the stream, and as many tokens as
    /// were asked for.
    pub fn whole(self, raw: &str) -> Option<String> {
        if raw.contains("vlm-state") {
            return None;
        }
        let data: Vec<_> = raw.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        match self.route {
            Route::Chat(answers) | Route::Text(answers) => self.whole_chunks(&data, answers),
            Route::Response => self.whole_response(&data),
        }
    }

    fn whole_chunks(self, data: &[&str], answers: usize) -> Option<String> {
        let (last, chunks) = data.split_last()?;
        let chunks: Vec<Value> = parsed(chunks)?;
        let same = |field: &str| chunks.iter().all(|chunk| chunk[field] == chunks[0][field] && !chunk[field].is_null());
        let used: Vec<&Value> = chunks.iter().map(|chunk| &chunk["usage"]).filter(|usage| !usage.is_null()).collect();
        let used_all = used.len() == 1 && used[0]["completion_tokens"] == self.tokens as usize * answers;
        let mut text = String::new();
        for index in 0..answers {
            let of: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]).filter(|c| c["index"] == index).collect();
            let ends = of.iter().filter(|choice| choice["finish_reason"].is_string()).count();
            let begins = of.iter().filter(|choice| choice["delta"]["role"].is_string()).count();
            if (begins, ends) != (usize::from(matches!(self.route, Route::Chat(_))), 1) {
                return None;
            }
            let said =
                |choice: &&Value| choice["delta"]["content"].as_str().or(choice["text"].as_str()).map(str::to_owned);
            text.extend(of.iter().filter_map(said));
            text.push('\n');
        }
        (*last == "[DONE]" && same("id") && same("created") && same("model") && used_all).then_some(text)
    }

    fn whole_response(self, data: &[&str]) -> Option<String> {
        let events = parsed(data)?;
        let numbered = events.iter().enumerate().all(|(at, event)| event["sequence_number"] == at);
        let response = &events.last()?["response"];
        let same = |field: &str| response[field] == events[0]["response"][field] && !response[field].is_null();
        let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
        let item = &response["output"][0];
        let (mut text, mut sound) = (String::new(), numbered && same("id") && same("created_at") && same("model"));
        for delta in deltas {
            sound &= delta["item_id"] == item["id"];
            text += delta["delta"].as_str()?;
        }
        let used = response["usage"]["output_tokens"] == self.tokens;
        (sound && used && response["status"] == "incomplete" && item["content"][0]["text"] == text).then_some(text)
    }
}

fn parsed(data: &[&str]) -> Option<Vec<Value>> {
    data.iter().map(|data| serde_json::from_str(data).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a sound stream of two tokens an answer.
    fn sound(asked: Asked) -> Vec<String> {
        let chunk = |index: Option<usize>, delta: Value, text: &str, reason: Option<&str>| {
            let choice = json!({"index": index, "delta": delta, "text": text, "finish_reason": reason});
            let choices: Vec<Value> = index.map(|_| choice).into_iter().collect();
            let usage = index.is_none().then(|| json!({"completion_tokens": 4}));
            json!({"id": "x", "created": 7, "model": "m", "choices": choices, "usage": usage})
        };
        let said = |index, text: &str| match asked.route {
            Route::Chat(_) => chunk(Some(index), json!({"content": text}), "", None),
            _ => chunk(Some(index), Value::Null, text, None),
        };
        let mut events = Vec::new();
        if asked.route == Route::Response {
            let response = |status: &str, text: &str| {
                json!({"id": "x", "created_at": 7, "model": "m", "status": status, "usage": {"output_tokens": 2},
                       "output": [{"id": "i", "content": [{"text": text}]}]})
            };
            let delta = |text| json!({"type": "response.output_text.delta", "item_id": "i", "delta": text});
            events.push(json!({"response": response("in_progress", "")}));
            events.extend([delta("a"), delta("b"), json!({"response": response("incomplete", "ab")})]);
            for (number, event) in events.iter_mut().enumerate() {
                event["sequence_number"] = json!(number);
            }
        } else {
            if matches!(asked.route, Route::Chat(_)) {
                events.extend([0, 1].map(|index| chunk(Some(index), json!({"role": "assistant"}), "", None)));
            }
            events.extend([said(0, "a"), said(1, "c"), said(0, "b"), said(1, "d")]);
            events.extend([0, 1].map(|index| chunk(Some(index), json!({}), "", Some("length"))));
            events.push(chunk(None, Value::Null, "", None));
            events.push(json!("[DONE]"));
        }
        let data = |event: Value| event.as_str().map_or_else(|| event.to_string(), str::to_owned);
        events.into_iter().map(|event| format!("data: {}\n\n", data(event))).collect()
    }

    #[test]
    fn a_stream_with_an_event_too_many_or_too_few_is_another_one() {
        for route in [Route::Chat(2), Route::Text(2), Route::Response] {
            let asked = Asked { route, question: "", tokens: 2 };
            let events = sound(asked);
            let whole = asked.whole(&events.concat());
            assert!(whole.as_ref().is_some_and(|text| text.contains("ab")), "{route:?}: {whole:?}");
            for at in 0..events.len() {
                let (mut lacking, mut doubled) = (events.clone(), events.clone());
                lacking.remove(at);
                doubled.insert(at, events[at].clone());
                for wrong in [lacking, doubled] {
                    assert_ne!(asked.whole(&wrong.concat()), whole, "{route:?}, event {at}: {wrong:?}");
                }
            }
            assert_eq!(asked.whole(&(events.concat() + ": vlm-state {}\n\n")), None);
        }
    }
}
