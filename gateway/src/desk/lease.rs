//! What a request holds at the desk: a place among those that wait, or a replica. Either is given up by dropping it.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{Desk, Refusal, Seat};
use crate::{hold::Place, routes::ModelId};

/// When a request gets its replica.
#[derive(Debug)]
pub enum Turn {
    /// At once.
    Now(Lease),
    /// Later.
    Later(Ticket),
}

/// A place among those that wait; given up when dropped.
#[derive(Debug)]
pub struct Ticket {
    pub(super) desk: Arc<Desk>,
    pub(super) model: ModelId,
    pub(super) place: Place,
    pub(super) told: oneshot::Receiver<Result<Lease, Refusal>>,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

impl Ticket {
    /// Waits for a replica.
    ///
    /// # Errors
    /// [`Refusal`] when none comes.
    pub async fn wait(mut self) -> Result<Lease, Refusal> {
        let left = self.until.saturating_sub(self.desk.now());
        let waited = tokio::time::timeout(left, &mut self.told).await;
        let now = self.desk.now();
        if !matches!(waited, Ok(Ok(Err(Refusal::Gone)))) {
            // The series of a model that is gone would come back.
            self.desk.metrics.held(&self.model, now.saturating_sub(self.from));
        }
        match waited {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => Err(Refusal::Gone),
            Err(_) => {
                let state = self.desk.lock();
                let retry_after_seconds = state.lines.get(&self.model).map_or(1, |line| line.retry_after(now));
                Err(Refusal::Waited { seconds: now.saturating_sub(self.from).as_secs(), retry_after_seconds })
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.desk.lock();
        if let Some(line) = state.lines.get_mut(&self.model) {
            line.leave(self.place);
        }
    }
}

/// A replica that a request may use; counted as in flight until dropped.
#[derive(Debug)]
pub struct Lease {
    pub(super) desk: Arc<Desk>,
    pub(super) model: ModelId,
    pub(super) seat: Seat,
    pub(super) answered: bool,
}

impl Lease {
    /// The replica.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Comes to its end when the replica is asked to end; gives the time since when it is.
    pub fn leaves(&self) -> impl Future<Output = Duration> + Send + use<> {
        let (desk, model, pod) = (Arc::clone(&self.desk), self.model.clone(), self.seat.pod.clone());
        let mut left = desk.left.subscribe();
        async move {
            loop {
                if let Some(since) = desk.leaves_since(&model, &pod) {
                    return since;
                }
                // The desk itself holds the sender.
                if left.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// It has answered, so it has room for another request afterwards.
    pub fn answered(&mut self) {
        self.answered = true;
    }

    /// Gives it back, and nothing new to this replica for a while, whatever it has answered.
    pub fn rest(mut self, time: Duration) {
        self.answered = false;
        let mut state = self.desk.lock();
        if let Some(line) = state.lines.get_mut(&self.model) {
            line.block(&self.seat.pod, self.desk.now() + time);
        }
        drop(state);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (pod, answered) = (std::mem::take(&mut self.seat.pod), self.answered);
        self.desk.change(&self.model, |line, now| line.give_back(&pod, answered, now));
    }
}
