use super::super::app::tests::app;
use super::super::defaults::SamplingDefaults;
use super::super::parse;
use super::*;
use crate::engine::Sampling;
use crate::prompt::PromptRole;

const LIMITS: Limits = Limits { defaults: SamplingDefaults { temperature: 0.0, top_p: 1.0, top_k: 0 }, answers: 5 };

fn check(body: &str) -> Result<Call, ApiError> {
    Call::check(parse::json(body.as_bytes())?, Vec::new(), &app(), LIMITS)
}

fn with(more: &str) -> Result<Call, ApiError> {
    check(&format!(r#"{{"messages": [{{"role": "user", "content": "hi"}}]{more}}}"#))
}

fn param(result: Result<Call, ApiError>) -> String {
    result.unwrap_err().body().error.param.unwrap()
}

#[test]
fn absent_parameters_have_defaults() {
    let call = with("").unwrap();
    assert_eq!(call.model, "tiny");
    assert_eq!(call.generation.answer, None);
    assert_eq!(call.generation.sampling, Sampling::default());
    assert!(call.generation.steering.is_none() && call.generation.logprobs.is_none());
    assert_eq!(call.generation.answers, 1);
    assert!(matches!(call.form, Form::Text) && !call.calls);
    assert!(!call.stream && !call.include_usage && !call.has_images());
    assert_eq!(call.text_bytes(), 2);
}

#[test]
fn the_newer_name_of_the_answer_limit_wins() {
    let call = with(r#", "max_tokens": 5, "max_completion_tokens": 6"#).unwrap();
    assert_eq!(call.generation.answer, Some(AnswerLimit { tokens: 6, param: "max_completion_tokens" }));
}

#[test]
fn what_is_out_of_range_is_named() {
    for (more, expected) in [
        (r#", "temperature": 2.1"#, "temperature"),
        (r#", "temperature": -0.1"#, "temperature"),
        (r#", "temperature": 1e39"#, "temperature"),
        (r#", "top_p": 0"#, "top_p"),
        (r#", "top_p": 1.1"#, "top_p"),
        (r#", "max_tokens": 0"#, "max_tokens"),
        (r#", "max_completion_tokens": 0"#, "max_completion_tokens"),
        (r#", "n": 6"#, "n"),
        (r#", "top_k": -2"#, "top_k"),
        (r#", "top_k": 4294967296"#, "top_k"),
        (r#", "min_p": 1.5"#, "min_p"),
        (r#", "presence_penalty": 2.5"#, "presence_penalty"),
        (r#", "frequency_penalty": -2.5"#, "frequency_penalty"),
        (r#", "repetition_penalty": 0"#, "repetition_penalty"),
        (r#", "logit_bias": {"5": 101}"#, "logit_bias.5"),
        (r#", "logit_bias": {"five": 1}"#, "logit_bias.five"),
        (r#", "logprobs": true, "top_logprobs": 21"#, "top_logprobs"),
        (r#", "top_logprobs": 2"#, "top_logprobs"),
        (r#", "min_tokens": 5, "max_tokens": 4"#, "min_tokens"),
        (r#", "response_format": {"type": "json_schema"}"#, "response_format.json_schema"),
        (
            r#", "response_format": {"type": "json_schema", "json_schema": {"schema": 5}}"#,
            "response_format.json_schema.schema",
        ),
        (r#", "tool_choice": "required""#, "tool_choice"),
        (r#", "tools": [{"type": "function", "function": {"name": "a b"}}]"#, "tools[0].function.name"),
        (r#", "n": 0"#, "n"),
        (r#", "stop": """#, "stop"),
        (r#", "stop": ["a", "b", "c", "d", "e"]"#, "stop"),
        (r#", "model": "other""#, "model"),
    ] {
        assert_eq!(param(with(more)), expected, "{more}");
    }
    assert_eq!(param(check(r#"{"messages": []}"#)), "messages");
}

#[test]
fn pictures_are_counted_and_their_urls_checked() {
    let image = |url: &str| format!(r#"{{"type": "image_url", "image_url": {{"url": "{url}"}}}}"#);
    let body =
        |parts: &[String]| check(&format!(r#"{{"messages": [{{"role": "user", "content": [{}]}}]}}"#, parts.join(",")));
    let good = image("data:image/png;base64,aGk=");
    assert!(body(&[good.clone(), good.clone()]).unwrap().has_images());
    assert_eq!(param(body(&[good.clone(), good.clone(), good.clone()])), "messages");
    let web = image("https://example.com/x.png");
    assert_eq!(param(body(&[good, web])), "messages[0].content[1].image_url");
}

#[test]
fn uploads_go_before_the_last_user_message() {
    let body = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}]}"#;
    let upload = || {
        let picture = Picture::File(Bytes::new());
        Upload { param: "image[0]".into(), picture, detail: TileBudget::default() }
    };
    let request = || parse::json(body.as_bytes()).unwrap();
    let call = |uploads| Call::check(request(), uploads, &app(), LIMITS);
    let turns = call(vec![upload()]).unwrap().turns;
    assert_eq!(turns[0].parts.len(), 1);
    assert!(matches!(turns[2].parts[..], [TurnPart::Image(_), TurnPart::Text(_)]));
    assert_eq!(param(call(vec![upload(), upload(), upload()])), "image");
}

fn texts(call: &Call) -> Vec<(PromptRole, String)> {
    let text = |part: &TurnPart| match part {
        TurnPart::Text(text) => text.clone(),
        TurnPart::Image(_) => "[image]".to_owned(),
    };
    call.turns.iter().map(|turn| (turn.role, turn.parts.iter().map(text).collect::<Vec<_>>().join("|"))).collect()
}

const TOOLS: &str = r#""tools": [{"type": "function", "function": {"name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "go"}}]"#;

#[test]
fn functions_are_told_in_the_instructions_and_calls_and_results_are_text() {
    let call = check(&format!(
        r#"{{"messages": [{{"role": "developer", "content": "Be brief."}}, {{"role": "user", "content": "hi"}},
            {{"role": "assistant", "content": null, "tool_calls": [
                {{"id": "1", "type": "function", "function": {{"name": "look", "arguments": "{{\"at\": 1}}"}}}},
                {{"id": "2", "type": "function", "function": {{"name": "go", "arguments": "no JSON"}}}}]}},
            {{"role": "tool", "tool_call_id": "1", "content": "a dog"}},
            {{"role": "tool", "tool_call_id": "2", "content": [{{"type": "text", "text": "there"}}]}}], {TOOLS}}}"#
    ))
    .unwrap();
    assert!(call.calls && matches!(call.form, Form::Text));
    let texts = texts(&call);
    assert_eq!(texts.len(), 4);
    assert!(texts[0].1.starts_with("Be brief.\n\n# Tools") && texts[0].1.contains("\"name\":\"look\""), "{texts:?}");
    let calls = "<tool_call>\n{\"name\":\"look\",\"arguments\":{\"at\":1}}\n</tool_call>\n<tool_call>\n\
                 {\"name\":\"go\",\"arguments\":\"no JSON\"}\n</tool_call>";
    assert_eq!(texts[2], (PromptRole::Assistant, calls.to_owned()));
    let results = "<tool_response>\na dog\n</tool_response>\n<tool_response>\nthere\n</tool_response>";
    assert_eq!(texts[3], (PromptRole::User, results.to_owned()));
}

#[test]
fn the_choice_of_a_function_decides_the_form() {
    let chosen = |choice: &str| {
        let body =
            format!(r#"{{"messages": [{{"role": "user", "content": "hi"}}], {TOOLS}, "tool_choice": {choice}}}"#);
        check(&body).map(|call| (call.form, call.calls, call.turns.len()))
    };
    assert!(matches!(chosen("\"none\"").unwrap(), (Form::Text, false, 1)));
    assert!(matches!(chosen("\"auto\"").unwrap(), (Form::Text, true, 2)));
    let (form, ..) = chosen("\"required\"").unwrap();
    assert!(matches!(form, Form::Calls { functions, several: true } if functions.len() == 2));
    let (form, ..) = chosen(r#"{"type": "function", "function": {"name": "go"}}"#).unwrap();
    assert!(matches!(form, Form::Calls { functions, several: false } if functions[0].name == "go"));
    assert!(chosen(r#"{"type": "function", "function": {"name": "fly"}}"#).is_err());
    assert!(chosen("\"maybe\"").is_err());
}
