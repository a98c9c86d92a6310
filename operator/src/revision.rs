//! Which commit a model's revision is: asked of the hub once for a URI and revision, and kept in the status, so that
//! a model never moves by itself. Asking happens beside the reconcile, which an answer wakes. Effects: reads the hub.
//!
//! Of a model with a token nothing is asked: the operator may not read Secrets, and the pod resolves the revision
//! when it fetches.

use std::{
    collections::{HashMap, VecDeque},
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vlm_contract::uri::{ModelUri, Repository, is_commit};
use vlm_crds::{VisionModel, status::VisionModelStatus};
use vlm_hub::Hub;

use crate::{autoscaler::Wake, status::Problem};

/// Questions to the hub at the same time.
const AT_ONCE: usize = 16;
/// How long a failed answer stands before the hub is asked again.
pub const RETRY: Duration = Duration::from_secs(20);

/// What is known of the revision of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// There is nothing to ask: the weights are on a claim, or their pod asks with its token.
    Unasked,
    /// The commit, and the URI and revision that it was asked for.
    Commit(Resolved),
    /// The hub is being asked; the answer wakes the reconcile.
    Asked,
    /// The hub's answer helps nobody; it is asked again after [`RETRY`].
    Failed(Problem),
}

/// A revision and the commit that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// URI and revision, as `hf://ORGANISATION/NAME@REVISION`.
    pub source: String,
    /// The commit.
    pub commit: String,
}

impl Revision {
    /// The commit, if it is known.
    pub fn commit(&self) -> Option<&str> {
        match self {
            Self::Commit(resolved) => Some(&resolved.commit),
            _ => None,
        }
    }

    /// Notes a commit in a status.
    pub fn note(&self, status: &mut VisionModelStatus) {
        if let (Self::Commit(Resolved { source, commit }), Some(noted)) = (self, status.resolved.as_mut()) {
            noted.source = Some(source.clone());
            noted.revision = Some(commit.clone());
        }
    }
}

/// The answers of the hub, by the uid of the model.
pub struct Revisions {
    hub: Hub,
    table: Mutex<HashMap<String, Line>>,
    waiting: Mutex<VecDeque<Question>>,
    more: Notify,
}

struct Line {
    source: String,
    answer: Answer,
}

enum Answer {
    Pending,
    Commit(String),
    /// The problem, and when it was told.
    Failed(Problem, Duration),
}

struct Question {
    uid: String,
    source: String,
    repository: Repository,
    revision: String,
    model: ObjectRef<VisionModel>,
}

impl Revisions {
    /// Knows nothing yet.
    pub fn new(hub: Hub) -> Self {
        Self { hub, table: Mutex::default(), waiting: Mutex::default(), more: Notify::new() }
    }

    /// What is known of the revision of `model`, whose newest status is `previous`; asks the hub when nothing is.
    /// `now` is the time since the process started.
    pub fn look(&self, model: &VisionModel, previous: &VisionModelStatus, now: Duration) -> Revision {
        let Some((repository, revision)) = public(model) else { return Revision::Unasked };
        let source = format!("hf://{repository}@{revision}");
        if is_commit(&revision) {
            return Revision::Commit(Resolved { source, commit: revision });
        }
        let noted = previous.resolved.as_ref().filter(|noted| noted.source.as_deref() == Some(source.as_str()));
        if let Some(commit) = noted.and_then(|noted| noted.revision.clone()) {
            return Revision::Commit(Resolved { source, commit });
        }
        let Some(uid) = model.uid() else { return Revision::Asked };
        let mut table = lock(&self.table);
        let problem = match table.get(&uid).filter(|line| line.source == source).map(|line| &line.answer) {
            Some(Answer::Pending) => return Revision::Asked,
            Some(Answer::Commit(commit)) => {
                return Revision::Commit(Resolved { source, commit: commit.clone() });
            }
            Some(Answer::Failed(problem, told)) if now < *told + RETRY => return Revision::Failed(problem.clone()),
            Some(Answer::Failed(problem, _)) => Some(problem.clone()),
            None => None,
        };
        let question = Question {
            uid: uid.clone(),
            source: source.clone(),
            repository,
            revision,
            model: ObjectRef::from_obj(model),
        };
        // While the hub is asked again, what it said before still stands.
        let answer = problem.clone().map_or(Answer::Pending, |problem| Answer::Failed(problem, now));
        table.insert(uid, Line { source, answer });
        lock(&self.waiting).push_back(question);
        self.more.notify_one();
        problem.map_or(Revision::Asked, Revision::Failed)
    }

    /// Forgets the models whose uid is not kept.
    pub fn retain(&self, kept: impl Fn(&str) -> bool) {
        lock(&self.table).retain(|uid, _| kept(uid));
    }

    /// Asks the hub what is to be asked, and wakes the models that wait for it, until `shutdown`. `now` gives the
    /// time since the process started.
    pub async fn run(&self, wake: Wake, now: impl Fn() -> Duration, shutdown: CancellationToken) {
        let questions = stream::unfold(self, async |revisions| Some((revisions.next().await, revisions)));
        let work = questions.for_each_concurrent(AT_ONCE, async |question| {
            let answer = self.hub.resolve(&question.repository, &question.revision).await;
            let answer = match answer {
                Ok(commit) => Answer::Commit(commit),
                Err(error) => {
                    let cause = error.cause();
                    Answer::Failed(Problem::new(cause.into(), format!("{error}; {}", cause.mend())), now())
                }
            };
            self.take_in(&question, answer);
            // An error means that the controller is shutting down.
            let _ = wake.unbounded_send(question.model);
        });
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn next(&self) -> Question {
        loop {
            if let Some(question) = lock(&self.waiting).pop_front() {
                return question;
            }
            self.more.notified().await;
        }
    }

    /// Keeps an answer, unless the model asks for something else by now.
    fn take_in(&self, question: &Question, answer: Answer) {
        if let Some(line) = lock(&self.table).get_mut(&question.uid).filter(|line| line.source == question.source) {
            line.answer = answer;
        }
    }
}

/// Repository and revision of a model that anybody may read.
fn public(model: &VisionModel) -> Option<(Repository, String)> {
    let spec = &model.spec.model;
    match ModelUri::from_str(&spec.uri).ok()? {
        ModelUri::Hub(repository) if spec.token_secret_ref.is_none() => Some((repository, spec.revision().to_owned())),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
