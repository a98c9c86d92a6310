//! Decoding one step ahead: while a step is computed the next is begun, fed with tokens that only the device knows, and
//! the host does with those of the last what is to be done. A sequence that ended is computed once more for nothing.

use super::{Decode, Executor, Feeding, Segment, SequenceId, Worker};
use crate::ops::Choice;

impl<E: Executor> Worker<E> {
    /// Begins the step of `decode`, and takes what the one before gave; says whether it could be begun. What is wanted
    /// of a token besides its number, and who has not been in the last step, waits for it.
    pub(super) fn ahead(&mut self, decode: &[Decode]) -> bool {
        if decode.is_empty() || !self.executor.runs_ahead() {
            return false;
        }
        let at = |row: &Decode| self.begun.iter().position(|id| *id == row.id);
        let follows: Option<Vec<usize>> = match self.begun.as_slice() {
            [] => None,
            _ => match decode.iter().map(at).collect() {
                None => return false,
                rows => rows,
            },
        };
        let feeding = |row: &Decode| {
            let (content, blocks) = self.scheduler.get(row.id)?;
            let stream = self.streams.get(&row.id)?;
            let choice: Choice = stream.choice_after(usize::from(follows.is_some()))?;
            let segment = Segment { blocks, start: row.position, rows: 1, long: content.long() };
            Some(Feeding { segment, id: row.id, token: stream.last, choice: Some(choice) })
        };
        let Some(feedings) = decode.iter().map(feeding).collect::<Option<Vec<_>>>() else { return false };
        if let Err(why) = self.executor.begin_decode(&feedings, follows.as_deref()) {
            // It is computed as any other, which says whose fault it is.
            tracing::warn!(%why, "a step could not be begun ahead");
            return false;
        }
        let before = std::mem::replace(&mut self.begun, decode.iter().map(|row| row.id).collect());
        if !before.is_empty() {
            self.take(before);
        }
        true
    }

    /// Waits for what was begun, so that all tokens are known.
    pub(super) fn settle(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        if !begun.is_empty() {
            self.take(begun);
        }
    }

    /// Goes on with what the first step gave that nobody has asked for.
    fn take(&mut self, ids: Vec<SequenceId>) {
        match self.executor.begun() {
            Ok(all) => ids.into_iter().zip(all).for_each(|(id, next)| self.follow(id, Ok(Some(next)))),
            Err(why) => ids.into_iter().for_each(|id| self.follow(id, Err(why.clone()))),
        }
    }
}
