//! The body of an answer that can go on at another replica, from its first event to its last. Whoever leaves first ends
//! it for both.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use vlm_contract::continuation::Identity;

use super::{
    MOST_BARREN, MOST_MOVES, MOVE_AGAIN, MOVED_AFTER, PROGRESS_TOKENS,
    ask::{Asked, ask},
    reader::{GivenUp, Reader},
};
use crate::{
    app::App,
    bodies::Kept,
    desk::{Asking, Lease, Refusal, Turn},
    error::GatewayError,
    hold::Place,
    metrics::Moved,
    proxy::{
        attempt::Begun,
        retry::{History, REPLICA_REST, Step},
    },
    request::affinity::Affinity,
    routes::Route,
    sse::{self, Splitter},
};

/// A request whose answer has begun.
pub(crate) struct Source {
    pub app: Arc<App>,
    pub route: Arc<Route>,
    pub path: String,
    /// As the first replica got them.
    pub headers: HeaderMap,
    /// Where there was room to keep it; else the answer cannot go on elsewhere.
    pub body: Option<Kept>,
    pub place: Place,
    pub affinity: Option<Affinity>,
}

impl Source {
    pub(super) fn content_type(&self) -> &str {
        self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
    }

    fn asking(&self, tried: &[String]) -> Asking {
        Asking {
            model: self.route.id.clone(),
            place: self.place,
            bytes: self.body.as_ref().map_or(0, |body| body.bytes().len() as u64),
            affinity: self.affinity,
            tried: tried.to_vec(),
        }
    }
}

/// Passes an answer on, and gives its replica back at its end.
/// `identity` is what its replica said of it.
pub(crate) fn follow(begun: Begun, lease: Lease, source: Source, identity: Option<Identity>) -> Body {
    let mut flow = Flow::new(Replica::new(begun, lease, &source), source, Reader::new(identity));
    let heartbeat = flow.source.app.heartbeat;
    Body::from_stream(async_stream::stream! {
        loop {
            let broke = match flow.next().await {
                Next::Piece(piece) => {
                    yield Ok::<_, Infallible>(piece);
                    continue;
                }
                Next::Over => return,
                Next::Broke(broke) => broke,
            };
            let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let gone_on = {
                let mut going_on = Box::pin(flow.go_on(broke.why));
                loop {
                    let gone_on = tokio::select! {
                        gone_on = &mut going_on => Some(gone_on),
                        _ = beats.tick() => None,
                    };
                    match gone_on {
                        Some(gone_on) => break gone_on,
                        None => yield Ok(sse::comment("the replica broke off; the answer goes on as soon as another one is free")),
                    }
                }
            };
            if let Err(error) = gone_on {
                yield Ok(flow.last_words(broke.event, &error));
                return;
            }
        }
    })
}

/// A replica that answers.
pub(super) struct Replica {
    lease: Lease,
    answer: Answer,
    /// Over when the stream is to be moved, because the replica's own end is near.
    due: BoxFuture<'static, ()>,
}

/// What comes of its connection.
struct Answer {
    begun: Begun,
    splitter: Splitter,
    /// Time for its next piece.
    silence: Duration,
}

enum Got {
    Events(Bytes),
    Broke(Moved),
    /// The connection has ended in order, with the half of an event where there is one.
    Ended(Option<Bytes>),
}

impl Replica {
    pub(super) fn new(begun: Begun, lease: Lease, source: &Source) -> Self {
        let (leaves, desk) = (lease.leaves(), Arc::clone(&source.app.desk));
        let patience = source.route.drain.mul_f64(MOVED_AFTER);
        let due = async move {
            let since = leaves.await;
            sleep((since + patience).saturating_sub(desk.now())).await;
        };
        let answer = Answer { begun, splitter: Splitter::default(), silence: source.app.silence };
        Self { lease, answer, due: Box::pin(due) }
    }
}

impl Answer {
    /// The next whole events. Nothing is lost when this is dropped before its end.
    async fn read(&mut self) -> Got {
        loop {
            let Ok(piece) = timeout(self.silence, self.begun.next()).await else { return Got::Broke(Moved::Silent) };
            match piece {
                Some(Ok(bytes)) => {
                    if let Some(events) = self.splitter.push(bytes) {
                        return Got::Events(events);
                    }
                }
                Some(Err(_)) => return Got::Broke(Moved::BrokeOff),
                None => return Got::Ended(std::mem::take(&mut self.splitter).rest()),
            }
        }
    }
}

/// What comes next for the client.
enum Next {
    Piece(Bytes),
    Over,
    Broke(Broke),
}

/// How a replica broke off.
struct Broke {
    why: Moved,
    /// Its last words.
    event: Option<Bytes>,
}

struct Flow {
    source: Source,
    reader: Reader,
    /// For the client.
    out: VecDeque<Bytes>,
    replica: Option<Replica>,
    broke: Option<Broke>,
    moves: u32,
    /// Breaks in a row without progress, and the tokens at the last.
    barren: u32,
    tokens: usize,
}

impl Flow {
    fn new(replica: Replica, source: Source, reader: Reader) -> Self {
        let (out, replica) = (VecDeque::new(), Some(replica));
        Self { source, reader, out, replica, broke: None, moves: 0, barren: 0, tokens: 0 }
    }

    async fn next(&mut self) -> Next {
        loop {
            if let Some(piece) = self.out.pop_front() {
                return Next::Piece(piece);
            }
            if let Some(broke) = self.broke.take() {
                return Next::Broke(broke);
            }
            let Some(replica) = self.replica.as_mut().filter(|_| !self.reader.is_done()) else { return Next::Over };
            let got = tokio::select! {
                biased;
                got = replica.answer.read() => Some(got),
                () = &mut replica.due => None,
            };
            match got {
                Some(got) => self.take(got),
                None => self.move_early().await,
            }
        }
    }

    fn take(&mut self, got: Got) {
        match got {
            Got::Events(events) => {
                if let Err(GivenUp { event, why }) = self.reader.push(&events, &mut self.out) {
                    self.broke = Some(Broke { why, event: Some(event) });
                }
            }
            Got::Broke(why) => self.broke = Some(Broke { why, event: None }),
            Got::Ended(_) if self.reader.can_continue() => {
                self.broke = Some(Broke { why: Moved::BrokeOff, event: None });
            }
            Got::Ended(rest) => {
                self.out.extend(rest);
                self.replica = None;
            }
        }
    }

    /// Gets a replica that goes on.
    ///
    /// # Errors
    /// What the client is told when there is none, or the answer cannot be continued.
    async fn go_on(&mut self, why: Moved) -> Result<(), GatewayError> {
        let gone_on = self.go_on_elsewhere().await;
        self.source.app.metrics.moved(why, gone_on.is_ok());
        gone_on
    }

    async fn go_on_elsewhere(&mut self) -> Result<(), GatewayError> {
        let Some(Replica { lease, .. }) = self.replica.take() else { return Err(GatewayError::AnswerBroken) };
        let pod = lease.seat().pod.clone();
        lease.rest(REPLICA_REST);
        let source = &self.source;
        let head = self.reader.head(&source.path, source.content_type()).filter(|_| source.body.is_some());
        let head = head.ok_or(GatewayError::AnswerBroken)?;
        let tokens = self.reader.tokens();
        self.barren = if tokens < self.tokens + PROGRESS_TOKENS { self.barren + 1 } else { 0 };
        self.tokens = tokens;
        if self.barren >= MOST_BARREN || self.moves >= MOST_MOVES {
            return Err(GatewayError::NotContinued("it breaks off wherever it is computed; retrying may not help"));
        }
        let (desk, from) = (&source.app.desk, source.app.desk.now());
        let mut history = History::after(&pod);
        loop {
            let lease = match desk
                .ask_from(source.asking(history.tried()), true, from)
                .map_err(|refusal| not_continued(&refusal))?
            {
                Turn::Now(lease) => lease,
                Turn::Later(ticket) => ticket.wait().await.map_err(|refusal| not_continued(&refusal))?,
            };
            let seat = lease.seat().clone();
            match ask(source, &head, lease).await {
                Asked::Answers(replica) => {
                    self.begin_again(replica);
                    return Ok(());
                }
                Asked::Refused => {
                    return Err(GatewayError::NotContinued("another one refused to go on with it; retry"));
                }
                Asked::Failed(kind, lease) => {
                    let spent = desk.now().saturating_sub(from) >= source.route.bounds.wait;
                    match history.step(&seat.pod, &kind, spent) {
                        Step::Again { rest } => lease.rest(rest),
                        Step::PassOn => {
                            return Err(GatewayError::NotContinued("no other could go on with it; retry"));
                        }
                    }
                }
            }
        }
    }

    /// Moves the stream off a replica whose end is near, if another one has room; else it stays for the time being.
    async fn move_early(&mut self) {
        if self.try_to_move().await.is_none()
            && let Some(replica) = &mut self.replica
        {
            replica.due = Box::pin(sleep(MOVE_AGAIN));
        }
    }

    async fn try_to_move(&mut self) -> Option<()> {
        let source = &self.source;
        source.body.as_ref()?;
        let head = self.reader.head(&source.path, source.content_type())?;
        if self.reader.is_ending() || self.moves >= MOST_MOVES {
            return None;
        }
        let pod = self.replica.as_ref()?.lease.seat().pod.clone();
        let lease = source.app.desk.seat_at_once(&source.asking(&[pod]))?;
        match ask(source, &head, lease).await {
            Asked::Answers(replica) => {
                source.app.metrics.moved(Moved::Early, true);
                self.begin_again(replica);
                Some(())
            }
            Asked::Refused => None,
            Asked::Failed(_, lease) => {
                lease.rest(REPLICA_REST);
                None
            }
        }
    }

    fn begin_again(&mut self, replica: Replica) {
        tracing::debug!(
            model = %self.source.route.id,
            pod = replica.lease.seat().pod,
            tokens = self.reader.tokens(),
            "a stream goes on elsewhere"
        );
        self.reader.restart();
        self.moves += 1;
        self.replica = Some(replica);
    }

    /// The last event of an answer that nobody continues: the replica's own words where it had any and no other was
    /// asked.
    fn last_words(&self, event: Option<Bytes>, error: &GatewayError) -> Bytes {
        self.source.app.metrics.answer_broken();
        event.filter(|_| *error == GatewayError::AnswerBroken).unwrap_or_else(|| sse::event(&error.body()))
    }
}

fn not_continued(refusal: &Refusal) -> GatewayError {
    GatewayError::NotContinued(match refusal {
        Refusal::QueueFull { .. } | Refusal::Waited { .. } => "no other was free in time; retry",
        Refusal::SwitchedOff => "the model was switched off; retrying does not help",
        Refusal::CannotStart { .. } => "the model cannot start any more; retrying does not help until that is mended",
        Refusal::Gone => "the model was deleted; retrying does not help",
    })
}
