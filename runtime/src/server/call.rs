//! A request whose every value is in its range: what the rest of the server works with.

use std::path::PathBuf;

use bytes::Bytes;
use vlm_contract::openai::chat::{ChatRequest, Content, Detail, Message, Part, Role, Stop};

use super::app::App;
use super::defaults::SamplingDefaults;
use super::error::ApiError;
use super::sources::Sources;
use crate::engine::Sampling;
use crate::image::TileBudget;
use crate::prompt::PromptRole;

/// Stop strings in one request, as many as `OpenAI` allows.
const MOST_STOPS: usize = 4;

/// A picture as it arrived.
#[derive(Clone, Debug)]
pub enum Picture {
    /// A `data:` URL.
    DataUrl(String),
    /// A file of a form.
    File(Bytes),
    /// On another server.
    Web(reqwest::Url),
    /// On this machine.
    Path(PathBuf),
}

/// A picture of a form.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its field, for errors.
    pub param: String,
    /// The picture.
    pub picture: Picture,
    /// How much of it is looked at.
    pub detail: TileBudget,
}

/// One piece of a message.
#[derive(Clone, Debug)]
pub enum TurnPart {
    /// Text.
    Text(String),
    /// A picture.
    Image(Upload),
}

/// One message.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Who speaks.
    pub role: PromptRole,
    /// What, in order.
    pub parts: Vec<TurnPart>,
}

/// The longest answer that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimit {
    /// Tokens; at least 1.
    pub tokens: usize,
    /// The field that said so.
    pub param: &'static str,
}

/// A checked request.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name under which it is answered.
    pub model: String,
    /// The conversation; at least one message.
    pub turns: Vec<Turn>,
    /// Answer in events.
    pub stream: bool,
    /// Send the usage at the end of the stream.
    pub include_usage: bool,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The longest answer; absent means what the context holds.
    pub answer: Option<AnswerLimit>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Go on past the end-of-text token.
    pub ignore_eos: bool,
}

impl Call {
    /// Checks every value of `request`; `uploads` go before the text of the last user message.
    pub fn check(
        request: ChatRequest,
        uploads: Vec<Upload>,
        app: &App,
        defaults: SamplingDefaults,
    ) -> Result<Self, ApiError> {
        let model = app.resolve(request.model.as_deref())?;
        if let Some(n) = request.n.filter(|n| *n != 1) {
            let message = format!("n: {n} answers were asked for, and one is given; send 1 or leave n out");
            return Err(ApiError::field("n", message));
        }
        let sampling = sampling(&request, defaults)?;
        let answer = answer_limit(&request)?;
        let turns = turns(request.messages, uploads, app)?;
        Ok(Self {
            model,
            turns,
            stream: request.stream.unwrap_or(false),
            include_usage: request.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
            sampling,
            answer,
            stop: stops(request.stop)?,
            ignore_eos: request.ignore_eos.unwrap_or(false),
        })
    }

    /// Whether any picture has to be decoded.
    pub fn has_images(&self) -> bool {
        let mut parts = self.turns.iter().flat_map(|turn| &turn.parts);
        parts.any(|part| matches!(part, TurnPart::Image(_)))
    }

    /// Bytes of text in all messages.
    pub fn text_bytes(&self) -> usize {
        let parts = self.turns.iter().flat_map(|turn| &turn.parts);
        parts.map(|part| if let TurnPart::Text(text) = part { text.len() } else { 0 }).sum()
    }
}

fn sampling(request: &ChatRequest, defaults: SamplingDefaults) -> Result<Sampling, ApiError> {
    let temperature = request.temperature.unwrap_or(defaults.temperature);
    if !(0.0..=2.0).contains(&temperature) {
        let message = format!("temperature: {temperature} is out of range; send 0 to 2");
        return Err(ApiError::field("temperature", message));
    }
    let top_p = request.top_p.unwrap_or(defaults.top_p);
    if !(top_p > 0.0 && top_p <= 1.0) {
        let message = format!("top_p: {top_p} is out of range; send more than 0 and at most 1");
        return Err(ApiError::field("top_p", message));
    }
    Ok(Sampling { temperature, top_p, seed: request.seed.map(i64::cast_unsigned) })
}

fn answer_limit(request: &ChatRequest) -> Result<Option<AnswerLimit>, ApiError> {
    let given = request
        .max_completion_tokens
        .map(|tokens| (tokens, "max_completion_tokens"))
        .or(request.max_tokens.map(|tokens| (tokens, "max_tokens")));
    match given {
        Some((0, param)) => Err(ApiError::field(param, format!("{param}: 0 is out of range; send at least 1"))),
        given => Ok(given.map(|(tokens, param)| AnswerLimit { tokens: tokens as usize, param })),
    }
}

fn stops(stop: Option<Stop>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    if stops.len() > MOST_STOPS {
        let message = format!("stop: {} strings were sent; send at most {MOST_STOPS}", stops.len());
        return Err(ApiError::field("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "stop: an empty string ends nothing; leave it out"));
    }
    Ok(stops)
}

fn turns(messages: Vec<Message>, uploads: Vec<Upload>, app: &App) -> Result<Vec<Turn>, ApiError> {
    let most_images = app.limits.images;
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages: empty; send at least one message"));
    }
    let many = |param: &str, count: usize| {
        let message = format!(
            "{param}: {count} images were sent; at most {most_images} are allowed in one request, \
             so send fewer"
        );
        ApiError::field(param, message)
    };
    if uploads.len() > most_images {
        return Err(many("image", uploads.len()));
    }
    let mut images = uploads.len();
    let mut turns = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let turn = turn(index, message, &app.sources)?;
        images += turn.parts.iter().filter(|part| matches!(part, TurnPart::Image(_))).count();
        turns.push(turn);
    }
    if images > most_images {
        return Err(many("messages", images));
    }
    if !uploads.is_empty() {
        let last = turns.iter_mut().rev().find(|turn| turn.role == PromptRole::User);
        let Some(last) = last else {
            let message = "messages: no user message to which the images could belong; send one";
            return Err(ApiError::field("messages", message));
        };
        last.parts.splice(0..0, uploads.into_iter().map(TurnPart::Image));
    }
    Ok(turns)
}

fn turn(index: usize, message: Message, sources: &Sources) -> Result<Turn, ApiError> {
    let role = match message.role {
        Role::System | Role::Developer => PromptRole::System,
        Role::User => PromptRole::User,
        Role::Assistant => PromptRole::Assistant,
    };
    let parts = match message.content {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![TurnPart::Text(text)],
        Some(Content::Parts(parts)) => parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| match part {
                Part::Text { text } => Ok(TurnPart::Text(text)),
                Part::ImageUrl { image_url } => {
                    let param = format!("messages[{index}].content[{at}].image_url");
                    let detail = TileBudget(matches!(image_url.detail, Some(Detail::Low)).then_some(1));
                    let picture = sources.picture(image_url.url, &param)?;
                    Ok(TurnPart::Image(Upload { param, picture, detail }))
                }
            })
            .collect::<Result<_, ApiError>>()?,
    };
    Ok(Turn { role, parts })
}

#[cfg(test)]
mod tests {
    use super::super::app::tests::app;
    use super::super::parse;
    use super::*;

    fn check(body: &str) -> Result<Call, ApiError> {
        Call::check(parse::json(body.as_bytes())?, Vec::new(), &app(), SamplingDefaults::default())
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
        assert_eq!(call.answer, None);
        assert_eq!(call.sampling, Sampling { temperature: 0.0, top_p: 1.0, seed: None });
        assert!(!call.stream && !call.include_usage && !call.has_images());
        assert_eq!(call.text_bytes(), 2);
    }

    #[test]
    fn the_newer_name_of_the_answer_limit_wins() {
        let call = with(r#", "max_tokens": 5, "max_completion_tokens": 6"#).unwrap();
        assert_eq!(call.answer, Some(AnswerLimit { tokens: 6, param: "max_completion_tokens" }));
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
            (r#", "n": 2"#, "n"),
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
        let body = |parts: &[String]| {
            check(&format!(r#"{{"messages": [{{"role": "user", "content": [{}]}}]}}"#, parts.join(",")))
        };
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
        let call = |uploads| Call::check(request(), uploads, &app(), SamplingDefaults::default());
        let turns = call(vec![upload()]).unwrap().turns;
        assert_eq!(turns[0].parts.len(), 1);
        assert!(matches!(turns[2].parts[..], [TurnPart::Image(_), TurnPart::Text(_)]));
        assert_eq!(param(call(vec![upload(), upload(), upload()])), "image");
    }
}
