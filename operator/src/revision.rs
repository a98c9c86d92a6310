//! Which commit a model's revision is, and where it has to fit, what its checkpoint is made of: asked of the hub once for
//! a URI and revision, and kept in the status, so that a model never moves by itself. Asking happens beside the
//! reconcile, which an answer wakes. Effects: reads the hub.
//!
//! Of a model with a token nothing is asked: the operator may not read Secrets, and pods that have it look.

use std::{
    collections::{HashMap, VecDeque},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vlm_catalog::inspection::{Found, Inspection, InspectionError};
use vlm_contract::{
    diagnosis::{Cause, Diagnosis},
    uri::{ModelUri, Repository, is_commit},
};
use vlm_crds::{VisionModel, status::VisionModelStatus};
use vlm_hub::{Hub, HubError, facts, needed};

use crate::{autoscaler::Wake, inspect, status::Problem};

/// Questions to the hub at the same time.
const AT_ONCE: usize = 16;
/// How long a failed answer stands before the hub is asked again; after further ones up to four times as long.
pub const RETRY: Duration = Duration::from_secs(20);
/// Time for one question, however many files a repository has.
const LIMIT: Duration = Duration::from_secs(60);

/// What is known of the revision of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Revision {
    /// There is nothing to ask: the weights are on a claim, or their pod asks with its token.
    Unasked,
    /// The commit, the URI and revision that it was asked for, and what its checkpoint is made of, where that was
    /// asked for.
    Commit(Resolved, Option<Arc<Inspection>>),
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
            Self::Commit(resolved, _) => Some(&resolved.commit),
            _ => None,
        }
    }

    /// What the checkpoint is made of, if it is known.
    pub fn inspection(&self) -> Option<Arc<Inspection>> {
        match self {
            Self::Commit(_, inspection) => inspection.clone(),
            _ => None,
        }
    }

    /// Notes a commit in a status.
    pub fn note(&self, status: &mut VisionModelStatus) {
        if let (Self::Commit(Resolved { source, commit }, _), Some(noted)) = (self, status.resolved.as_mut()) {
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
    Commit(String, Option<Arc<Inspection>>),
    Failed(Failure),
}

/// What the hub's answer was, and when it is to be asked again.
#[derive(Clone)]
struct Failure {
    problem: Problem,
    again: Duration,
    pause: Duration,
}

struct Question {
    uid: String,
    source: String,
    repository: Repository,
    /// The commit, where it is known.
    revision: String,
    inspect: bool,
    /// Pause after the failure before.
    pause: Duration,
    model: ObjectRef<VisionModel>,
}

impl Revisions {
    /// Knows nothing yet.
    pub fn new(hub: Hub) -> Self {
        Self { hub, table: Mutex::default(), waiting: Mutex::default(), more: Notify::new() }
    }

    /// What is known of the revision of `model`, whose newest status is `previous`; asks the hub when nothing is.
    /// With `inspect` it is also asked what the checkpoint is made of. `now` is the time since the process started.
    pub fn look(&self, model: &VisionModel, previous: &VisionModelStatus, inspect: bool, now: Duration) -> Revision {
        let Some((repository, revision)) = public(model) else { return Revision::Unasked };
        let source = format!("hf://{repository}@{revision}");
        let noted = previous.resolved.as_ref().filter(|noted| noted.source.as_deref() == Some(source.as_str()));
        let noted = noted.and_then(|noted| noted.revision.clone());
        let commit = if is_commit(&revision) { Some(revision.clone()) } else { noted };
        let inspection = if inspect { inspect::noted(model, previous) } else { None };
        if let Some(commit) = &commit
            && (!inspect || inspection.is_some())
        {
            return Revision::Commit(Resolved { source, commit: commit.clone() }, inspection);
        }
        let Some(uid) = model.uid() else { return Revision::Asked };
        let mut table = lock(&self.table);
        let failure = match table.get(&uid).filter(|line| line.source == source).map(|line| &line.answer) {
            Some(Answer::Pending) => return Revision::Asked,
            Some(Answer::Commit(commit, told)) if told.is_some() || !inspect => {
                return Revision::Commit(Resolved { source, commit: commit.clone() }, told.clone());
            }
            Some(Answer::Failed(failure)) if now < failure.again => return Revision::Failed(failure.problem.clone()),
            Some(Answer::Failed(failure)) => Some(failure.clone()),
            Some(Answer::Commit(..)) | None => None,
        };
        let question = Question {
            uid: uid.clone(),
            source: source.clone(),
            repository,
            revision: commit.unwrap_or(revision),
            inspect,
            pause: failure.as_ref().map_or(Duration::ZERO, |failure| failure.pause),
            model: ObjectRef::from_obj(model),
        };
        // While the hub is asked again, what it said before still stands.
        let standing = failure.clone().map(|failure| Failure { again: now + LIMIT + RETRY, ..failure });
        table.insert(uid, Line { source, answer: standing.map_or(Answer::Pending, Answer::Failed) });
        lock(&self.waiting).push_back(question);
        self.more.notify_one();
        failure.map_or(Revision::Asked, |failure| Revision::Failed(failure.problem))
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
            let answer = match self.ask(&question).await {
                Ok((commit, inspection)) => Answer::Commit(commit, inspection),
                Err(problem) => {
                    let pause = (2 * question.pause).clamp(RETRY, 4 * RETRY);
                    Answer::Failed(Failure { problem, again: now() + pause, pause })
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

    async fn ask(&self, question: &Question) -> Result<(String, Option<Arc<Inspection>>), Problem> {
        let Question { repository, revision, inspect, .. } = question;
        let asked = async {
            let commit = self.hub.resolve(repository, revision).await?;
            let facts = match inspect {
                true => Some(facts::of_repository(&self.hub, repository, &commit).await?),
                false => None,
            };
            Ok((commit, facts))
        };
        let late = |_| Problem::new(Cause::WeightsDownloadFailed.into(), late(repository));
        let (commit, facts) =
            tokio::time::timeout(LIMIT, asked).await.map_err(late)?.map_err(|error| of_hub(&error))?;
        let Some(facts) = facts else { return Ok((commit, None)) };
        let name = format!("{} of {repository}", needed::CONFIG);
        let raw = facts::parse_config(&facts.config, &name).map_err(|error| of_hub(&error))?;
        let (revision, weight_bytes) = (facts.revision.clone(), Some(facts.weight_bytes));
        let inspection = Inspection::new(&raw, Found { revision, weight_bytes, tensors: facts.shapes() });
        inspection.map(|told| (commit, Some(Arc::new(told)))).map_err(|error| {
            let cause = match error {
                InspectionError::Architecture(_) => Cause::UnsupportedArchitecture,
                InspectionError::Stored(_) | InspectionError::OutOfRange(_) => Cause::WeightsCorrupt,
            };
            told(cause, format!("{repository}: {error}"))
        })
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

fn of_hub(error: &HubError) -> Problem {
    told(error.cause(), error)
}

fn told(cause: Cause, wrong: impl std::fmt::Display) -> Problem {
    Problem::new(cause.into(), Diagnosis::new(cause, wrong).message)
}

fn late(repository: &Repository) -> String {
    let (seconds, mend) = (LIMIT.as_secs(), Cause::WeightsDownloadFailed.mend());
    format!("the hub did not tell within {seconds} s what {repository} is made of; {mend}")
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
