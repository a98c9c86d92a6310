//! Answers as server-sent events, with comments where nothing else is sent for long.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use tokio::time::{Instant, Sleep, sleep};
use vlm_contract::continuation::StreamState;
use vlm_contract::headers::STREAM_STATE;

use super::answers::{Answers, Voice};
use super::events::{Event, KEEP_ALIVE};

/// Events that are ready at once go out together until they are so many bytes.
const TOGETHER_BYTES: usize = 16 * 1024;

/// The response of a streamed answer.
pub fn respond(answers: Answers, voice: impl Voice, keep_alive: Duration) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Proxies that buffer would keep the first token from the reader.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let told = answers.told().and_then(|identity| serde_json::to_string(identity).ok());
    let mut response = (headers, Body::from_stream(Spoken::new(answers, voice, keep_alive))).into_response();
    if let Some(value) = told.and_then(|told| HeaderValue::try_from(told).ok()) {
        response.headers_mut().insert(STREAM_STATE, value);
    }
    response
}

/// The bytes of a stream. What is ready when it is asked is given as one block.
struct Spoken<V> {
    /// Until the last event.
    answers: Option<Answers>,
    voice: V,
    begun: bool,
    keep_alive: Duration,
    /// When something was last given. The alarm is not set anew with each token, but when it rings too early.
    given: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<V: Voice> Spoken<V> {
    fn new(answers: Answers, voice: V, keep_alive: Duration) -> Self {
        let (given, alarm) = (Instant::now(), Box::pin(sleep(keep_alive)));
        Self { answers: Some(answers), voice, begun: false, keep_alive, given, alarm }
    }

    /// Appends the events that are ready.
    fn collect(&mut self, context: &mut Context<'_>, out: &mut Vec<u8>) {
        while let Some(answers) = self.answers.as_mut().filter(|_| out.len() < TOGETHER_BYTES) {
            if !self.begun {
                self.begun = true;
                begin(answers, &mut self.voice, out);
                continue;
            }
            let (last, state) = match answers.poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok((index, piece)))) => {
                    tell(answers, index, &self.voice.piece(index, piece), out);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => (self.voice.fail(&error), None),
                Poll::Ready(None) => (self.voice.end(answers.usage()), answers.last_state()),
            };
            self.answers = None;
            write(&last, state.as_ref(), out);
        }
    }

    /// Ready when nothing was given for long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let due = self.given + self.keep_alive;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(due);
        }
    }
}

/// Writes what a stream begins with. What another server has sent is said again, so that the voice is where that was,
/// and not written.
fn begin(answers: &mut Answers, voice: &mut impl Voice, out: &mut Vec<u8>) {
    let events = voice.begin();
    match answers.take_before() {
        None => tell(answers, 0, &events, out),
        Some(before) => before.into_iter().for_each(|(index, piece)| drop(voice.piece(index, piece))),
    }
}

/// Writes events of the answer at `index`. The last carries what continues it once they were sent.
fn tell(answers: &mut Answers, index: usize, events: &[Event], out: &mut Vec<u8>) {
    if !events.is_empty() {
        write(events, answers.state(index).as_ref(), out);
    }
}

/// Writes events, the last with `state`.
fn write(events: &[Event], state: Option<&StreamState>, out: &mut Vec<u8>) {
    let Some((last, others)) = events.split_last() else { return };
    for event in others {
        event.write(None, out);
    }
    last.write(state, out);
}

impl<V: Voice> Stream for Spoken<V> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut block = Vec::new();
        this.collect(context, &mut block);
        if block.is_empty() {
            if this.answers.is_none() {
                return Poll::Ready(None);
            }
            ready!(this.poll_silence(context));
            block = KEEP_ALIVE.to_vec();
            this.alarm.as_mut().reset(Instant::now() + this.keep_alive);
        }
        this.given = Instant::now();
        Poll::Ready(Some(Ok(block.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use futures::StreamExt;
    use tokio::sync::mpsc::UnboundedSender;
    use vlm_contract::continuation::{AnswerState, Identity};
    use vlm_contract::openai::usage::Usage;

    use super::super::answer::{Answer, Begin, Piece};
    use super::super::answers::Whole;
    use super::super::app::tests::app;
    use super::super::continuation::Relay;
    use super::super::events::{done, event};
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::engine::fair::ClientId;
    use crate::engine::{Event as Told, FinishReason, TokenStream};
    use crate::processor::Processor;

    /// Much longer than what a test does at once, even where others keep the processor busy.
    const SILENCE: Duration = Duration::from_millis(600);

    /// Says each text, and so many bytes more.
    struct Plain(usize);

    impl Voice for Plain {
        fn whole(self, _: Vec<Whole>, _: Usage) -> Response {
            ().into_response()
        }

        fn begin(&mut self) -> Vec<Event> {
            vec![event(&"begin")]
        }

        fn piece(&mut self, _: usize, piece: Piece) -> Vec<Event> {
            let Piece::Text { text, .. } = piece else { return Vec::new() };
            vec![event(&(text + &".".repeat(self.0)))]
        }

        fn end(&mut self, _: Usage) -> Vec<Event> {
            vec![done()]
        }
    }

    /// The letter x, as the engine says it.
    struct Letter(u32);

    impl Letter {
        fn say(&self, engine: &UnboundedSender<Told>) {
            engine.send(Told::Token { id: self.0, logprobs: None }).unwrap();
        }
    }

    /// A stream, and what is its engine.
    fn stream(more: usize) -> (UnboundedSender<Told>, Letter, Spoken<Plain>) {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llava15_llama_hub");
        let processor = Processor::open(&Checkpoint::open(&tiny).unwrap()).unwrap();
        let letter = Letter(processor.tokenize("x", false).unwrap().pop().unwrap());
        let (engine, tokens) = TokenStream::told_by_test();
        let app = Arc::new(app());
        let begin = Begin {
            tokens: Some(tokens),
            processor: Arc::new(processor),
            stop: Vec::new(),
            min_tokens: 0,
            calls: false,
            prompt_tokens: 1,
            before: AnswerState::default(),
            arrived: std::time::Instant::now(),
            place: Arc::new(app.admission.try_enter(ClientId::default()).unwrap()),
            id: String::new(),
        };
        let answers = vec![Answer::new(app, begin)];
        let answers = Answers::new(answers, 1, Identity::default(), &Relay::default());
        (engine, letter, Spoken::new(answers, Plain(more), SILENCE))
    }

    async fn block(spoken: &mut Spoken<Plain>) -> Option<String> {
        let Ok(bytes) = spoken.next().await?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_is_ready_at_once_goes_out_as_one_block() {
        let (engine, letter, mut spoken) = stream(0);
        letter.say(&engine);
        letter.say(&engine);
        assert_eq!(block(&mut spoken).await.unwrap(), "data: \"begin\"\n\ndata: \"x\"\n\ndata: \"x\"\n\n");
        letter.say(&engine);
        engine.send(Told::Finished(FinishReason::Length)).unwrap();
        assert_eq!(block(&mut spoken).await.unwrap(), "data: \"x\"\n\ndata: [DONE]\n\n");
        assert_eq!(block(&mut spoken).await, None);
    }

    #[tokio::test]
    async fn a_block_ends_with_the_event_that_fills_it() {
        let (engine, letter, mut spoken) = stream(5000);
        (0..8).for_each(|_| letter.say(&engine));
        engine.send(Told::Finished(FinishReason::Length)).unwrap();
        let mut events = Vec::new();
        while let Some(block) = block(&mut spoken).await {
            events.push(block.matches("data: ").count());
        }
        // The beginning and four, then four, and the end.
        assert_eq!(events, [5, 4, 1]);
    }

    /// None of this depends on how long anything takes: each comment is timed from before what puts it off.
    #[tokio::test]
    async fn comments_come_after_silence_and_not_while_text_does() {
        let (engine, letter, mut spoken) = stream(0);
        assert_eq!(block(&mut spoken).await.unwrap(), "data: \"begin\"\n\n");
        let mut given = Instant::now();
        // All in all this takes longer than silence may.
        for _ in 0..3 {
            tokio::time::sleep(SILENCE / 2).await;
            letter.say(&engine);
            given = Instant::now();
            assert_eq!(block(&mut spoken).await.unwrap(), "data: \"x\"\n\n");
        }
        for silences in 1..=2 {
            assert_eq!(block(&mut spoken).await.unwrap().as_bytes(), KEEP_ALIVE);
            assert!(given.elapsed() >= silences * SILENCE, "{:?} to comment {silences}", given.elapsed());
        }
        letter.say(&engine);
        engine.send(Told::Finished(FinishReason::Stop)).unwrap();
        assert_eq!(block(&mut spoken).await.unwrap(), "data: \"x\"\n\ndata: [DONE]\n\n");
    }
}
