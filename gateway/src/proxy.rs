//! One request from its first byte to its answer's last: read the body, find the model, get a replica, ask it, and
//! pass the answer on. Before the answer's first byte a failed attempt is made again elsewhere.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};

use crate::{
    app::App,
    bodies::Held,
    desk::{Asking, Turn},
    error::{GatewayError, excerpt},
    hold::Place,
    migrate,
    request::{Peek, peek},
    routes::Route,
    server::surround::RequestId,
};

pub(crate) mod attempt;
pub mod client;
pub(crate) mod flow;
mod headers;
mod held;
mod record;
pub(crate) mod retry;
pub mod upstream;

use client::Peer;
use record::Record;
use retry::{History, Step};

/// The handler of every route that a model answers.
pub async fn forward(State(app): State<Arc<App>>, Extension(id): Extension<RequestId>, request: Request) -> Response {
    let mut record = Record::new(app.metrics.clone(), id.clone(), request.uri().path());
    record.on(request.extensions().get());
    let (response, route) = match read(&app, &id, request).await {
        Ok(job) => {
            let route = Arc::clone(&job.route);
            record.of(&route.id, job.body.bytes.len());
            app.metrics.arrived(&route.id);
            let response = if job.peek.stream { held::respond(job).await } else { job.obtain().await };
            (response, Some(route))
        }
        Err(error) => (Err(error), None),
    };
    let response = match (response, route) {
        (Ok(response), _) => response,
        (Err(error), Some(route)) => {
            app.note_refused(&route.id, &error);
            error.into_response()
        }
        (Err(error), None) => app.invalid(error),
    };
    record.follow(response)
}

/// Reads the body and finds the model.
async fn read(app: &Arc<App>, id: &RequestId, request: Request) -> Result<Job, GatewayError> {
    if app.life.refuses() {
        return Err(GatewayError::Draining);
    }
    let (parts, body) = request.into_parts();
    let held = app.bodies.read(&parts.headers, body).await?;
    let peek = peek(&parts.headers, &held.bytes).await?;
    let catalogue = app.routes.catalogue();
    let route = match &peek.model {
        Some(name) => catalogue.find(name).ok_or_else(|| GatewayError::ModelNotFound { asked: excerpt(name) })?,
        None => catalogue.only().ok_or(GatewayError::ModelMissing)?,
    };
    let mut headers = headers::to_replica(&parts.headers, id, parts.extensions.get::<Peer>().copied());
    migrate::ask_for_state(app, route, &peek, &mut headers);
    Ok(Job {
        route: Arc::clone(route),
        path: parts.uri.path().to_owned(),
        headers,
        body: held,
        place: app.desk.place(),
        app: Arc::clone(app),
        peek,
    })
}

/// A request that is known as far as the gateway needs to know it.
struct Job {
    app: Arc<App>,
    route: Arc<Route>,
    /// One of our own routes.
    path: String,
    headers: HeaderMap,
    /// Until the answer begins.
    body: Held,
    place: Place,
    peek: Peek,
}

impl Job {
    /// What lets its answer go on elsewhere.
    fn source(&self) -> migrate::Source {
        migrate::Source {
            app: Arc::clone(&self.app),
            route: Arc::clone(&self.route),
            path: self.path.clone(),
            headers: self.headers.clone(),
            body: self.app.bodies.keep(&self.body),
            place: self.place,
            affinity: self.peek.affinity,
        }
    }

    /// Gets a replica and asks it, again and again until an answer begins.
    ///
    /// # Errors
    /// [`GatewayError`] when no replica can be had, or too many attempts failed.
    async fn obtain(self) -> Result<Response, GatewayError> {
        let mut history = History::default();
        loop {
            let asking = Asking {
                model: self.route.id.clone(),
                place: self.place,
                bytes: self.body.bytes.len() as u64,
                affinity: self.peek.affinity,
                tried: history.tried().to_vec(),
            };
            let lease = match self.app.desk.ask(asking, history.has_tried())? {
                Turn::Now(lease) => lease,
                Turn::Later(ticket) => ticket.wait().await?,
            };
            let seat = lease.seat().clone();
            let failure = match attempt::ask(&self, lease).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            self.app.metrics.attempt_failed(failure.reason());
            let waited = self.app.desk.now().saturating_sub(self.place.0);
            let spent = waited >= self.route.bounds.wait;
            tracing::debug!(model = %self.route.id, pod = seat.pod, reason = failure.reason(), "an attempt failed");
            match history.step(&seat.pod, &failure.kind, spent) {
                Step::Again { rest } => failure.lease.rest(rest),
                Step::PassOn => return failure.pass_on(&self, history.attempts()),
            }
        }
    }
}
